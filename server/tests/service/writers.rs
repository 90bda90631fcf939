//! Two servers that write to one journal: nothing is lost, nothing doubled, both end with the same state.

use std::time::Duration;

use gpuquota_server::service::Origin;

use crate::databases::both;
use crate::running::{Running, START, SetClock, set};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_on_one_journal_lose_and_double_nothing() {
    for base in both("two_writers_on_one_journal_lose_and_double_nothing") {
        let one = Running::of(&base, SetClock::new(START)).await;
        let two = Running::of(&base, SetClock::new(START)).await;
        let tasks: Vec<_> = (0..8_u32)
            .map(|client| {
                let ledger = if client % 2 == 0 { &one } else { &two }.ledger.clone();
                tokio::spawn(async move {
                    for turn in 0..25 {
                        let command = set(&format!("t{client}-{turn}"), turn + 1);
                        ledger.submit(command, Origin::server()).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        // Each sees the other's rows when it writes next.
        for (number, running) in (1..).zip([&one, &two]) {
            let last = set("last", number);
            let answer = running.ledger.submit(last, Origin::server());
            tokio::time::timeout(Duration::from_secs(10), answer)
                .await
                .unwrap()
                .unwrap();
        }
        let committed = two.ledger.read();
        assert_eq!(committed.state.quotas().count(), 201);
        committed.state.verify().unwrap();
        let rows = committed.state.seq().0;
        assert_eq!(rows, 202, "one row for each granted change");
        let bytes = two.bytes();
        one.end().await;
        two.end().await;
        let again = Running::of(&base, SetClock::new(START)).await;
        assert_eq!(
            again.bytes(),
            bytes,
            "a fold from the file is the state that was served"
        );
        again.end().await;
    }
}
