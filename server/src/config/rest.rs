//! The table `[rest]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use gpuquota_proto::tls::HttpsFiles;
use serde::Deserialize;

/// The REST listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rest {
    /// Address.
    pub listen: SocketAddr,
    /// Open connections at most.
    pub connections: usize,
    /// Own chain; with it the listener speaks HTTPS only.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// Own private key.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// Plain HTTP also off loopback.
    #[serde(default)]
    pub plain_http: bool,
}

impl Rest {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.connections == 0 {
            return Err("rest.connections must be at least 1".into());
        }
        both("rest", self.certificate.as_ref(), self.key.as_ref())?;
        if self.plain_http && self.certificate.is_some() {
            return Err("rest.plain_http and rest.certificate exclude each other: a listener speaks HTTP or HTTPS".into());
        }
        Ok(())
    }

    pub(super) fn check_listener(&self) -> Result<(), String> {
        if self.listen.ip().is_loopback() || self.certificate.is_some() || self.plain_http {
            return Ok(());
        }
        Err(format!(
            "REST on {} would carry tokens unencrypted; set rest.certificate and rest.key, \
             such as server.crt and server.key, or listen on 127.0.0.1; rest.plain_http = true permits it all the same",
            self.listen
        ))
    }

    /// The files of HTTPS; `None` is plain HTTP.
    #[must_use]
    pub fn https(&self) -> Option<HttpsFiles> {
        https(self.certificate.as_ref(), self.key.as_ref())
    }
}

pub(super) fn both(
    table: &str,
    certificate: Option<&PathBuf>,
    key: Option<&PathBuf>,
) -> Result<(), String> {
    match (certificate, key) {
        (Some(_), None) => Err(format!("{table}.certificate needs {table}.key")),
        (None, Some(_)) => Err(format!("{table}.key needs {table}.certificate")),
        _ => Ok(()),
    }
}

pub(super) fn https(certificate: Option<&PathBuf>, key: Option<&PathBuf>) -> Option<HttpsFiles> {
    Some(HttpsFiles {
        certificate: certificate?.clone(),
        key: key?.clone(),
    })
}
