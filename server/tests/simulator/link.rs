//! What can befall one server: its way to the database is cut, or it ends at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::history::History;
use crate::plan::Fault;

/// One server machine's fortune.
pub(crate) struct Link {
    name: String,
    history: History,
    faults: BTreeSet<Fault>,
    calm: Arc<AtomicBool>,
    parted: AtomicBool,
    crashed: Notify,
}

impl Link {
    pub(crate) fn new(
        name: String,
        history: History,
        faults: BTreeSet<Fault>,
        calm: Arc<AtomicBool>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            history,
            faults,
            calm,
            parted: AtomicBool::new(false),
            crashed: Notify::new(),
        })
    }

    /// Whether faults of this kind happen now.
    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault) && !self.calm.load(Ordering::Relaxed)
    }

    pub(crate) fn part(&self, parted: bool) {
        self.parted.store(parted, Ordering::Relaxed);
    }

    pub(crate) fn parted(&self) -> bool {
        self.parted.load(Ordering::Relaxed)
    }

    /// The server ends here; whoever calls never goes on.
    pub(crate) async fn crash(&self, when: &str) {
        self.kill(when);
        std::future::pending::<()>().await;
    }

    pub(crate) fn kill(&self, when: &str) {
        self.history.note(format!("{} crashes {when}", self.name));
        self.crashed.notify_one();
    }

    /// Until it is to end.
    pub(crate) async fn crashed(&self) {
        self.crashed.notified().await;
    }
}
