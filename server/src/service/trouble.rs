//! What stands in the way of a write, and what follows from it.

use super::fold::FoldError;
use crate::store::StoreError;

/// Why a batch is not answered as decided.
#[derive(Debug)]
pub(super) struct Trouble {
    /// What the server does next.
    pub(super) then: Then,
    /// For the log, and for callers where nothing was written.
    pub(super) reason: String,
    /// Rows of the batch were sent that may be in the journal or not.
    pub(super) sent: bool,
}

/// What follows from a trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The next write may go through.
    Refuse,
    /// The database is not reached: nothing is tried for a while.
    Wait,
    /// No write can be right any more, reads can.
    Close,
    /// The process must end.
    End,
}

impl Trouble {
    fn new(then: Then, reason: impl Into<String>) -> Self {
        Self {
            then,
            reason: reason.into(),
            sent: false,
        }
    }

    /// The same after rows were sent of which nobody knows whether they are there.
    pub(super) fn after_sending(self) -> Self {
        Self { sent: true, ..self }
    }

    pub(super) fn broken() -> Self {
        Self::new(
            Then::Close,
            "an invariant of the ledger is broken; see the log",
        )
    }

    /// Of an append that is still not known to be done or not.
    pub(super) fn unsettled(error: &StoreError) -> Self {
        Self::new(Then::Wait, format!("{error}; reads go on; try again")).after_sending()
    }

    /// Of an append. Storage that failed, such as in an fsync, may have written it all the same.
    pub(super) fn of_append(error: StoreError) -> Self {
        let trouble = Self::of_store(error);
        match trouble.then {
            Then::End => trouble.after_sending(),
            Then::Refuse | Then::Wait | Then::Close => trouble,
        }
    }

    /// Of a read, or of what writes no rows.
    pub(super) fn of_store(error: StoreError) -> Self {
        match error {
            StoreError::Full(source) => {
                tracing::error!(error = %source, "the ledger's disk is full");
                Self::new(Then::Refuse, "its disk is full; free space and try again")
            }
            StoreError::Busy(source) => {
                tracing::error!(error = %source, "the ledger is locked or too slow");
                Self::new(
                    Then::Refuse,
                    "another program holds its database locked; end that one and try again",
                )
            }
            StoreError::Unavailable(source) | StoreError::Unknown(source) => {
                tracing::debug!(error = %source, "the ledger's database is not reached");
                let reason =
                    format!("its database cannot be reached ({source}); reads go on; try again");
                Self::new(Then::Wait, reason)
            }
            error @ (StoreError::Fatal(_) | StoreError::NoUsage | StoreError::Open { .. }) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the ledger's storage failed"
                );
                Self::new(Then::End, "the ledger's storage failed")
            }
        }
    }

    /// Of following what others wrote.
    pub(super) fn of_fold(error: FoldError) -> Self {
        match error {
            FoldError::Store(error) => Self::of_store(error),
            FoldError::Broken(broken) => {
                tracing::error!(error = %broken, "cannot catch up with the journal");
                Self::broken()
            }
            error @ FoldError::Unknown { .. } => {
                tracing::error!(error = %error, "cannot catch up with the journal");
                Self::new(
                    Then::Close,
                    "a newer program writes to the journal; start that one here too",
                )
            }
            error @ (FoldError::Chain(_) | FoldError::Base { .. } | FoldError::WentBack { .. }) => {
                tracing::error!(error = %error, "cannot catch up with the journal");
                Self::new(Then::End, "the journal cannot be read on")
            }
        }
    }
}
