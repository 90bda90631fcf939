//! Key and certificate are two files, and both change when a certificate is renewed: the new key waits beside the old one
//! until its certificate is in place, so that whoever finds them half changed knows which key it is for.

use std::fs;
use std::io;
use std::path::PathBuf;

use gpuquota_proto::pinned::Pin;
use gpuquota_proto::tls::{TlsFiles, chain};
use rcgen::{KeyPair, PublicKeyData as _};

use crate::state::write_whole;

/// Replaces both; what ends this in the middle leaves a pair that [`mend`] makes whole.
///
/// # Errors
/// When the file system says no.
pub fn replace(files: &TlsFiles, key: &KeyPair, chain_pem: &str) -> io::Result<()> {
    let waiting = waiting(files);
    write_whole(&waiting, key.serialize_pem().as_bytes())?;
    write_whole(&files.certificate, chain_pem.as_bytes())?;
    match fs::rename(&waiting, &files.key) {
        // A command that read the files meanwhile has mended them.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}

/// Puts the waiting key in place if the certificate is for it.
pub fn mend(files: &TlsFiles) {
    let waiting = waiting(files);
    let Ok(text) = fs::read_to_string(&waiting) else {
        return;
    };
    let (key, leaf) = (KeyPair::from_pem(&text), chain(&files.certificate));
    let (Ok(key), Ok(leaf)) = (key, leaf) else {
        return;
    };
    let own = Pin::of_key(&key.subject_public_key_info());
    if leaf.first().is_some_and(|leaf| Pin::of(leaf) == Ok(own))
        && let Err(error) = fs::rename(&waiting, &files.key)
    {
        tracing::error!(%error, "the certificate's key cannot be put in place");
    }
}

fn waiting(files: &TlsFiles) -> PathBuf {
    let mut name = files.key.clone().into_os_string();
    name.push(".next");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpuquota_proto::form::ServerForm;
    use gpuquota_proto::tls::client_config;

    #[test]
    fn a_pair_that_was_changed_half_becomes_whole_at_each_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let files = TlsFiles {
            ca: path("ca.crt"),
            certificate: path("agent.crt"),
            key: path("agent.key"),
        };
        let made = || {
            let key = KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::default();
            let certificate = params.self_signed(&key).unwrap();
            (key, certificate.pem())
        };
        let (old, new) = (made(), made());
        fs::write(&files.ca, &old.1).unwrap();
        fs::write(&files.certificate, &old.1).unwrap();
        fs::write(&files.key, old.0.serialize_pem()).unwrap();
        // Ended once the new key was there: the old pair counts, and nothing is taken away.
        fs::write(path("agent.key.next"), new.0.serialize_pem()).unwrap();
        mend(&files);
        assert!(client_config(&files, &ServerForm::Dialled).is_ok());
        // Ended once the certificate was there as well.
        fs::write(&files.certificate, &new.1).unwrap();
        assert!(client_config(&files, &ServerForm::Dialled).is_err());
        mend(&files);
        assert!(client_config(&files, &ServerForm::Dialled).is_ok());
        assert!(!path("agent.key.next").exists());
        replace(&files, &old.0, &old.1).unwrap();
        assert!(client_config(&files, &ServerForm::Dialled).is_ok());
        assert!(!path("agent.key.next").exists());
    }
}
