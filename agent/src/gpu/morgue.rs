//! Workers on their way out, and those that cannot go because they are stuck in the driver.

use std::time::Duration;

use tokio::process::Child;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::link::Link;

/// How long a shutdown waits for workers; longer than the slowest end of one.
const LAST_WAIT: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
pub(super) struct Morgue {
    ending: JoinSet<Option<Child>>,
    stuck: Vec<Child>,
}

impl Morgue {
    /// Ends a worker in the background.
    pub(super) fn take(&mut self, worker: Link, gently: bool) {
        self.ending.spawn(worker.end(gently));
    }

    /// Keeps a worker that could not be killed.
    pub(super) fn keep(&mut self, child: Child) {
        tracing::error!(
            pid = child.id(),
            "a worker process cannot be killed: it is stuck in the driver"
        );
        self.stuck.push(child);
    }

    /// Notes who has ended since the last time.
    pub(super) fn sweep(&mut self) {
        while let Some(ended) = self.ending.try_join_next() {
            if let Ok(Some(child)) = ended {
                self.keep(child);
            }
        }
        self.stuck
            .retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    /// Workers that could not be killed.
    pub(super) fn stuck(&self) -> usize {
        self.stuck.len()
    }

    #[cfg(test)]
    pub(super) fn stuck_mut(&mut self) -> &mut [Child] {
        &mut self.stuck
    }

    /// Waits until all that can end have ended.
    pub(super) async fn empty(&mut self) {
        let all = async { while self.ending.join_next().await.is_some() {} };
        if timeout(LAST_WAIT, all).await.is_err() {
            tracing::warn!("worker processes are left behind");
        }
    }
}
