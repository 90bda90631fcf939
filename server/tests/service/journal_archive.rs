//! Old rows leave the journal: it folds to the same state whatever interrupts that, and nothing that they meant is lost.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use gpuquota_core::Denied;
use gpuquota_core::id::{Seq, Timestamp};
use gpuquota_core::limit::Limit;
use gpuquota_server::journal::archive::{Before, archive_rows};
use gpuquota_server::journal::{DAMAGED, exit_status, verify};
use gpuquota_server::service::history::Moment;
use gpuquota_server::service::{self, LedgerError, Origin};
use gpuquota_server::store::sqlite::SqliteStore;
use gpuquota_server::store::{Appended, Base, Row, Store, StoreError};

use crate::databases::both;
use crate::journals::{directory, folded, plain, twelve_rows};
use crate::running::{HOUR, Running, START, SetClock, keyed, limit_of, set};

/// Fails at one of the steps that change the database: before it when the number is even, after it when it is odd.
struct Interrupted {
    inner: Arc<dyn Store>,
    steps: AtomicU32,
    at: u32,
}

impl Interrupted {
    async fn step<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let step = self.steps.fetch_add(1, Ordering::SeqCst);
        let cut = || Err(StoreError::Fatal(sqlx::Error::WorkerCrashed));
        if 2 * step == self.at {
            return cut();
        }
        let done = work.await?;
        if 2 * step + 1 == self.at {
            return cut();
        }
        Ok(done)
    }
}

#[async_trait]
impl Store for Interrupted {
    async fn rows_after(&self, seq: Seq, most: u32) -> Result<Vec<Row>, StoreError> {
        self.inner.rows_after(seq, most).await
    }

    async fn append(&self, rows: &[Row]) -> Result<Appended, StoreError> {
        self.step(self.inner.append(rows)).await
    }

    async fn last(&self) -> Result<Option<Row>, StoreError> {
        self.inner.last().await
    }

    async fn base(&self) -> Result<Option<Base>, StoreError> {
        self.inner.base().await
    }

    async fn put_base(&self, base: &Base) -> Result<(), StoreError> {
        self.step(self.inner.put_base(base)).await
    }

    async fn drop_archived(&self, base: &Base) -> Result<u64, StoreError> {
        self.step(self.inner.drop_archived(base)).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

async fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(&dir.join("ledger.db")).await.unwrap()
}

async fn archive(dir: &Path, before: u64, out: &str) -> anyhow::Result<String> {
    let store: Arc<dyn Store> = Arc::new(open(dir).await);
    let before = Before::Row(Seq(before));
    let clock = SetClock::new(START + 1);
    let archived = archive_rows(
        store.clone(),
        before,
        &dir.join(out),
        clock,
        Origin::operator(None),
    )
    .await;
    store.close().await;
    archived
}

async fn rows(dir: &Path) -> Vec<u64> {
    let store = open(dir).await;
    let rows = store.rows_after(Seq(0), 1000).await.unwrap();
    store.close().await;
    rows.iter().map(|row| row.seq.0).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_42_an_archive_interrupted_at_any_step_leaves_the_same_ledger_and_is_finished_by_another()
 {
    const STEPS: u32 = 3;
    for at in 0..2 * STEPS {
        let dir = directory().await;
        let dir = dir.path();
        twelve_rows(dir).await;
        let before = folded(dir).await;
        let store: Arc<dyn Store> = Arc::new(Interrupted {
            inner: Arc::new(open(dir).await),
            steps: AtomicU32::new(0),
            at,
        });
        let (out, clock) = (dir.join("old.jsonl"), SetClock::new(START + 1));
        let cut = archive_rows(
            store.clone(),
            Before::Row(Seq(11)),
            &out,
            clock,
            Origin::operator(None),
        )
        .await;
        assert!(cut.is_err(), "step {at} was reached");
        store.close().await;
        assert_eq!(folded(dir).await, before, "after step {at}");
        verify::verify(Some(dir), &[]).await.unwrap();
        // A server may run before somebody finishes it.
        let running = Running::on(dir, SetClock::new(START + 2)).await;
        assert_eq!(limit_of(&running.ledger, "t0"), Some(Limit::Finite(9)));
        running.end().await;

        let again = archive(dir, 11, "old.jsonl").await.unwrap();
        let done = at == 2 * STEPS - 1;
        assert_eq!(again.contains("nothing was changed"), done, "{again}");
        assert_eq!(rows(dir).await.first(), Some(&11), "after step {at}");
        assert_eq!(folded(dir).await, before, "after step {at} and the end");
        verify::verify(Some(dir), &[out]).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_archived_still_counts_and_is_checked_with_its_file() {
    let dir = directory().await;
    let dir = dir.path();
    twelve_rows(dir).await;
    let before = folded(dir).await;
    let said = archive(dir, 6, "one.jsonl").await.unwrap();
    assert!(said.starts_with("5 rows up to 5 are in"), "{said}");
    let said = archive(dir, 12, "two.jsonl").await.unwrap();
    assert!(said.starts_with("6 rows up to 11 are in"), "{said}");
    assert_eq!(rows(dir).await, [12, 13, 14]);
    assert_eq!(folded(dir).await, before);
    let (one, two) = (dir.join("one.jsonl"), dir.join("two.jsonl"));
    let whole = verify::verify(Some(dir), &[one.clone(), two.clone()]).await;
    let whole = whole.unwrap();
    assert!(whole.contains("nothing is missing since row 1"), "{whole}");
    let told = verify::verify(Some(dir), &[]).await.unwrap();
    assert!(told.contains("rows 1 to 11 are archived"), "{told}");
    let gap = verify::verify(Some(dir), &[one]).await.unwrap_err();
    assert!(
        gap.to_string().contains("rows 6 to 11 are in no file"),
        "{gap}"
    );
    assert_eq!(exit_status(&gap), DAMAGED);
    let late = verify::verify(Some(dir), &[two]).await.unwrap();
    assert!(
        late.contains("rows before them were not looked at"),
        "{late}"
    );

    // Ids and revocations whose rows are gone, and the past as far as it is there.
    let running = Running::on(dir, SetClock::new(START + HOUR)).await;
    let (history, now) = (running.ledger.history(), running.ledger.read());
    let then = history.at(Moment::Seq(Seq(11)), &now).await.unwrap();
    assert_eq!(then.state.seq(), Seq(11));
    for moment in [Moment::Seq(Seq(10)), Moment::Time(Timestamp(START - 1))] {
        let gone = history.at(moment, &now).await;
        let gone = gone.err().unwrap().to_string();
        assert!(gone.contains("before 11 are archived"), "{gone}");
    }
    assert!(running.ledger.read().state.revoked("stolen"));
    let repeated = running.ledger.submit(set("once", 1), keyed("key ä\"", "f"));
    repeated.await.unwrap();
    let other = running.ledger.submit(set("once", 2), keyed("key ä\"", "g"));
    let other = other.await.unwrap_err();
    assert_eq!(other, LedgerError::Denied(Denied::OperationReused));
    running.end().await;

    let none = archive(dir, 12, "three.jsonl").await.unwrap();
    assert!(none.contains("nothing was changed"), "{none}");
    assert!(!dir.join("three.jsonl").exists());
}

#[tokio::test]
async fn an_archive_by_date_takes_the_rows_of_before_it_and_a_file_that_is_something_else_stays() {
    let dir = directory().await;
    let dir = dir.path();
    twelve_rows(dir).await;
    let running = Running::on(dir, SetClock::new(START + HOUR)).await;
    let later = running.ledger.submit(set("later", 1), Origin::server());
    later.await.unwrap();
    running.end().await;
    let kept = rows(dir).await;
    std::fs::write(dir.join("taken.jsonl"), "mine").unwrap();
    let store: Arc<dyn Store> = Arc::new(open(dir).await);
    let before = Before::Time(Timestamp(START + HOUR));
    for (out, reason) in [
        ("taken.jsonl", "holds something else"),
        ("no/where.jsonl", "cannot write"),
    ] {
        let clock = SetClock::new(START + HOUR);
        let refused = archive_rows(
            store.clone(),
            before,
            &dir.join(out),
            clock,
            Origin::operator(None),
        )
        .await;
        let refused = format!("{:#}", refused.unwrap_err());
        assert!(refused.contains(reason), "{refused}");
        assert_eq!(rows(dir).await, kept);
    }
    let out = dir.join("by-date.jsonl");
    let clock = SetClock::new(START + HOUR);
    archive_rows(store.clone(), before, &out, clock, Origin::operator(None))
        .await
        .unwrap();
    store.close().await;
    // The quota that ended has its row at the same moment as the later one.
    assert_eq!(rows(dir).await.first(), Some(&13));
    assert_eq!(std::fs::read(dir.join("taken.jsonl")).unwrap(), b"mine");
    assert!(!dir.join("taken.jsonl.writing").exists());
}

#[tokio::test]
async fn case_43_a_base_that_was_changed_removed_or_put_under_other_rows_is_not_believed() {
    for statement in [
        "UPDATE base SET state = replace(state, '\"t3\"', '\"x3\"')",
        "UPDATE base SET head = (SELECT hash FROM journal WHERE seq = 12)",
        "UPDATE base SET digest = (SELECT hash FROM journal WHERE seq = 12)",
        "UPDATE base SET format = 999",
        "DELETE FROM base",
        "UPDATE base SET seq = 9",
        "DELETE FROM journal",
        "DELETE FROM journal WHERE seq = 11",
        "DELETE FROM journal WHERE seq > 12",
    ] {
        let dir = directory().await;
        let dir = dir.path();
        twelve_rows(dir).await;
        archive(dir, 11, "old.jsonl").await.unwrap();
        let url = format!("sqlite://{}", dir.join("ledger.db").display());
        let other = sqlx::SqlitePool::connect(&url).await.unwrap();
        sqlx::query(statement).execute(&other).await.unwrap();
        other.close().await;
        let refused = verify::verify(Some(dir), &[]).await;
        let refused = refused.expect_err(statement);
        assert_eq!(exit_status(&refused), DAMAGED, "{statement}: {refused}");
        let store = open(dir).await;
        let started = service::fold(&store, None).await;
        assert!(started.is_err(), "{statement}: a server starts");
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_42_an_interrupted_archive_is_finished_on_each_database_and_others_follow() {
    for at in [1, 3, 5] {
        for place in both("case 42: an interrupted archive") {
            let running = Running::of(&place, SetClock::new(START)).await;
            for turn in 0..6 {
                let command = set(&format!("t{turn}"), turn + 1);
                let done = running.ledger.submit(command, Origin::server()).await;
                done.unwrap();
            }
            // It stays where it is, as a replica that nobody told.
            let before = plain(&running.ledger.read().state);
            let store: Arc<dyn Store> = Arc::new(Interrupted {
                inner: place.store().await,
                steps: AtomicU32::new(0),
                at,
            });
            let old = Before::Row(Seq(7));
            let (out, clock) = (place.dir.path().join("old"), SetClock::new(START));
            let cut = archive_rows(
                store.clone(),
                old,
                &out,
                clock.clone(),
                Origin::operator(None),
            )
            .await;
            assert!(cut.is_err(), "step {at} was reached");
            // Beyond its last step it goes through.
            let again = archive_rows(store.clone(), old, &out, clock, Origin::operator(None)).await;
            let again = again.unwrap();
            assert_eq!(again.contains("nothing was changed"), at == 5, "{again}");
            let whole = service::whole(&*store, |_, _| {}).await.unwrap();
            assert_eq!(whole.base.map(|base| base.seq), Some(Seq(6)));
            assert_eq!(plain(&whole.committed.state), before, "after step {at}");
            store.close().await;
            let more = running.ledger.submit(set("t0", 9), Origin::server()).await;
            more.unwrap();
            let last = running.ledger.read().state.seq();
            running.end().await;
            let again = Running::of(&place, SetClock::new(START)).await;
            assert_eq!(again.ledger.read().state.seq(), last);
            assert_eq!(limit_of(&again.ledger, "t0"), Some(Limit::Finite(9)));
            again.end().await;
        }
    }
}
