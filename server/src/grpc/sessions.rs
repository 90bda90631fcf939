//! Which stream of a node is its newest. An older one is ended at once, so that two never speak for one node. The newest
//! is told when leases on its node are to end.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use gpuquota_core::id::{NodeName, Seq, SessionId};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::service::Ledger;

/// Open streams by node.
#[derive(Clone, Debug, Default)]
pub struct Sessions(Arc<Mutex<HashMap<NodeName, Open>>>);

#[derive(Debug)]
struct Open {
    session: SessionId,
    superseded: CancellationToken,
    released: watch::Sender<Seq>,
}

/// What the others let a stream know.
#[derive(Debug)]
pub(super) struct Told {
    /// Cancelled when a newer stream of the node comes.
    pub(super) superseded: CancellationToken,
    /// A row up to which leases on the node are to end.
    pub(super) released: watch::Receiver<Seq>,
}

impl Sessions {
    /// Registers a stream and supersedes the older one.
    pub(super) fn open(&self, node: &NodeName, session: SessionId) -> Told {
        let superseded = CancellationToken::new();
        let (released, receiver) = watch::channel(Seq(0));
        let open = Open {
            session,
            superseded: superseded.clone(),
            released,
        };
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match sessions.get(node) {
            // Two opened at the same time: the journal's order decides.
            Some(newer) if newer.session > session => superseded.cancel(),
            _ => {
                if let Some(older) = sessions.insert(node.clone(), open) {
                    older.superseded.cancel();
                }
            }
        }
        Told {
            superseded,
            released: receiver,
        }
    }

    /// Tells nodes that leases on them are to end, until `stop`.
    pub async fn tell_released(self, ledger: Ledger, stop: CancellationToken) {
        let mut reaches = ledger.shared().reaches();
        let mut told = *reaches.borrow_and_update();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = reaches.changed() => if changed.is_err() {
                    return;
                },
            }
            let committed = ledger.read();
            let row = committed.state.seq();
            let nodes: BTreeSet<&NodeName> = committed.state.released_since(told).collect();
            told = row;
            if nodes.is_empty() {
                continue;
            }
            let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for open in nodes.into_iter().filter_map(|node| sessions.get(node)) {
                open.released.send_replace(row);
            }
        }
    }

    /// Ends the streams of nodes that open a newer session with another server, until `stop`.
    pub async fn follow(
        self,
        ledger: Ledger,
        mut opened: broadcast::Receiver<(NodeName, SessionId)>,
        stop: CancellationToken,
    ) {
        loop {
            let heard = tokio::select! {
                () = stop.cancelled() => return,
                heard = opened.recv() => heard,
            };
            match heard {
                Ok((node, session)) => self.supersede(&node, session),
                Err(RecvError::Lagged(_)) => {
                    let committed = ledger.read();
                    for (node, known) in committed.state.nodes() {
                        self.supersede(node, known.session);
                    }
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn supersede(&self, node: &NodeName, newest: SessionId) {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = sessions.get(node)
            && open.session < newest
        {
            open.superseded.cancel();
        }
    }

    /// Forgets a stream that ended.
    pub(super) fn close(&self, node: &NodeName, session: SessionId) {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions
            .get(node)
            .is_some_and(|open| open.session == session)
        {
            sessions.remove(node);
        }
    }

    /// Streams open now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
