//! The connection to PostgreSQL breaks in the middle of a write: one effect, and an answer that is true.

use std::time::Duration;

use gpuquota_core::Command;
use gpuquota_core::command::CheckOutSeat;
use gpuquota_core::id::{DisplayName, ProductId, Seq, Timestamp};
use gpuquota_server::service::{self, Origin};
use gpuquota_server::store::{Appended, Hash, Row, StoreError};

use crate::databases::Base;
use crate::directory::{licence, name, product, tenant};
use crate::leaky::{Break, Line, MARKER};
use crate::postgres::Cluster;
use crate::running::{Running, START, SetClock};
use crate::skip::{skipped, slow};

const KINDS: [Break; 3] = [Break::BeforeSend, Break::AfterSend, Break::AfterAnswer];

fn seat() -> Command {
    Command::CheckOutSeat(CheckOutSeat {
        tenant: name("a"),
        product: ProductId(1),
        owner: DisplayName::new(MARKER).unwrap(),
        ttl_ms: 3_600_000,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_49_a_connection_lost_in_a_write_leaves_exactly_one_effect_and_a_true_answer() {
    let Some(direct) = Base::postgres("case 49: a connection lost in a write") else {
        return;
    };
    let line = Line::to(&direct.url(), Cluster::shared().unwrap().port()).await;
    let running = Running::of(&Base::on(&line.url), SetClock::new(START)).await;
    running
        .has([
            tenant("a", 1),
            product(1, "P", "P"),
            licence(1, 1, 1000, None),
        ])
        .await;
    let before = running.seq();
    // No operation id: nothing but the journal itself can tell a repetition.
    for (number, kind) in (1..).zip(KINDS.iter().cycle().take(12)) {
        line.breaks(*kind);
        let answer = running.ledger.submit(seat(), Origin::server());
        let answer = tokio::time::timeout(Duration::from_secs(20), answer)
            .await
            .unwrap();
        assert!(line.broke(), "{kind:?} broke nothing");
        assert_eq!(answer.unwrap().seq, Seq(before + number), "{kind:?}");
        let folded = service::fold(&*running.store, None).await.unwrap();
        assert_eq!(folded.state.seats().count() as u64, number, "{kind:?}");
        assert_eq!(folded.head, running.ledger.read().head);
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_was_given_up_has_no_effect_later() {
    let Some(direct) = Base::postgres("an append that was given up") else {
        return;
    };
    let other = direct.store().await;
    let line = Line::to(&direct.url(), Cluster::shared().unwrap().port()).await;
    let store = Base::on(&line.url).store().await;
    let first = Row::new(Hash::EMPTY, Seq(1), Timestamp(1), "w", None, "{}".into());
    let written = store.append(std::slice::from_ref(&first)).await;
    assert_eq!(written.unwrap(), Appended::Written);
    // The server holds the statement up while the connection breaks.
    let mut lock = sqlx::postgres::PgPoolOptions::new()
        .connect(&direct.url())
        .await
        .unwrap()
        .begin()
        .await
        .unwrap();
    let held = sqlx::query("LOCK TABLE journal IN SHARE MODE");
    held.execute(&mut *lock).await.unwrap();
    line.breaks(Break::AfterSend);
    let row = |body: &str| {
        let body = format!("{{\"{MARKER}\":{body}}}");
        [Row::new(first.hash, Seq(2), Timestamp(1), "w", None, body)]
    };
    let lost = store.append(&row("1")).await;
    assert!(matches!(lost, Err(StoreError::Unknown(_))), "{lost:?}");
    assert_eq!(store.catch_up(Seq(1), 10).await.unwrap(), []);
    lock.rollback().await.unwrap();
    // Whatever was under way is done before this is.
    let written = other.append(&row("2")).await;
    assert_eq!(
        written.unwrap(),
        Appended::Written,
        "the given up rows came first"
    );
    assert_eq!(store.catch_up(Seq(1), 10).await.unwrap(), row("2"));
    store.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_standby_has_is_not_taken_for_durable_after_a_reconnection() {
    let what = "a standby that is away";
    if !slow() {
        return skipped(what, "it waits for long deadlines; GPUQUOTA_SLOW=1");
    }
    let cluster = match Cluster::start() {
        Ok(cluster) => cluster,
        Err(why) => return skipped(what, &why),
    };
    let store = Base::on(&cluster.database()).store().await;
    let standby = |name: &str| {
        let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'");
        cluster.psql("postgres", &set).unwrap();
        cluster.psql("postgres", "SELECT pg_reload_conf()").unwrap();
    };
    standby("nobody");
    let row = [Row::new(
        Hash::EMPTY,
        Seq(1),
        Timestamp(1),
        "w",
        None,
        "{}".into(),
    )];
    let lost = store.append(&row).await;
    assert!(matches!(lost, Err(StoreError::Unknown(_))), "{lost:?}");
    let unsure = store.catch_up(Seq(0), 10).await;
    assert!(
        matches!(unsure, Err(StoreError::Unavailable(_))),
        "{unsure:?}"
    );
    standby("");
    let settled = async {
        loop {
            if let Ok(rows) = store.catch_up(Seq(0), 10).await {
                return rows;
            }
        }
    };
    let settled = tokio::time::timeout(Duration::from_secs(20), settled).await;
    assert_eq!(settled.unwrap(), row);
    store.close().await;
}
