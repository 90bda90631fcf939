//! Which stream of a node is its newest. An older one is ended at once, so that two never speak for one node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use gpuquota_core::id::{NodeName, SessionId};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::service::Ledger;

/// Open streams by node.
#[derive(Clone, Debug, Default)]
pub struct Sessions(Arc<Mutex<HashMap<NodeName, Open>>>);

#[derive(Debug)]
struct Open {
    session: SessionId,
    superseded: CancellationToken,
}

impl Sessions {
    /// Registers a stream and supersedes the older one. The token is cancelled when a newer one comes.
    pub(super) fn open(&self, node: &NodeName, session: SessionId) -> CancellationToken {
        let superseded = CancellationToken::new();
        let open = Open {
            session,
            superseded: superseded.clone(),
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
        superseded
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
