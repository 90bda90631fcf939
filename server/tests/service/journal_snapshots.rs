//! `journal rebuild`: what snapshots say is compared with what the rows say.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gpuquota_server::journal::{DAMAGED, exit_status, rebuild, verify};
use gpuquota_server::open::{InUse, Opened};
use gpuquota_server::service::Origin;
use gpuquota_server::store::sqlite::SqliteStore;

use crate::journals::{directory, folded};
use crate::running::{Running, START, SetClock, set};

fn snapshots(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("snapshots")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "snapshot"))
        .collect();
    paths.sort();
    paths
}

async fn with_a_snapshot(dir: &Path) {
    let store = SqliteStore::open(&dir.join("ledger.db")).await.unwrap();
    let running = Running::opened(Arc::new(store), dir, SetClock::new(START), 10).await;
    for turn in 0..10 {
        let command = set(&format!("t{turn}"), 1);
        running
            .ledger
            .submit(command, Origin::server())
            .await
            .unwrap();
    }
    let noted = async {
        while running.ledger.read().state.snapshot().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), noted)
        .await
        .unwrap();
    let after = running.ledger.submit(set("after", 1), Origin::server());
    after.await.unwrap();
    running.end().await;
}

#[tokio::test]
async fn a_snapshot_that_says_something_else_is_named_with_its_rows_and_replaced() {
    let dir = directory().await;
    let dir = dir.path();
    with_a_snapshot(dir).await;
    let right = rebuild::check(dir).await.unwrap();
    assert!(right.contains("says what the rows say"), "{right}");

    let path = snapshots(dir).remove(0);
    let text = fs::read_to_string(&path).unwrap();
    let other = text.replace("\"t3\"", "\"x3\"");
    assert_ne!(other, text);
    for (damaged, reason) in [
        (other.as_bytes(), "quotas: 3; tenants: t3, x3"),
        (&other.as_bytes()[..200], "cannot be read"),
        (b"", "cannot be read"),
    ] {
        fs::write(&path, damaged).unwrap();
        let before = folded(dir).await;
        let wrong = rebuild::check(dir).await.unwrap_err();
        assert_eq!(exit_status(&wrong), DAMAGED);
        assert!(wrong.to_string().contains(reason), "{wrong}");
        assert_eq!(fs::read(&path).unwrap(), damaged, "--check changes nothing");
        assert_eq!(folded(dir).await, before);
    }
    // Readable and the same state, but not the file that was noted.
    fs::write(&path, text.replacen("\n", " \n", 1)).unwrap();
    let wrong = rebuild::check(dir).await.unwrap_err();
    assert!(wrong.to_string().contains("digest"), "{wrong}");

    let before = folded(dir).await;
    let said = rebuild::rebuild(dir, SetClock::new(START + 1), Origin::operator(None))
        .await
        .unwrap();
    assert!(said.contains("moved aside to"), "{said}");
    assert!(said.contains("written and noted"), "{said}");
    assert_eq!(folded(dir).await, before);
    let fresh = snapshots(dir);
    assert_eq!(fresh.len(), 1);
    assert_ne!(fresh[0], path);
    let right = rebuild::check(dir).await.unwrap();
    assert_eq!(
        right.matches("says what the rows say").count(),
        1,
        "{right}"
    );
    verify::verify(Some(dir), &[]).await.unwrap();
    // The next start begins with it.
    let running = Running::on(dir, SetClock::new(START + 2)).await;
    running.end().await;
}

#[tokio::test]
async fn one_of_rows_that_the_journal_does_not_have_is_no_difference_but_is_moved_aside() {
    let dir = directory().await;
    let dir = dir.path();
    with_a_snapshot(dir).await;
    let path = snapshots(dir).remove(0);
    let text = fs::read_to_string(&path).unwrap();
    let beyond = text.replace("\"seq\":10", "\"seq\":90");
    fs::write(dir.join("snapshots/00000000000000000090.snapshot"), beyond).unwrap();
    let said = rebuild::check(dir).await.unwrap();
    assert!(
        said.contains("rows that the journal does not have"),
        "{said}"
    );
    rebuild::rebuild(dir, SetClock::new(START + 1), Origin::operator(None))
        .await
        .unwrap();
    let names = snapshots(dir);
    assert!(
        names
            .iter()
            .all(|path| !path.ends_with("00000000000000000090.snapshot"))
    );
    assert_eq!(names.len(), 2);
}

#[tokio::test]
async fn what_changes_something_is_refused_while_a_server_runs_and_what_reads_is_not() {
    let dir = directory().await;
    let dir = dir.path();
    with_a_snapshot(dir).await;
    let config = gpuquota_server::config::Config::read(dir).unwrap();
    let server = Opened::open(dir, &config, SetClock::new(START))
        .await
        .unwrap();
    rebuild::check(dir).await.unwrap();
    verify::verify(Some(dir), &[]).await.unwrap();
    let refused = rebuild::rebuild(dir, SetClock::new(START), Origin::operator(None))
        .await
        .unwrap_err();
    assert!(refused.is::<InUse>(), "{refused}");
    assert_eq!(exit_status(&refused), 1);
    server.close().await;
    rebuild::rebuild(dir, SetClock::new(START), Origin::operator(None))
        .await
        .unwrap();
}
