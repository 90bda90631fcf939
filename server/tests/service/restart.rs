//! Restarts: from the whole journal, from a snapshot, and with time that passed or went back.

use std::fs;
use std::time::Duration;

use gpuquota_server::service::Origin;

use crate::databases::both;
use crate::running::{HOUR, Running, START, SetClock, set, set_until};

fn snapshots(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(dir.join("snapshots")) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "snapshot"))
        .collect()
}

#[tokio::test]
async fn a_noted_snapshot_gives_the_same_state_and_a_changed_one_is_left_aside() {
    for base in both("a_noted_snapshot_gives_the_same_state_and_a_changed_one_is_left_aside") {
        let running = Running::with(&base, SetClock::new(START), |store| store, 10).await;
        for turn in 0..10 {
            running
                .ledger
                .submit(set(&format!("t{turn}"), 1), Origin::server())
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
        running
            .ledger
            .submit(set("after", 1), Origin::server())
            .await
            .unwrap();
        let bytes = running.bytes();
        running.end().await;
        let files = snapshots(base.dir.path());
        assert_eq!(files.len(), 1);

        let again = Running::of(&base, SetClock::new(START)).await;
        assert_eq!(again.bytes(), bytes);
        again.end().await;

        // A snapshot that says something else than the journal noted must not be believed.
        let text = fs::read_to_string(&files[0]).unwrap();
        assert!(text.contains("\"t3\""));
        fs::write(&files[0], text.replace("\"t3\"", "\"x3\"")).unwrap();
        let again = Running::of(&base, SetClock::new(START)).await;
        assert_eq!(again.bytes(), bytes);
        again.end().await;
    }
}

#[tokio::test]
async fn case_45_what_ended_while_nobody_ran_is_expired_before_anything_is_decided() {
    for base in both("case_45_what_ended_while_nobody_ran_is_expired_before_anything_is_decided") {
        let running = Running::of(&base, SetClock::new(START)).await;
        let end = Some(START + HOUR);
        running
            .ledger
            .submit(set_until("a", 4, end), Origin::server())
            .await
            .unwrap();
        assert!(
            running
                .ledger
                .read()
                .state
                .quotas()
                .all(|quota| !quota.expired)
        );
        running.end().await;
        let running = Running::of(&base, SetClock::new(START + HOUR)).await;
        running
            .ledger
            .submit(set("b", 1), Origin::server())
            .await
            .unwrap();
        let committed = running.ledger.read();
        let expired: Vec<bool> = committed
            .state
            .quotas()
            .map(|quota| quota.expired)
            .collect();
        assert_eq!(expired, [true, false]);
        assert_eq!(
            committed.state.seq().0,
            3,
            "the expiry has a row of its own"
        );
        running.end().await;
    }
}

#[tokio::test]
async fn case_53_a_clock_set_back_an_hour_does_not_turn_the_journal_back_and_a_jump_stops_writing()
{
    for base in both(
        "case_53_a_clock_set_back_an_hour_does_not_turn_the_journal_back_and_a_jump_stops_writing",
    ) {
        let running = Running::of(&base, SetClock::new(START)).await;
        running
            .ledger
            .submit(set("a", 1), Origin::server())
            .await
            .unwrap();
        running.clock.set(START - HOUR);
        running
            .ledger
            .submit(set("a", 2), Origin::server())
            .await
            .unwrap();
        assert_eq!(running.ledger.read().state.at().0, START);
        running.clock.set(-1);
        let refused = running.ledger.submit(set("a", 3), Origin::server()).await;
        assert!(refused.unwrap_err().to_string().contains("clock"));
        assert_eq!(running.ledger.read().state.seq().0, 2);
        running.clock.set(START + 1);
        running
            .ledger
            .submit(set("a", 3), Origin::server())
            .await
            .unwrap();
        running.end().await;
    }
}
