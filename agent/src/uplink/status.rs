//! What `/metrics` and the service manager say of the uplink.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

/// Written by the uplink, read by whoever scrapes.
#[derive(Debug, Default)]
pub struct UplinkStatus {
    connected: AtomicBool,
    sessions: AtomicU64,
    certificate_not_after_unix_s: AtomicI64,
}

impl UplinkStatus {
    /// A session is up.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    /// Sessions after the first one.
    #[must_use]
    pub fn reconnects(&self) -> u64 {
        self.sessions.load(Relaxed).saturating_sub(1)
    }

    /// When the certificate in use ends, seconds since 1970; `None` before the first connection.
    #[must_use]
    pub fn certificate_not_after_unix_s(&self) -> Option<i64> {
        Some(self.certificate_not_after_unix_s.load(Relaxed)).filter(|end| *end != 0)
    }

    pub(super) fn certificate_ends(&self, not_after_unix_s: i64) {
        self.certificate_not_after_unix_s
            .store(not_after_unix_s, Relaxed);
    }

    pub(super) fn welcomed(&self) {
        self.connected.store(true, Relaxed);
        self.sessions.fetch_add(1, Relaxed);
    }

    // Whether there was a session at all.
    pub(super) fn ended(&self) -> bool {
        self.connected.swap(false, Relaxed)
    }
}
