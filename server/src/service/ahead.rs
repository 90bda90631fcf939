//! What is decided while the batch before is being written, upon what that batch will have made.
//!
//! It is worth something only when that batch is written; otherwise its commands are decided once more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;

use gpuquota_core::mutant::{Mutant, planted};
use tokio::sync::mpsc;

use super::Job;
use super::batch::Batch;
use super::batcher::Batcher;
use crate::store::{Appended, Hash, StoreError};

/// Commands that wait, and how they were decided if that still may hold.
#[derive(Default)]
pub(super) struct Ahead {
    pub(super) jobs: Vec<Job>,
    pub(super) batch: Option<Batch>,
}

impl Ahead {
    /// How exactly these commands were decided after this row, if they were.
    pub(super) fn decided(&mut self, after: Hash) -> Option<Batch> {
        let batch = self.batch.take()?;
        let holds = batch.after == after || planted(Mutant::TrustWhatIsAhead);
        (holds && batch.answers.len() == self.jobs.len()).then_some(batch)
    }
}

impl Batcher {
    /// Writes a batch, and meanwhile decides what comes. What `ahead` held before stays in it, undecided.
    pub(super) async fn append(
        &self,
        batch: &Batch,
        jobs: &mut mpsc::Receiver<Job>,
        ahead: &mut Ahead,
    ) -> Result<Appended, StoreError> {
        let mut append = pin!(self.store.append(&batch.rows));
        ahead.batch = ahead.jobs.is_empty().then(|| Batch::on(&batch.committed));
        let mut fresh = Vec::new();
        let mut come = true;
        loop {
            let room = self.settings.batch.saturating_sub(ahead.jobs.len());
            tokio::select! {
                biased;
                appended = &mut append => return appended,
                taken = jobs.recv_many(&mut fresh, room), if come && room > 0 && ahead.batch.is_some() => {
                    come = taken > 0;
                    ahead.batch = ahead.batch.take().and_then(|on| self.decide_on(on, &fresh));
                    ahead.jobs.append(&mut fresh);
                }
            }
        }
    }

    // What goes wrong here goes wrong again when the jobs are decided in their turn, and is answered there.
    fn decide_on(&self, mut batch: Batch, jobs: &[Job]) -> Option<Batch> {
        let now = self.clock.now().ok()?;
        let decide = || batch.take(jobs, now, &self.settings.writer);
        catch_unwind(AssertUnwindSafe(decide)).ok()?;
        Some(batch)
    }
}
