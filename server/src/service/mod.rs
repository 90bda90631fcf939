//! The ledger as the rest of the server sees it: commands go in, answers and immutable states come out.

mod ahead;
pub mod audit;
pub mod authorities;
mod batch;
mod batcher;
mod beginnings;
mod catching_up;
mod fold;
pub mod history;
pub mod liveness;
pub mod policies;
mod replicas;
mod shared;
mod snapshot;
pub mod sweep;
mod trouble;
mod turns;
mod usage;
mod whole;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use gpuquota_core::id::{OpId, Seq, Timestamp};
use gpuquota_core::meter::Hour;
use gpuquota_core::{Command, Denied, Outcome, State};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use audit::Denials;
pub use batcher::{BatcherSettings, start};
pub(crate) use fold::step;
pub use fold::{FoldError, fold};
use history::History;
pub use replicas::Replicas;
pub use shared::Shared;
pub use snapshot::Snapshots;
pub(crate) use snapshot::{FORMAT as SNAPSHOT_FORMAT, incarnation_of, read as read_snapshot};
pub use usage::{UsageKeeping, drop_usage_once, store_usage, store_usage_once};
pub(crate) use whole::begin;
pub use whole::{Whole, base_of, whole};

use crate::store::{Hash, Store, StoreError, UsageQuery, UsageSum};

/// The ledger after its last durable row.
#[derive(Clone, Debug)]
pub struct Committed {
    /// What decisions and answers are computed from.
    pub state: State,
    /// Hash of that row.
    pub head: Hash,
}

/// Who asks, for the journal and for repetitions.
#[derive(Clone, Debug)]
pub struct Origin {
    /// `admin:SUBJECT`, `node:NAME`, `operator:UID`, `server`.
    pub actor: String,
    /// Request id of the call.
    pub request_id: Option<String>,
    /// Address that the call came from.
    pub from: Option<String>,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// Operation id of the call.
    pub op: Option<OpId>,
    /// Digest of what it asks, when its answer is to be kept for repetitions.
    pub fingerprint: Option<String>,
}

impl Origin {
    /// Whoever sits at this host, by user id (getuid(2)), with no server between.
    #[must_use]
    pub fn operator(reason: Option<String>) -> Self {
        Self {
            actor: format!("operator:{}", rustix::process::getuid().as_raw()),
            reason,
            ..Self::server()
        }
    }

    /// The server itself.
    #[must_use]
    pub fn server() -> Self {
        Self {
            actor: "server".into(),
            request_id: None,
            from: None,
            reason: None,
            op: None,
            fingerprint: None,
        }
    }
}

/// A command was granted and is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The answer.
    pub outcome: Outcome,
    /// Reads at or after this row see it.
    pub seq: Seq,
}

/// Why a command has no grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The ledger says no.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// More commands wait than are taken; nothing was done.
    #[error("too many commands are waiting; try again")]
    Overloaded,
    /// Nothing can be written now; nothing was done.
    #[error("the ledger cannot be written to: {0}")]
    Unavailable(String),
    /// The storage failed while it wrote, or was lost and did not come back in time: it may be done or not.
    #[error(
        "the ledger's storage failed or was lost while it wrote, so this may be done or not; \
         ask again with the same Idempotency-Key, or read it back"
    )]
    Unknown,
}

struct Job {
    command: Command,
    origin: Origin,
    reply: oneshot::Sender<Result<Receipt, LedgerError>>,
}

/// The handle by which everything else reads and writes the ledger.
#[derive(Clone)]
pub struct Ledger {
    jobs: mpsc::Sender<Job>,
    committed: Arc<ArcSwap<Committed>>,
    counters: Arc<Counters>,
    denials: Arc<Denials>,
    history: Arc<History>,
    fatal: CancellationToken,
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
}

/// What the batcher did so far.
#[derive(Debug, Default)]
pub struct Counters {
    /// Appends that wrote.
    pub appends: AtomicU64,
    /// Rows written.
    pub rows: AtomicU64,
    /// Commands granted.
    pub granted: AtomicU64,
    /// Commands denied.
    pub denied: AtomicU64,
    /// Commands that could not be answered.
    pub failed: AtomicU64,
    /// Milliseconds by which metered classes and the existence of devices differed.
    pub usage_error_ms: AtomicU64,
    /// Attempts to store hours of which other rows are stored.
    pub usage_conflicts: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64, by: usize) {
        counter.fetch_add(by as u64, Ordering::Relaxed);
    }
}

impl Ledger {
    /// The ledger after its last durable row; readers never wait for a writer.
    #[must_use]
    pub fn read(&self) -> Arc<Committed> {
        self.committed.load_full()
    }

    /// Asks for a change and waits until it is durable.
    ///
    /// # Errors
    /// When it is not granted, or nobody can be asked now.
    pub async fn submit(&self, command: Command, origin: Origin) -> Result<Receipt, LedgerError> {
        let (reply, answer) = oneshot::channel();
        let job = Job {
            command,
            origin,
            reply,
        };
        self.jobs.try_send(job).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => LedgerError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })?;
        // Whoever drops it instead of answering may have written before.
        answer.await.map_err(|_| LedgerError::Unknown)?
    }

    /// Adds up the usage of hours that are stored. Those from [`State::stored_before`] on are in the state instead.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn stored_usage(&self, query: &UsageQuery) -> Result<Vec<UsageSum>, StoreError> {
        self.store.usage(query).await
    }

    /// Since when usage by device is known; `None`: since there is any. What was added up before this is asked is whole
    /// from then on.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn usage_by_device_from(&self) -> Result<Option<Hour>, StoreError> {
        self.store.usage_by_device_from().await
    }

    /// What a command would be answered at `now`; nothing is written, and nothing is promised.
    ///
    /// # Errors
    /// When it would not be granted.
    pub fn preview(&self, command: &Command, now: Timestamp) -> Result<Outcome, LedgerError> {
        Ok(batch::preview(&self.read(), command, now)?)
    }

    /// The journal's past.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What was not granted, for the audit.
    #[must_use]
    pub fn denials(&self) -> &Denials {
        &self.denials
    }

    /// What is known of other servers that write to the same journal.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// What the batcher did so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Cancelled when the storage cannot be trusted any more and the process must end.
    #[must_use]
    pub fn fatal(&self) -> &CancellationToken {
        &self.fatal
    }
}

fn stopped() -> LedgerError {
    LedgerError::Unavailable("the server is stopping".into())
}
