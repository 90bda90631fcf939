//! TLS handshakes under way, by address: whoever connects and says nothing keeps only itself waiting.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::auth::network;

/// Handshakes under way at once; further connections wait in the listen queue.
pub(super) const HANDSHAKES: usize = 256;
/// Handshakes under way at once from one address: half of all, for a whole fleet may stand behind one.
const PER_ADDRESS: usize = HANDSHAKES / 2;

/// Handshakes under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Handshakes(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them; it has ended when this is dropped.
#[derive(Debug)]
pub(super) struct Handshake {
    all: Handshakes,
    network: IpAddr,
}

impl Handshakes {
    /// Begins one, unless too many from that address are under way.
    pub(super) fn begin(&self, address: IpAddr) -> Option<Handshake> {
        let network = network(address);
        let mut all = self.lock();
        let count = all.entry(network).or_insert(0);
        if *count >= PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Handshake {
            all: self.clone(),
            network,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let handshakes = Handshakes::default();
        let bad: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::2".parse().unwrap();
        let other: IpAddr = "192.0.2.1".parse().unwrap();
        let mut open: Vec<Handshake> = (0..1000).filter_map(|_| handshakes.begin(bad)).collect();
        assert_eq!(open.len(), PER_ADDRESS);
        assert!(handshakes.begin(neighbour).is_none());
        assert!(handshakes.begin(other).is_some());
        open.pop();
        assert!(handshakes.begin(neighbour).is_some());
        open.clear();
        assert!(handshakes.lock().is_empty());
    }
}
