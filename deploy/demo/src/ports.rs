//! Ports that nobody listens on.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result};

/// `preferred` if it is free, else any. Another program may still take it before it is used; then try again.
pub(crate) fn free(preferred: Option<u16>) -> Result<u16> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = match preferred.map(bind) {
        Some(Ok(listener)) => listener,
        _ => bind(0).context("no port is free")?,
    };
    Ok(listener.local_addr()?.port())
}

/// As [`free`], for several at once; they differ.
pub(crate) fn free_three(preferred: Option<[u16; 3]>) -> Result<[u16; 3]> {
    let bind = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let mut held = Vec::new();
    for index in 0..3 {
        let wanted = preferred.and_then(|ports| ports.get(index).copied());
        let listener = match wanted.map(bind) {
            Some(Ok(listener)) => listener,
            _ => bind(0).context("no port is free")?,
        };
        held.push(listener);
    }
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&held) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_passed_over() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_ne!(free(Some(port)).unwrap(), port);
        let [a, b, c] = free_three(Some([port; 3])).unwrap();
        assert!(a != b && b != c && a != c && a != port);
    }
}
