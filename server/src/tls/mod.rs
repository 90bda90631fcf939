//! A listener's certificate, read again when its files change, and the bound on handshakes under way.

mod handshakes;

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gpuquota_proto::authorities::behind_server;
use gpuquota_proto::pinned::{JOIN_ALPN, Pin};
use gpuquota_proto::tls::{HttpsFiles, TlsError, TlsFiles};
use gpuquota_proto::tls::{
    chain, https_config, join_server_config, not_after_unix_s, server_config,
};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::Acceptor;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

pub(crate) use handshakes::Handshakes;

/// Time for a handshake, from the connection on.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// One listener's certificate.
#[derive(Debug)]
pub struct Certificates {
    listener: &'static str,
    files: Files,
    used: Mutex<Used>,
}

#[derive(Debug)]
enum Files {
    /// And chains of other authorities that are trusted, for whoever joins by their keys.
    Mutual(TlsFiles, Vec<HttpsFiles>),
    Https(HttpsFiles),
}

#[derive(Debug)]
struct Used {
    config: Arc<ServerConfig>,
    /// For agents that have no certificate yet, each with the authority behind it; the usual one first.
    join: Vec<Joinable>,
    authorities: Arc<Vec<CertificateDer<'static>>>,
    not_after_unix_s: i64,
    stamps: Vec<Stamp>,
}

type Joinable = (Option<Pin>, Arc<ServerConfig>);

/// For an agent with a certificate, and for one that joins.
pub(crate) struct AgentConfigs {
    config: Arc<ServerConfig>,
    join: Vec<Joinable>,
    /// Those that the agent's chain may end in.
    pub(crate) authorities: Arc<Vec<CertificateDer<'static>>>,
}

/// What changes when a file is written to, replaced, or reached through another link; `None` while it is missing.
pub(crate) type Stamp = Option<(u64, u64, u64, i64, i64, i64, i64)>;

impl Certificates {
    /// For agents, who show a certificate themselves. `others` are further chains that agents may be shown when they join, where they
    /// are there and their authority is trusted. `listener` names it in metrics and the log.
    ///
    /// # Errors
    /// When a file cannot be read or used.
    pub fn mutual(
        listener: &'static str,
        files: TlsFiles,
        others: Vec<HttpsFiles>,
    ) -> Result<Self, TlsError> {
        Self::new(listener, Files::Mutual(files, others))
    }

    /// For HTTPS. `listener` names it in metrics and the log.
    ///
    /// # Errors
    /// When a file cannot be read or used.
    pub fn https(listener: &'static str, files: HttpsFiles) -> Result<Self, TlsError> {
        Self::new(listener, Files::Https(files))
    }

    fn new(listener: &'static str, files: Files) -> Result<Self, TlsError> {
        let used = Mutex::new(files.read(files.stamps())?);
        Ok(Self {
            listener,
            files,
            used,
        })
    }

    /// Which listener's.
    #[must_use]
    pub fn listener(&self) -> &'static str {
        self.listener
    }

    /// End of the certificate that the next connection will see, seconds since 1970 (UTC).
    #[must_use]
    pub fn not_after_unix_s(&self) -> i64 {
        self.with_newest(|used| used.not_after_unix_s)
    }

    /// For one connection, with the files as they are now. Files that cannot be used leave the ones before in use.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.with_newest(|used| TlsAcceptor::from(used.config.clone()))
    }

    /// The same for an agent that says by ALPN that it joins, and shows no certificate.
    pub(crate) fn configs(&self) -> AgentConfigs {
        self.with_newest(|used| AgentConfigs {
            config: used.config.clone(),
            join: used.join.clone(),
            authorities: used.authorities.clone(),
        })
    }

    fn with_newest<T>(&self, read: impl FnOnce(&Used) -> T) -> T {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.files.stamps();
        if stamps != used.stamps {
            match self.files.read(stamps.clone()) {
                Ok(renewed) => {
                    tracing::info!(
                        listener = self.listener,
                        "the certificate changed and is used from now on"
                    );
                    *used = renewed;
                }
                Err(error) => {
                    tracing::error!(
                        listener = self.listener, error = %error,
                        "the changed certificate cannot be used; the old one stays"
                    );
                    used.stamps = stamps;
                }
            }
        }
        read(&used)
    }
}

impl Files {
    // `stamps` are taken before: whatever changes while the files are read is seen the next time.
    fn read(&self, stamps: Vec<Stamp>) -> Result<Used, TlsError> {
        let (config, certificate) = match self {
            Self::Mutual(files, _) => (server_config(files)?, &files.certificate),
            Self::Https(files) => (https_config(files)?, &files.certificate),
        };
        let (join, authorities) = match self {
            Self::Mutual(files, others) => joinable(files, others)?,
            Self::Https(_) => (Vec::new(), Vec::new()),
        };
        Ok(Used {
            config: Arc::new(config),
            join,
            authorities: Arc::new(authorities),
            not_after_unix_s: not_after_unix_s(certificate)?,
            stamps,
        })
    }

    fn stamps(&self) -> Vec<Stamp> {
        match self {
            Self::Mutual(files, others) => [&files.ca, &files.certificate, &files.key]
                .into_iter()
                .chain(
                    others
                        .iter()
                        .flat_map(|pair| [&pair.certificate, &pair.key]),
                )
                .map(|path| stamp(path))
                .collect(),
            Self::Https(files) => vec![stamp(&files.certificate), stamp(&files.key)],
        }
    }
}

// The usual chain, and those of the others that can be used.
fn joinable(
    files: &TlsFiles,
    others: &[HttpsFiles],
) -> Result<(Vec<Joinable>, Vec<CertificateDer<'static>>), TlsError> {
    let authorities = chain(&files.ca)?;
    let shown = |path: &Path| behind_server(&chain(path).ok()?, &authorities);
    let own = join_server_config(files)?;
    let mut all = vec![(shown(&files.certificate), Arc::new(own))];
    for other in others {
        let Some(pin) = shown(&other.certificate) else {
            continue;
        };
        let files = TlsFiles {
            ca: files.ca.clone(),
            certificate: other.certificate.clone(),
            key: other.key.clone(),
        };
        match join_server_config(&files) {
            Ok(config) => all.push((Some(pin), Arc::new(config))),
            Err(error) => tracing::warn!(%error, "a chain for agents that join cannot be used"),
        }
    }
    Ok((all, authorities))
}

pub(crate) fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((
        meta.dev(),
        meta.ino(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
    ))
}

/// One handshake of an agent, with its deadline; whether it came to join.
///
/// # Errors
/// With what TLS says, or that the time was up.
pub(crate) async fn agents_handshake(
    configs: AgentConfigs,
    stream: TcpStream,
) -> io::Result<(TlsStream<TcpStream>, bool)> {
    let shaking = async {
        let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let named = begun.client_hello().alpn().map(Iterator::collect::<Vec<_>>);
        let named = named.unwrap_or_default();
        let joins = named.contains(&JOIN_ALPN);
        // The chain that ends in the authority whose key it knows, where there is one.
        let pinned = |(pin, _): &&Joinable| pin.is_some_and(|pin| named.contains(&&*pin.alpn()));
        let join = configs.join.iter().find(pinned).or(configs.join.first());
        match join.filter(|_| joins) {
            Some((_, join)) => Ok((begun.into_stream(join.clone()).await?, true)),
            None => Ok((begun.into_stream(configs.config).await?, false)),
        }
    };
    let shaken = tokio::time::timeout(HANDSHAKE_DEADLINE, shaking);
    shaken.await.unwrap_or_else(|_| Err(late()))
}

fn late() -> io::Error {
    let reason = "the TLS handshake did not end in time";
    io::Error::new(io::ErrorKind::TimedOut, reason)
}

/// One handshake with its deadline.
///
/// # Errors
/// With what TLS says, or that the time was up.
pub(crate) async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let accepting = tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream));
    accepting.await.unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Authority, Pair, authority};
    use gpuquota_core::id::Timestamp;

    const NOW: i64 = 1_800_000_000;

    fn put(dir: &Path, pair: &Pair) {
        std::fs::write(dir.join("a.crt"), &pair.certificate).unwrap();
        std::fs::write(dir.join("a.key"), &pair.key).unwrap();
    }

    #[test]
    fn a_renewed_pair_is_used_and_half_of_one_is_not() {
        let ca = Authority::new(&authority(Timestamp(NOW * 1000)).unwrap()).unwrap();
        let issue = |later: i64| {
            let now = Timestamp((NOW + later) * 1000);
            ca.server(&["localhost".to_owned()], now).unwrap()
        };
        let (dir, old, new) = (tempfile::tempdir().unwrap(), issue(0), issue(1000));
        put(dir.path(), &old);
        let files = HttpsFiles {
            certificate: dir.path().join("a.crt"),
            key: dir.path().join("a.key"),
        };
        let certificates = Certificates::https("rest", files.clone()).unwrap();
        let end = certificates.not_after_unix_s();
        std::fs::write(&files.certificate, &new.certificate).unwrap();
        assert_eq!(certificates.not_after_unix_s(), end, "the key is another's");
        std::fs::remove_file(&files.key).unwrap();
        assert_eq!(certificates.not_after_unix_s(), end, "there is no key");
        put(dir.path(), &new);
        assert_eq!(certificates.not_after_unix_s(), end + 1000);
        // Replaced by a file as long and as old as the one before, as `cp -p` and `mv` do.
        let before = std::fs::metadata(&files.certificate).unwrap();
        let beside = dir.path().join("b.crt");
        std::fs::write(&beside, "x".repeat(new.certificate.len())).unwrap();
        let beside_file = std::fs::File::open(&beside).unwrap();
        beside_file
            .set_modified(before.modified().unwrap())
            .unwrap();
        std::fs::rename(&beside, &files.certificate).unwrap();
        assert_eq!(certificates.not_after_unix_s(), end + 1000);
        let used = certificates.used.lock().unwrap();
        assert_eq!(used.stamps, certificates.files.stamps());
    }

    #[test]
    fn files_that_cannot_be_used_at_start_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let files = HttpsFiles {
            certificate: dir.path().join("a.crt"),
            key: dir.path().join("a.key"),
        };
        let missing = Certificates::https("rest", files.clone()).unwrap_err();
        assert!(missing.to_string().contains("a.crt"), "{missing}");
        std::fs::write(&files.certificate, "no certificate").unwrap();
        let empty = Certificates::https("rest", files).unwrap_err();
        assert!(empty.to_string().contains("a.crt"), "{empty}");
    }
}
