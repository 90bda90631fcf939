//! The table `[rest]`.

use std::net::SocketAddr;

use serde::Deserialize;

/// The REST listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rest {
    /// Address.
    pub listen: SocketAddr,
    /// Open connections at most.
    pub connections: usize,
}

impl Rest {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.connections == 0 {
            return Err("rest.connections must be at least 1".into());
        }
        Ok(())
    }

    pub(super) fn check_listener(&self) -> Result<(), String> {
        if !self.listen.ip().is_loopback() {
            return Err(format!(
                "REST on {} would carry tokens unencrypted; listen on 127.0.0.1 behind a TLS proxy",
                self.listen
            ));
        }
        Ok(())
    }
}
