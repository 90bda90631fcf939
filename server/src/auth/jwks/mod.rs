//! Where the keys of a foreign issuer come from: one key in a file, a key set in a file, a key set at an address.

mod address;
mod fetch;
mod file;
mod key_set;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::DecodingKey;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use tokio_util::sync::CancellationToken;

use self::address::KeySetAddress;
use self::fetch::Fetcher;
use self::file::KeySetFile;
use super::Algorithm;
use crate::clock::Clock;
use crate::config::Issuer;

/// The keys of one issuer.
pub(super) enum Keys {
    /// One key that never changes, and the `kid` that tokens may carry for it.
    One(Arc<DecodingKey>, Option<String>),
    /// A file that is read again when it changes.
    File(KeySetFile),
    /// An address that is fetched again and again.
    Address(KeySetAddress),
}

impl Keys {
    /// What the configuration names. Files are read now; an address is not waited for.
    pub(super) fn open(settings: &Issuer, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let algorithm = settings.algorithm;
        let one = |key| Ok(Self::One(Arc::new(key), settings.kid.clone()));
        if let Some(path) = &settings.secret_file {
            let secret = read(path)?;
            let key = algorithm.secret(secret.trim_ascii());
            return one(key.ok_or_else(|| {
                format!("the secret {} must hold at least 32 bytes", path.display())
            })?);
        }
        if let Some(path) = &settings.public_key_file {
            return one(public_key(algorithm, &read(path)?).ok_or_else(|| {
                format!(
                    "{} is no public key for {}: SubjectPublicKeyInfo in PEM (BEGIN PUBLIC KEY); RSA needs 2048 to 8192 bits",
                    path.display(),
                    algorithm.as_str()
                )
            })?);
        }
        if let Some(path) = &settings.jwks_file {
            return KeySetFile::open(settings.name(), path, algorithm).map(Self::File);
        }
        let url = settings.jwks_url.as_deref().ok_or("no key is named")?;
        let fetcher = Fetcher::new(url, settings.jwks_ca_file.as_deref())?;
        Ok(Self::Address(KeySetAddress::new(
            settings.name(),
            algorithm,
            fetcher,
            Duration::from_secs(settings.jwks_refresh_seconds.into()),
            Duration::from_secs(settings.jwks_keep_seconds.into()),
            clock,
        )))
    }

    /// The one key that a token with this `kid` may be signed with.
    pub(super) async fn find(&self, kid: Option<&str>) -> Option<Arc<DecodingKey>> {
        match self {
            Self::One(key, name) => {
                let fits = kid.is_none() || kid == name.as_deref();
                fits.then(|| key.clone())
            }
            Self::File(file) => file.find(kid),
            Self::Address(address) => address.find(kid).await,
        }
    }

    /// Keeps the keys fresh until `stop`.
    pub(super) async fn refresh(&self, stop: CancellationToken) {
        match self {
            Self::One(..) => {}
            Self::File(file) => file.watch(stop).await,
            Self::Address(address) => address.refresh(stop).await,
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

fn public_key(algorithm: Algorithm, pem: &[u8]) -> Option<DecodingKey> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).ok()?;
    algorithm.spki(&der)
}
