//! Which stream of a node is its newest. An older one is ended at once, so that two never speak for one node. The newest
//! is told when leases on its node are to end.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gpuquota_core::State;
use gpuquota_core::id::{NodeName, Seq, SessionId, TenantName};
use gpuquota_core::policy::{Found, Kept};
use gpuquota_proto::pinned::Pin;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use super::peer::Peer;
use crate::service::Ledger;

/// After looking whose policy may be another, so many times as long nothing is looked at; at most the other.
const IDLE_TIMES: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Open streams by node.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    open: Arc<Mutex<HashMap<NodeName, Open>>>,
    /// What is found against tenants, the same for all their nodes.
    kept: Arc<Mutex<Kept>>,
    /// How fast steps came of late, by node.
    paces: Arc<Mutex<HashMap<NodeName, Pace>>>,
}

#[derive(Debug)]
struct Open {
    session: SessionId,
    superseded: CancellationToken,
    released: watch::Sender<Seq>,
    judged: watch::Sender<Seq>,
    serial: String,
    authority: Option<Pin>,
    barred: CancellationToken,
}

/// What the others let a stream know.
#[derive(Debug)]
pub(super) struct Told {
    /// Cancelled when a newer stream of the node comes.
    pub(super) superseded: CancellationToken,
    /// A row up to which leases on the node are to end.
    pub(super) released: watch::Receiver<Seq>,
    /// A row that may have changed the node's policy.
    pub(super) judged: watch::Receiver<Seq>,
    /// Cancelled when the ledger lets its certificate speak for the node no more.
    pub(super) barred: CancellationToken,
}

impl Sessions {
    /// Registers a stream and supersedes the older one.
    pub(super) fn open(&self, peer: &Peer, session: SessionId) -> Told {
        let node = &peer.node;
        let superseded = CancellationToken::new();
        let barred = CancellationToken::new();
        let (released, receiver) = watch::channel(Seq(0));
        let (judged, judged_receiver) = watch::channel(Seq(0));
        let open = Open {
            session,
            superseded: superseded.clone(),
            released,
            judged,
            serial: peer.serial.clone(),
            authority: peer.authority,
            barred: barred.clone(),
        };
        let mut sessions = self.open.lock().unwrap_or_else(PoisonError::into_inner);
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
            judged: judged_receiver,
            barred,
        }
    }

    // Ends the streams of whom the ledger refuses by now.
    fn end_barred(&self, state: &State) {
        let sessions = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for (node, open) in sessions.iter() {
            if state.barred(node, &open.serial).is_some() {
                open.barred.cancel();
            }
        }
    }

    /// Ends the streams whose certificate's authority this refuses.
    pub(super) fn end_of_authorities(&self, refused: impl Fn(Option<Pin>) -> bool) {
        let sessions = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = sessions.values();
        for open in open.filter(|open| refused(open.authority)) {
            open.barred.cancel();
        }
    }

    /// Tells nodes that leases on them are to end, and ends the streams of those that are banned or retired, until `stop`.
    pub async fn tell(self, ledger: Ledger, stop: CancellationToken) {
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
            if committed.state.changes().of_bans() > told {
                self.end_barred(&committed.state);
            }
            let nodes: BTreeSet<&NodeName> = committed.state.released_since(told).collect();
            told = row;
            if !nodes.is_empty() {
                let sessions = self.open.lock().unwrap_or_else(PoisonError::into_inner);
                for open in nodes.into_iter().filter_map(|node| sessions.get(node)) {
                    open.released.send_replace(row);
                }
            }
        }
    }

    /// Tells nodes that their policy may be another, until `stop`. Rows that come meanwhile are looked at together.
    pub async fn tell_policies(self, ledger: Ledger, stop: CancellationToken) {
        let mut reaches = ledger.shared().reaches();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = reaches.changed() => if changed.is_err() {
                    return;
                },
            }
            // A session that opens later looks for itself.
            if self.count() == 0 {
                continue;
            }
            let began = Instant::now();
            let committed = ledger.read();
            // A tenant with many devices takes a while to look through; no task of the runtime waits for that.
            let sessions = self.clone();
            let judged = tokio::task::spawn_blocking(move || sessions.judge(&committed.state));
            if judged.await.is_err() {
                tracing::error!("policies cannot be followed; sessions look again by time alone");
            }
            // However many rows come, who writes them has the processor most of the time.
            let pause = (began.elapsed() * IDLE_TIMES).min(LONGEST_PAUSE);
            tokio::time::sleep(pause).await;
        }
    }

    fn judge(&self, state: &State) {
        let woken = self.kept().follow(state);
        let row = state.seq();
        let sessions = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match woken {
            None => sessions.values().for_each(|open| {
                open.judged.send_replace(row);
            }),
            Some(nodes) => {
                for open in nodes.iter().filter_map(|node| sessions.get(node)) {
                    open.judged.send_replace(row);
                }
            }
        }
    }

    /// What is found against a tenant in a state.
    pub(super) fn found(&self, state: &State, tenant: &TenantName) -> Arc<Found> {
        self.kept().found(state, tenant)
    }

    /// What this node's steps used of their pace by now; it outlives a session.
    pub(super) fn paced<T>(
        &self,
        node: &NodeName,
        now_ms: u64,
        take: impl FnOnce(&mut Pace) -> T,
    ) -> T {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        paces.retain(|_, pace| !pace.over(now_ms));
        take(paces.entry(node.clone()).or_default())
    }

    // A cache: whatever a panic left in it is checked by row.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
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
        let sessions = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = sessions.get(node)
            && open.session < newest
        {
            open.superseded.cancel();
        }
    }

    /// Forgets a stream that ended; whether it was the newest.
    pub(super) fn close(&self, node: &NodeName, session: SessionId) -> bool {
        let mut sessions = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = sessions
            .get(node)
            .is_some_and(|open| open.session == session);
        if newest {
            sessions.remove(node);
        }
        newest
    }

    /// Streams open now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}
