//! The authorities that the server tells of: kept beside the certificate, whole at each moment, and whose certificate is wanted now.

use std::time::Duration;

use gpuquota_proto::AUTHORITIES;
use gpuquota_proto::agent_v1::{Trust, TrustHeld};
use gpuquota_proto::authorities::behind_client;
use gpuquota_proto::pinned::Pin;
use gpuquota_proto::tls::{TlsFiles, chain};
use tokio::sync::watch;

use super::{JoinError, holds, pem, put};

/// Whose certificate the node is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Who signs now.
    pub signer: Pin,
    /// The next certificate is asked for within this time, when this one has another signer.
    pub within: Duration,
}

/// What is told is kept here.
#[derive(Debug)]
pub struct Authorities {
    files: TlsFiles,
    wanted: watch::Sender<Option<Wanted>>,
}

impl Authorities {
    /// Of the node with these files, and how a renewal learns what is wanted.
    #[must_use]
    pub fn new(files: TlsFiles) -> (Self, watch::Receiver<Option<Wanted>>) {
        let (wanted, receiver) = watch::channel(None);
        (Self { files, wanted }, receiver)
    }

    /// Takes what the server said, and tells what the node trusts from now on. One at least of those that were trusted stays: a
    /// server can lead over to another authority, but not take a node along at once.
    pub(crate) fn told(&self, trust: &Trust) -> Option<TrustHeld> {
        match self.take(trust) {
            Ok(()) => {
                let signer = Pin::from_bytes(&trust.signer);
                let within = Duration::from_millis(trust.renew_within_ms);
                let wanted = signer.filter(|_| !within.is_zero());
                let wanted = wanted.map(|signer| Wanted { signer, within });
                self.wanted.send_if_modified(|now| {
                    let changed = *now != wanted;
                    *now = wanted;
                    changed
                });
            }
            Err(error) => {
                tracing::error!(%error, "the authorities that the server tells of are not taken");
            }
        }
        let held = chain(&self.files.ca).ok()?;
        let pins = held.iter().filter_map(|der| Pin::of(der).ok());
        Some(TrustHeld {
            authorities: pins
                .map(|pin| pin.bytes().to_vec())
                .take(AUTHORITIES)
                .collect(),
        })
    }

    fn take(&self, trust: &Trust) -> Result<(), JoinError> {
        let told = &trust.authorities;
        if !(1..=AUTHORITIES).contains(&told.len()) {
            return Err(JoinError::Answer("no authorities, or too many"));
        }
        let pins: Vec<Pin> = told.iter().filter_map(|der| Pin::of(der).ok()).collect();
        if pins.len() != told.len() {
            return Err(JoinError::Answer("an authority is no certificate"));
        }
        let text = pem(told);
        if holds(&self.files.ca, &text) {
            return Ok(());
        }
        let known = chain(&self.files.ca).unwrap_or_default();
        if !known
            .iter()
            .any(|der| Pin::of(der).is_ok_and(|pin| pins.contains(&pin)))
        {
            return Err(JoinError::Answer("none of the authorities is trusted here"));
        }
        put(&self.files.ca, text.as_bytes())?;
        tracing::info!(authorities = told.len(), "the authorities changed");
        Ok(())
    }
}

/// Whose certificate the node has, of those that it trusts.
pub(super) fn signer(files: &TlsFiles) -> Option<Pin> {
    behind_client(&chain(&files.certificate).ok()?, &chain(&files.ca).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    fn authority() -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn trust(authorities: &[&Vec<u8>]) -> Trust {
        Trust {
            authorities: authorities.iter().map(|der| (*der).clone()).collect(),
            signer: Pin::of(authorities[0]).unwrap().bytes().to_vec(),
            renew_within_ms: 5,
        }
    }

    #[test]
    fn case_12_one_authority_leads_over_to_the_next_and_a_stranger_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let files = TlsFiles {
            ca: dir.path().join("ca.crt"),
            certificate: dir.path().join("agent.crt"),
            key: dir.path().join("agent.key"),
        };
        let (old, new, stranger) = (authority(), authority(), authority());
        std::fs::write(&files.ca, pem(std::slice::from_ref(&old))).unwrap();
        let (authorities, wanted) = Authorities::new(files.clone());
        let pins = |ders: &[&Vec<u8>]| -> Vec<Vec<u8>> {
            ders.iter()
                .map(|der| Pin::of(der).unwrap().bytes().to_vec())
                .collect()
        };
        let told = |ders: &[&Vec<u8>]| authorities.told(&trust(ders)).unwrap().authorities;
        // What is not taken leaves what was there, and says so.
        assert_eq!(told(&[&stranger]), pins(&[&old]));
        assert_eq!(told(&[&new]), pins(&[&old]));
        let junk = Trust {
            authorities: vec![old.clone(), b"junk".to_vec()],
            ..trust(&[&old])
        };
        assert_eq!(authorities.told(&junk).unwrap().authorities, pins(&[&old]));
        let many = vec![&old; AUTHORITIES + 1];
        assert_eq!(told(&many), pins(&[&old]));
        assert_eq!(*wanted.borrow(), None);
        assert_eq!(told(&[&old, &new]), pins(&[&old, &new]));
        // Another order is nothing new, but who signs is.
        assert_eq!(told(&[&new, &old]), pins(&[&old, &new]));
        let signer = Pin::of(&new).unwrap();
        let within = Duration::from_millis(5);
        assert_eq!(*wanted.borrow(), Some(Wanted { signer, within }));
        assert_eq!(told(&[&new]), pins(&[&new]));
        assert_eq!(told(&[&old]), pins(&[&new]));
    }
}
