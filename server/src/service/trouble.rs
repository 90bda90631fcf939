//! What stands in the way of a write, and what follows from it.

use super::fold::FoldError;
use crate::store::StoreError;

/// Why a batch is not answered as decided.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nothing was written; the next one may go through.
    Refused(String),
    /// The database is not reached: nothing is tried for a while.
    Away(String),
    /// As `Away`, and rows were sent that may be there or not.
    Unknown(String),
    /// No write can be right any more, reads can.
    Closed(String),
    /// The process must end.
    Ended(String),
}

impl Trouble {
    pub(super) fn broken() -> Self {
        Self::Closed("an invariant of the ledger is broken; see the log".into())
    }

    /// Of an append that wrote nothing, or of a read.
    pub(super) fn of_store(error: StoreError) -> Self {
        match error {
            StoreError::Full(source) => {
                tracing::error!(error = %source, "the ledger's disk is full");
                Self::Refused("its disk is full; free space and try again".into())
            }
            StoreError::Busy(source) => {
                tracing::error!(error = %source, "the ledger is locked or too slow");
                Self::Refused(
                    "another program holds its database locked; end that one and try again".into(),
                )
            }
            StoreError::Unavailable(source) | StoreError::Unknown(source) => {
                tracing::debug!(error = %source, "the ledger's database is not reached");
                Self::Away(format!(
                    "its database cannot be reached ({source}); reads go on; try again"
                ))
            }
            error @ (StoreError::Fatal(_) | StoreError::NoUsage | StoreError::Open { .. }) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the ledger's storage failed"
                );
                Self::Ended("the ledger's storage failed".into())
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
                Self::Closed(
                    "a newer program writes to the journal; start that one here too".into(),
                )
            }
            error @ (FoldError::Chain(_) | FoldError::Base { .. } | FoldError::WentBack { .. }) => {
                tracing::error!(error = %error, "cannot catch up with the journal");
                Self::Ended("the journal cannot be read on".into())
            }
        }
    }
}
