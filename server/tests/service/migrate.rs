//! `migrate sqlite-to-postgres`: the copy is proved, an interrupted one goes on, a repeated one changes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use gpuquota_core::id::{Seq, Timestamp};
use gpuquota_server::init;
use gpuquota_server::journal::archive::{Before, archive};
use gpuquota_server::journal::verify;
use gpuquota_server::migrate::sqlite_to_postgres;
use gpuquota_server::service::Origin;
use gpuquota_server::store::{self, Appended, Hash, Place, Row};

use crate::databases::Base;
use crate::running::{Running, START, SetClock, keyed, set};

const ROWS: u64 = 40;

/// A server directory with a ledger, and a file with an empty database's URL.
async fn ground(what: &str) -> Option<(Base, PathBuf, PathBuf)> {
    let base = Base::postgres(what)?;
    let dir = base.dir.path().join("server");
    init::init(&dir, &["localhost".into()], Timestamp(START))
        .await
        .unwrap();
    let running = Running::on(&dir, SetClock::new(START)).await;
    for number in 1..=ROWS {
        let key = format!("key ä {number}");
        let command = set(&format!("t{}", number % 7), u32::try_from(number).unwrap());
        running
            .ledger
            .submit(command, keyed(&key, "f"))
            .await
            .unwrap();
    }
    running.end().await;
    let file = base.dir.path().join("database.url");
    fs::write(&file, format!("{}\n", base.url())).unwrap();
    Some((base, dir, file))
}

fn named(dir: &Path, file: &Path) {
    let config = dir.join("server.toml");
    let text = fs::read_to_string(&config).unwrap();
    let line = format!("url_file = \"{}\"\npath = \"ledger.db\"", file.display());
    let named = text.replace("path = \"ledger.db\"", &line);
    assert_ne!(text, named);
    fs::write(&config, named).unwrap();
}

#[tokio::test]
async fn the_copy_is_the_same_ledger_and_a_repetition_changes_nothing() {
    let Some((base, dir, file)) = ground("a copy is the same ledger").await else {
        return;
    };
    let report = sqlite_to_postgres(&dir, &file).await.unwrap();
    assert!(
        report.contains("copied 40 rows") && report.contains("0 were there"),
        "{report}"
    );
    let again = sqlite_to_postgres(&dir, &file).await.unwrap();
    assert!(
        again.contains("copied 0 rows") && again.contains("40 were there"),
        "{again}"
    );
    let proof = |text: &str| text.split("40 rows, head ").nth(1).map(ToOwned::to_owned);
    assert_eq!(proof(&report), proof(&again));
    let before = verify::verify(Some(&dir), &[]).await.unwrap();
    named(&dir, &file);
    assert_eq!(verify::verify(Some(&dir), &[]).await.unwrap(), before);
    // From now on the copy is a ledger of its own, and never overwritten.
    let running = Running::of(&base, SetClock::new(START)).await;
    running
        .ledger
        .submit(set("new", 1), Origin::server())
        .await
        .unwrap();
    running.end().await;
    let refused = sqlite_to_postgres(&dir, &file).await.unwrap_err();
    assert!(
        format!("{refused:#}").contains("another journal"),
        "{refused:#}"
    );
}

#[tokio::test]
async fn a_journal_whose_old_rows_are_archived_is_copied_with_the_base_that_stands_for_them() {
    let Some((base, dir, file)) = ground("an archived journal is copied").await else {
        return;
    };
    let out = base.dir.path().join("old.jsonl");
    let before = Before::Row(Seq(30));
    let archived = archive(
        &dir,
        before,
        &out,
        SetClock::new(START),
        Origin::operator(None),
    )
    .await;
    archived.unwrap();
    for copied in [12, 0] {
        let report = sqlite_to_postgres(&dir, &file).await.unwrap();
        let copied = format!("copied {copied} rows");
        assert!(report.contains(&copied), "{report}");
    }
    named(&dir, &file);
    let told = verify::verify(Some(&dir), &[out]).await.unwrap();
    assert!(told.contains("nothing is missing since row 1"), "{told}");
    let running = Running::of(&base, SetClock::new(START)).await;
    assert_eq!(running.ledger.read().state.seq(), Seq(41));
    running.end().await;
}

#[tokio::test]
async fn an_interrupted_copy_goes_on_and_another_journal_is_refused() {
    let Some((base, dir, file)) = ground("an interrupted copy goes on").await else {
        return;
    };
    let source = store::open_read_only(&Place::File(dir.join("ledger.db")))
        .await
        .unwrap();
    let rows = source.rows_after(Seq(0), 17).await.unwrap();
    source.close().await;
    let target = base.store().await;
    assert_eq!(target.append(&rows).await.unwrap(), Appended::Written);
    target.close().await;
    let report = sqlite_to_postgres(&dir, &file).await.unwrap();
    assert!(
        report.contains("copied 23 rows") && report.contains("17 were there"),
        "{report}"
    );

    let other = Base::postgres("another journal").unwrap();
    let target = other.store().await;
    let row = Row::new(
        Hash::EMPTY,
        Seq(1),
        Timestamp(START),
        "w",
        None,
        "{}".into(),
    );
    target.append(&[row]).await.unwrap();
    target.close().await;
    fs::write(&file, other.url()).unwrap();
    let refused = sqlite_to_postgres(&dir, &file).await.unwrap_err();
    assert!(
        format!("{refused:#}").contains("another journal"),
        "{refused:#}"
    );
}

#[tokio::test]
async fn a_changed_row_or_a_running_server_stops_the_copy() {
    let Some((_base, dir, file)) = ground("a changed row stops the copy").await else {
        return;
    };
    let lock = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(dir.join("ledger.lock"))
        .unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let refused = sqlite_to_postgres(&dir, &file).await.unwrap_err();
    assert!(
        refused.to_string().contains("another server runs"),
        "{refused}"
    );
    drop(lock);
    let url = format!("sqlite://{}", dir.join("ledger.db").display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let change = "UPDATE journal SET body = replace(body, 't3', 't4') WHERE seq = 3";
    sqlx::query(change).execute(&pool).await.unwrap();
    pool.close().await;
    let refused = sqlite_to_postgres(&dir, &file).await.unwrap_err();
    assert!(format!("{refused:#}").contains("row 3"), "{refused:#}");
}
