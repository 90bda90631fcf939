//! How the batcher sees what others wrote, and what became of its own rows.

use std::time::Duration;

use gpuquota_core::id::Seq;
use tokio::time::Instant;

use super::Committed;
use super::batch::Batch;
use super::batcher::Batcher;
use super::fold::{FoldError, follow, rows_since};
use super::trouble::Trouble;
use crate::store::StoreError;

/// How long answers are held when nobody knows whether their rows were written.
const HOLD: Duration = Duration::from_secs(10);
const SETTLE_AGAIN: Duration = Duration::from_millis(200);

impl Batcher {
    /// Folds what others wrote; the last row before, if there was something.
    ///
    /// # Errors
    /// When the journal does not answer, or is not what it was.
    pub(super) async fn look(&mut self) -> Result<Option<Seq>, Trouble> {
        let begun_ms = self.clock.boot_ms();
        let from = self.ledger.read();
        let followed = follow(&*self.store, &from)
            .await
            .map_err(Trouble::of_fold)?;
        let news = followed.map(|followed| {
            let own = self.ledger.shared().writer();
            if followed.writers.iter().any(|writer| writer != own) {
                self.turns.saw_others(Instant::now());
            }
            self.publish(followed.committed);
            self.ledger.shared().tell_opened(followed.opened);
            from.state.seq()
        });
        self.ledger.shared().newest(begun_ms);
        self.reached();
        Ok(news)
    }

    /// Another writer was first, so there must be something.
    pub(super) async fn overtaken(&mut self) -> Result<(), Trouble> {
        match self.look().await? {
            Some(_) => Ok(()),
            None => {
                let seq = self.ledger.read().state.seq().next();
                Err(Trouble::of_fold(FoldError::WentBack { seq }))
            }
        }
    }

    /// Finds out whether the rows of a batch, decided on `from`, were written: either they are there, or they never will
    /// be ([`crate::store::Store::catch_up`]).
    pub(super) async fn settle(
        &mut self,
        from: &Committed,
        batch: &Batch,
    ) -> Result<bool, Trouble> {
        self.turns.ended();
        let deadline = Instant::now() + HOLD;
        let most = u32::try_from(batch.rows.len()).unwrap_or(u32::MAX);
        loop {
            match rows_since(&*self.store, from, most).await {
                Ok(rows) => {
                    self.reached();
                    return Ok(rows == batch.rows);
                }
                Err(FoldError::Store(
                    error @ (StoreError::Unavailable(_)
                    | StoreError::Unknown(_)
                    | StoreError::Busy(_)
                    | StoreError::Full(_)),
                )) => {
                    if Instant::now() >= deadline {
                        return Err(Trouble::unsettled(&error));
                    }
                    tokio::time::sleep(SETTLE_AGAIN).await;
                }
                Err(error) => return Err(Trouble::of_fold(error).after_sending()),
            }
        }
    }
}
