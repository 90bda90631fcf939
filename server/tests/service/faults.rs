//! Storage that fails: nothing is answered that is not durable, and nothing durable is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use gpuquota_core::id::Seq;
use gpuquota_core::limit::Limit;
use gpuquota_server::service::{LedgerError, Origin};
use gpuquota_server::store::{self, Appended, Row, Store, StoreError};

use crate::databases::{Base, both};
use crate::running::{Running, START, SetClock, limit_of, set};

/// What the next append does.
#[derive(Clone, Copy)]
enum Fault {
    None = 0,
    Full = 1,
    FailAfterWriting = 2,
}

struct Faulty {
    inner: Arc<dyn Store>,
    next: Arc<AtomicU8>,
}

#[async_trait]
impl Store for Faulty {
    async fn rows_after(&self, seq: Seq, most: u32) -> Result<Vec<Row>, StoreError> {
        self.inner.rows_after(seq, most).await
    }

    async fn append(&self, rows: &[Row]) -> Result<Appended, StoreError> {
        let fault = self.next.swap(Fault::None as u8, Ordering::SeqCst);
        if fault == Fault::Full as u8 {
            return Err(StoreError::Full(sqlx::Error::WorkerCrashed));
        }
        let written = self.inner.append(rows).await;
        if fault == Fault::FailAfterWriting as u8 {
            return Err(StoreError::Fatal(sqlx::Error::WorkerCrashed));
        }
        written
    }

    async fn last(&self) -> Result<Option<Row>, StoreError> {
        self.inner.last().await
    }

    async fn base(&self) -> Result<Option<store::Base>, StoreError> {
        self.inner.base().await
    }

    async fn put_base(&self, base: &store::Base) -> Result<(), StoreError> {
        self.inner.put_base(base).await
    }

    async fn drop_archived(&self, base: &store::Base) -> Result<u64, StoreError> {
        self.inner.drop_archived(base).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

async fn faulty(base: &Base) -> (Running, Arc<AtomicU8>) {
    let next = Arc::new(AtomicU8::new(0));
    let fault = next.clone();
    let wrap = |inner| Arc::new(Faulty { inner, next: fault }) as Arc<dyn Store>;
    let running = Running::with(base, SetClock::new(START), wrap, 1_000_000).await;
    (running, next)
}

#[tokio::test]
async fn case_56_and_59_a_full_disk_refuses_writes_serves_reads_and_recovers() {
    for base in both("case_56_and_59_a_full_disk_refuses_writes_serves_reads_and_recovers") {
        let (running, next) = faulty(&base).await;
        running
            .ledger
            .submit(set("a", 1), Origin::server())
            .await
            .unwrap();
        next.store(Fault::Full as u8, Ordering::SeqCst);
        let refused = running.ledger.submit(set("a", 2), Origin::server()).await;
        assert!(matches!(refused, Err(LedgerError::Unavailable(_))));
        assert_eq!(limit_of(&running.ledger, "a"), Some(Limit::Finite(1)));
        running
            .ledger
            .submit(set("a", 3), Origin::server())
            .await
            .unwrap();
        assert_eq!(limit_of(&running.ledger, "a"), Some(Limit::Finite(3)));
        running.end().await;
    }
}

#[tokio::test]
async fn case_57_a_failed_sync_ends_the_writer_and_a_restart_tells_what_is_durable() {
    for base in both("case_57_a_failed_sync_ends_the_writer_and_a_restart_tells_what_is_durable") {
        let (running, next) = faulty(&base).await;
        running
            .ledger
            .submit(set("a", 1), Origin::server())
            .await
            .unwrap();
        next.store(Fault::FailAfterWriting as u8, Ordering::SeqCst);
        let unknown = running.ledger.submit(set("a", 2), Origin::server()).await;
        assert_eq!(unknown, Err(LedgerError::Unknown), "it may be durable");
        assert!(
            running.ledger.fatal().is_cancelled(),
            "the process must end"
        );
        // Not even a read claims what was not answered, and nothing more is written.
        assert_eq!(limit_of(&running.ledger, "a"), Some(Limit::Finite(1)));
        assert!(
            running
                .ledger
                .submit(set("a", 3), Origin::server())
                .await
                .is_err()
        );
        running.end().await;
        let again = Running::of(&base, SetClock::new(START)).await;
        assert_eq!(limit_of(&again.ledger, "a"), Some(Limit::Finite(2)));
        again.end().await;
    }
}
