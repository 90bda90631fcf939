//! TLS handshakes under way, by address: whoever connects and says nothing keeps only itself waiting.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::network;

/// Handshakes under way.
#[derive(Clone, Debug)]
pub(crate) struct Handshakes {
    free: Arc<Semaphore>,
    per_address: usize,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One of them; it has ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Handshake {
    all: Handshakes,
    network: IpAddr,
}

impl Handshakes {
    /// At most so many at once, and half of them from one address, for a whole fleet may stand behind one.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(most)),
            per_address: most / 2,
            by_address: Arc::default(),
        }
    }

    /// Room for one more connection; until there is, further ones wait in the listen queue.
    pub(crate) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        // Never closed, so a permit always comes.
        self.free.clone().acquire_owned().await.ok()
    }

    /// Begins one, unless too many from that address are under way.
    pub(crate) fn begin(&self, address: IpAddr) -> Option<Handshake> {
        let network = network(address);
        let mut all = self.lock();
        let count = all.entry(network).or_insert(0);
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        Some(Handshake {
            all: self.clone(),
            network,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if let Some(count) = all.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_never_ends_its_handshakes_leaves_room_for_others() {
        let handshakes = Handshakes::new(256);
        let bad: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::2".parse().unwrap();
        let other: IpAddr = "192.0.2.1".parse().unwrap();
        let mut open: Vec<Handshake> = (0..1000).filter_map(|_| handshakes.begin(bad)).collect();
        assert_eq!(open.len(), 128);
        assert!(handshakes.begin(neighbour).is_none());
        assert!(handshakes.begin(other).is_some());
        open.pop();
        assert!(handshakes.begin(neighbour).is_some());
        open.clear();
        assert!(handshakes.lock().is_empty());
    }
}
