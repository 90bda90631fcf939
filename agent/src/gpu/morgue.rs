//! Workers on their way out, and those that cannot go because they are stuck in the driver.

use std::future::Future;
use std::time::Duration;

use tokio::process::Child;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::link::{Ended, Link};
use super::protocol::Target;

/// How long a shutdown waits for workers; longer than the slowest end of one.
const LAST_WAIT: Duration = Duration::from_secs(3);

/// Workers may be ended or stuck in a call about one GPU, whose name is kept with them, or in one about none.
#[derive(Debug, Default)]
pub(super) struct Morgue {
    /// With the GPU under which each stands in `ending_on`.
    ending: JoinSet<(Ended, Option<Target>)>,
    /// The GPUs of those that are ending.
    ending_on: Vec<Target>,
    stuck: Vec<(Child, Option<Target>)>,
}

impl Morgue {
    /// Ends a worker in the background. `on`: the GPU that it did not come back from.
    pub(super) fn take(&mut self, worker: Link, gently: bool, on: Option<Target>) {
        let on = on.or_else(|| worker.at().cloned());
        self.follow(on, async move { worker.end(gently).await });
    }

    /// Follows a worker that somebody else ends. `on`: as with [`Self::take`].
    pub(super) fn follow(
        &mut self,
        on: Option<Target>,
        ending: impl Future<Output = Ended> + Send + 'static,
    ) {
        self.ending_on.extend(on.clone());
        self.ending.spawn(async move { (ending.await, on) });
    }

    /// Keeps a worker that could not be killed.
    pub(super) fn keep(&mut self, child: Child, on: Option<Target>) {
        tracing::error!(
            pid = child.id(),
            gpu = on.as_ref().map(ToString::to_string),
            "a worker process cannot be killed: it is stuck in the driver"
        );
        self.stuck.push((child, on));
    }

    /// Notes who has ended since the last time.
    pub(super) fn sweep(&mut self) {
        while let Some(ended) = self.ending.try_join_next() {
            let Ok((ended, on)) = ended else { continue };
            if let Some(on) = &on
                && let Some(at) = self.ending_on.iter().position(|target| target == on)
            {
                self.ending_on.swap_remove(at);
            }
            if let Some(child) = ended.stuck {
                self.keep(child, on.or(ended.on));
            }
        }
        self.stuck
            .retain_mut(|(child, _)| matches!(child.try_wait(), Ok(None)));
    }

    /// Workers that could not be killed.
    pub(super) fn stuck(&self) -> usize {
        self.stuck.len()
    }

    /// Those of them that are stuck in the driver as a whole. Who is stuck on one GPU, which nobody touches meanwhile, says
    /// nothing of the others.
    pub(super) fn stuck_on_none(&self) -> usize {
        self.stuck.iter().filter(|(_, on)| on.is_none()).count()
    }

    /// GPUs from which a worker has not come back: another one would only join it.
    pub(super) fn occupied(&self) -> Vec<Target> {
        let stuck = self.stuck.iter().filter_map(|(_, on)| on.clone());
        stuck.chain(self.ending_on.iter().cloned()).collect()
    }

    #[cfg(test)]
    pub(super) fn stuck_mut(&mut self) -> &mut [(Child, Option<Target>)] {
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
