//! A journal that several servers share, as one of them sees it: how fresh its state is, and who took over which node.

use std::sync::atomic::{AtomicU64, Ordering};

use gpuquota_core::id::{NodeName, Seq, SessionId};
use tokio::sync::{broadcast, watch};

/// Sessions opened elsewhere that may wait to be heard of; whoever is further behind compares all it has.
const OPENED: usize = 1024;

/// What the batcher lets the others know.
#[derive(Debug)]
pub struct Shared {
    writer: String,
    others: bool,
    /// Boot time of the last moment at which the state was the newest.
    newest_at_ms: AtomicU64,
    reached: watch::Sender<Seq>,
    opened: broadcast::Sender<(NodeName, SessionId)>,
}

impl Shared {
    pub(super) fn new(writer: String, others: bool, seq: Seq, now_ms: u64) -> Self {
        Self {
            writer,
            others,
            newest_at_ms: AtomicU64::new(now_ms),
            reached: watch::Sender::new(seq),
            opened: broadcast::Sender::new(OPENED),
        }
    }

    /// Name of this server in the rows that it writes.
    #[must_use]
    pub fn writer(&self) -> &str {
        &self.writer
    }

    /// Whether other servers may write to the journal too.
    #[must_use]
    pub fn others(&self) -> bool {
        self.others
    }

    /// How long ago the state was surely the newest, milliseconds; 0 where nobody else writes.
    #[must_use]
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        if !self.others {
            return 0;
        }
        now_ms.saturating_sub(self.newest_at_ms.load(Ordering::Acquire))
    }

    /// Waits until reads see the row `seq`.
    pub async fn reached(&self, seq: Seq) {
        let mut reached = self.reached.subscribe();
        // The sender lives as long as we do.
        let _ = reached.wait_for(|now| *now >= seq).await;
    }

    /// Sessions that agents open with other servers, from now on.
    #[must_use]
    pub fn opened_elsewhere(&self) -> broadcast::Receiver<(NodeName, SessionId)> {
        self.opened.subscribe()
    }

    /// The row up to which reads see, whenever it changes.
    #[must_use]
    pub fn reaches(&self) -> watch::Receiver<Seq> {
        self.reached.subscribe()
    }

    pub(super) fn newest(&self, at_ms: u64) {
        self.newest_at_ms.fetch_max(at_ms, Ordering::AcqRel);
    }

    pub(super) fn publish(&self, seq: Seq) {
        self.reached.send_replace(seq);
    }

    pub(super) fn tell_opened(&self, opened: Vec<(NodeName, SessionId)>) {
        for session in opened {
            // Without agents nobody listens.
            let _ = self.opened.send(session);
        }
    }
}
