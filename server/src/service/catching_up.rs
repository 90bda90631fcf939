//! How the batcher takes turns with others, sees what they wrote, and what became of its own rows.

use std::pin::pin;
use std::time::Duration;

use gpuquota_core::id::Seq;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Committed;
use super::batch::Batch;
use super::batcher::Batcher;
use super::fold::{FoldError, Through, follow, rows_since};
use super::trouble::Trouble;
use crate::store::StoreError;

/// How long answers are held when nobody knows whether their rows were written.
const HOLD: Duration = Duration::from_secs(10);
const SETTLE_AGAIN: Duration = Duration::from_millis(200);

impl Batcher {
    // Takes the turn where others write too, and sees what they wrote; whether it looked.
    pub(super) async fn turn(&mut self) -> Result<bool, Trouble> {
        if !self.turns.wanted(Instant::now()) {
            return Ok(false);
        }
        match self.queue().await? {
            Ok(()) => self.turns.taken(Instant::now()),
            Err(StoreError::Busy(_)) => {
                self.turns.refused(Instant::now());
                return Ok(false);
            }
            Err(error) => return Err(Trouble::of_store(error)),
        }
        self.look().await?;
        Ok(true)
    }

    // Waits for the turn, and folds meanwhile what those before write: the less is left to do when it comes.
    async fn queue(&mut self) -> Result<Result<(), StoreError>, Trouble> {
        let store = self.store.clone();
        let mut turn = pin!(store.take_turn());
        let mut trouble = None;
        let taken = loop {
            let known = self.ledger.read().state.seq();
            tokio::select! {
                biased;
                taken = &mut turn => break taken,
                () = news(&mut self.hints, known), if trouble.is_none() => {
                    trouble = self.glance().await.err();
                }
            }
        };
        // A turn that nobody uses is given back before anything else.
        if let Some(trouble) = trouble {
            if taken.is_ok() {
                self.store.end_turn().await;
            }
            return Err(trouble);
        }
        Ok(taken)
    }

    /// Folds what others wrote; the last row before, if there was something.
    ///
    /// # Errors
    /// When the journal does not answer, or is not what it was.
    pub(super) async fn look(&mut self) -> Result<Option<Seq>, Trouble> {
        self.folded(Through::Writer).await
    }

    /// As [`Self::look`], while the connection that writes is not to be had.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn glance(&mut self) -> Result<Option<Seq>, Trouble> {
        self.folded(Through::Readers).await
    }

    async fn folded(&mut self, through: Through) -> Result<Option<Seq>, Trouble> {
        let begun_ms = self.clock.boot_ms();
        let from = self.ledger.read();
        let followed = follow(&*self.store, &from, through)
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
            match rows_since(&*self.store, from, most, Through::Writer).await {
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

// Until somebody is heard to have written after `known`.
pub(super) async fn news(hints: &mut Option<watch::Receiver<Seq>>, known: Seq) {
    if let Some(hints) = hints {
        // Each hint is looked at once, whatever it says.
        while hints.changed().await.is_ok() {
            if *hints.borrow_and_update() > known {
                return;
            }
        }
    }
    std::future::pending().await
}
