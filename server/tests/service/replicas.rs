//! Several servers on one PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gpuquota_core::id::{Seq, Timestamp};
use gpuquota_core::limit::Limit;
use gpuquota_server::service::{self, Origin};
use gpuquota_server::store::{self, Appended, Beat, Hash, Row, Store, StoreError};
use tokio::sync::watch;

use crate::databases::Base;
use crate::directory::{licence, product, seats, tenant};
use crate::running::{Running, START, SetClock, limit_of, set};

/// Hears nothing of others.
struct Deaf {
    inner: Arc<dyn Store>,
    silence: watch::Sender<Seq>,
}

#[async_trait]
impl Store for Deaf {
    async fn rows_after(&self, seq: Seq, most: u32) -> Result<Vec<Row>, StoreError> {
        self.inner.rows_after(seq, most).await
    }
    async fn catch_up(&self, seq: Seq, most: u32) -> Result<Vec<Row>, StoreError> {
        self.inner.catch_up(seq, most).await
    }
    async fn append(&self, rows: &[Row]) -> Result<Appended, StoreError> {
        self.inner.append(rows).await
    }
    fn hints(&self) -> Option<watch::Receiver<Seq>> {
        Some(self.silence.subscribe())
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

async fn deaf(base: &Base) -> Running {
    let wrap = |inner| {
        let silence = watch::Sender::new(Seq(0));
        Arc::new(Deaf { inner, silence }) as Arc<dyn Store>
    };
    Running::with(base, SetClock::new(START), wrap, 1_000_000).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_36_three_replicas_writing_at_once_make_one_whole_journal() {
    let Some(base) = Base::postgres("case 36: three replicas") else {
        return;
    };
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Running::of(&base, SetClock::new(START)).await);
    }
    let begin = [
        tenant("a", 1),
        product(1, "P", "P"),
        licence(1, 1, 100, None),
    ];
    replicas[0].has(begin).await;
    // 3 x 60 ask for 100 seats.
    let askers: Vec<_> = replicas
        .iter()
        .flat_map(|replica| (0..6).map(|_| replica.ledger.clone()))
        .map(|ledger| {
            tokio::spawn(async move {
                let mut granted = 0;
                for seat in seats("a", 1, 10) {
                    granted += usize::from(ledger.submit(seat, Origin::server()).await.is_ok());
                }
                granted
            })
        })
        .collect();
    let mut granted = 0;
    for asker in askers {
        granted += asker.await.unwrap();
    }
    assert_eq!(granted, 100);
    // Those that wrote last see no more; the others follow without writing.
    let last = replicas.iter().map(Running::seq).max().unwrap();
    assert_eq!(last, 103, "one row for each grant");
    for replica in &replicas {
        replica.reaches(last).await;
        assert_eq!(replica.bytes(), replicas[0].bytes());
    }
    let folded = service::fold(&*replicas[0].store, None).await.unwrap();
    assert_eq!(folded.state.seats().count(), 100);
    assert_eq!(
        serde_json::to_string(&folded.state).unwrap(),
        replicas[0].bytes()
    );
    for replica in replicas {
        replica.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_hears_nothing_polls_and_grants_nothing_that_is_out_of_date() {
    let Some(base) = Base::postgres("a replica that hears nothing") else {
        return;
    };
    let one = Running::of(&base, SetClock::new(START)).await;
    let other = deaf(&base).await;
    let ask = async |running: &Running, limit| {
        running
            .ledger
            .submit(set("a", limit), Origin::server())
            .await
            .unwrap()
            .seq
    };
    ask(&one, 1).await;
    other.reaches(1).await;
    for round in 1..=20 {
        assert_eq!(ask(&one, 2).await, Seq(2 * round));
        // To the other one nothing has changed yet; its grant must not rest on that.
        assert_eq!(ask(&other, 1).await, Seq(2 * round + 1));
    }
    one.reaches(41).await;
    assert_eq!(limit_of(&one.ledger, "a"), Some(Limit::Finite(1)));
    // An idle one polls.
    ask(&one, 7).await;
    other.reaches(42).await;
    one.end().await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_writers_of_a_row_wins_and_both_are_heard_of() {
    let Some(base) = Base::postgres("one of two writers of a row wins") else {
        return;
    };
    let (one, two) = (base.store().await, base.store().await);
    let row = |writer: &str, previous, seq| {
        [Row::new(
            previous,
            Seq(seq),
            Timestamp(1),
            writer,
            None,
            "{}".into(),
        )]
    };
    let mut head = Hash::EMPTY;
    for seq in 1..=50 {
        let rows = [row("one", head, seq), row("two", head, seq)];
        let both = tokio::join!(one.append(&rows[0]), two.append(&rows[1]));
        let [winner] = match (both.0.unwrap(), both.1.unwrap()) {
            (Appended::Written, Appended::Behind) => &rows[0],
            (Appended::Behind, Appended::Written) => &rows[1],
            other => panic!("{other:?}"),
        };
        head = winner.hash;
    }
    let there = two.rows_after(Seq(0), 100).await.unwrap();
    let mut last = (Seq(0), Hash::EMPTY);
    for row in &there {
        row.check(last.0, last.1).unwrap();
        last = (row.seq, row.hash);
    }
    assert_eq!(last, (Seq(50), head));
    // A hint comes without anybody asking the journal.
    let mut hints = one.hints().unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(10), async {
        let mut seq = 51;
        // Who listens late hears the next one.
        while *hints.borrow_and_update() < Seq(51) {
            let next = row("two", head, seq);
            head = next[0].hash;
            two.append(&next).await.unwrap();
            seq += 1;
            let _ = tokio::time::timeout(Duration::from_millis(50), hints.changed()).await;
        }
    });
    heard.await.expect("nothing is heard");
    one.beat("one").await.unwrap();
    let beats = two.beat("two").await.unwrap();
    let known: Vec<&str> = beats
        .iter()
        .map(|Beat { writer, .. }| writer.as_str())
        .collect();
    assert_eq!(known.len(), 2, "{beats:?}");
    assert!(beats.iter().all(|beat| beat.age_ms < 10_000), "{beats:?}");
    one.close().await;
    two.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_is_held_by_one_and_a_holder_that_is_gone_frees_it() {
    let Some(base) = Base::postgres("a turn is held by one") else {
        return;
    };
    let (one, two) = (base.store().await, base.store().await);
    one.take_turn().await.unwrap();
    let refused = two.take_turn().await;
    assert!(matches!(refused, Err(StoreError::Busy(_))), "{refused:?}");
    // Nobody needs it to write.
    let row = Row::new(Hash::EMPTY, Seq(1), Timestamp(1), "w", None, "{}".into());
    assert_eq!(two.append(&[row]).await.unwrap(), Appended::Written);
    one.end_turn().await;
    two.take_turn().await.unwrap();
    two.close().await;
    let freed = async { while one.take_turn().await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(10), freed)
        .await
        .unwrap();
    one.close().await;
}
