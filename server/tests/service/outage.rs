//! PostgreSQL goes away and comes back: reads go on and say how old they are, writes are refused and recover.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gpuquota_core::limit::Limit;
use gpuquota_server::service::{self, LedgerError, Origin};

use crate::databases::Base;
use crate::leaky::Line;
use crate::postgres::Cluster;
use crate::rest::Rest;
use crate::running::{Running, START, SetClock, limit_of, set};
use crate::skip::skipped;

/// Repeats a write until it is answered as wanted.
async fn until(running: &Running, wanted: fn(&Result<(), LedgerError>) -> bool) {
    let repeated = async {
        loop {
            let answer = running.ledger.submit(set("a", 2), Origin::server()).await;
            if wanted(&answer.map(|_| ())) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let repeated = tokio::time::timeout(Duration::from_secs(30), repeated).await;
    assert!(repeated.is_ok(), "writes are not answered as wanted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_database_a_replica_reads_with_age_refuses_writes_and_recovers() {
    let Some(direct) = Base::postgres("a replica without its database") else {
        return;
    };
    let line = Line::to(&direct.url(), Cluster::shared().unwrap().port()).await;
    let running = Running::of(&Base::on(&line.url), SetClock::new(START)).await;
    let rest = Rest::on(&running);
    let put = |num: u32| format!("{{\"name\":\"n{num}\"}}");
    let told = rest.write("PUT", "/api/v1/tenants/a", &put(1)).await;
    assert_eq!(
        (told.status, told.headers["gpuquota-seq"].as_bytes()),
        (200, &b"1"[..]),
        "{told:?}"
    );
    assert!(!told.headers.contains_key("gpuquota-age"));

    line.down().await;
    until(&running, |answer| {
        matches!(answer, Err(LedgerError::Unavailable(_)))
    })
    .await;
    running.clock.pass(7_500);
    let refused = rest.write("PUT", "/api/v1/tenants/a", &put(2)).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(
        refused.text.contains("database cannot be reached"),
        "{refused:?}"
    );
    assert!(!refused.text.contains("gpuquota@"), "{refused:?}");
    let told = rest.read("/api/v1/tenants/a", &[]).await;
    assert_eq!(
        (told.status, told.headers["gpuquota-age"].as_bytes()),
        (200, &b"7"[..]),
        "{told:?}"
    );
    assert!(told.text.contains("\"n1\""), "{told:?}");
    assert!(
        !running.ledger.fatal().is_cancelled(),
        "the process lives on"
    );

    line.up();
    until(&running, Result::is_ok).await;
    assert_eq!(limit_of(&running.ledger, "a"), Some(Limit::Finite(2)));
    let told = rest.read("/api/v1/tenants/a", &[]).await;
    assert!(!told.headers.contains_key("gpuquota-age"), "{told:?}");
    running.end().await;
}

#[tokio::test]
async fn a_row_that_is_asked_for_is_waited_for_and_then_refused() {
    for base in crate::databases::both("a row that is asked for") {
        let running = Running::of(&base, SetClock::new(START)).await;
        let rest = Rest::on(&running);
        rest.write("PUT", "/api/v1/tenants/a", "{}").await;
        for (seq, status) in [
            ("1", 200),
            ("0", 200),
            ("2", 503),
            ("-1", 400),
            ("x", 400),
            ("", 400),
        ] {
            let told = rest
                .read("/api/v1/tenants/a", &[("gpuquota-seq", seq)])
                .await;
            assert_eq!(told.status, status, "{seq}: {told:?}");
            if status == 503 {
                assert!(
                    told.text.contains("row 1") && told.text.contains("row 2"),
                    "{told:?}"
                );
            }
        }
        // One that comes while it is waited for.
        let late = tokio::spawn({
            let ledger = running.ledger.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                ledger.submit(set("b", 1), Origin::server()).await.unwrap();
            }
        });
        let told = rest
            .read("/api/v1/tenants/b", &[("gpuquota-seq", "2")])
            .await;
        assert_eq!(told.status, 200, "{told:?}");
        late.await.unwrap();
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_42_kill_9_of_postgresql_under_load_loses_nothing_that_was_acknowledged() {
    let cluster = match Cluster::start() {
        Ok(cluster) => cluster,
        Err(why) => return skipped("case 42: kill -9 of PostgreSQL", &why),
    };
    let base = Base::on(&cluster.database());
    let running = Running::of(&base, SetClock::new(START)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (ledger, stop) = (running.ledger.clone(), stop.clone());
            tokio::spawn(async move {
                let (tenant, mut number, mut acknowledged) = (format!("t{client}"), 0_u32, 0);
                while !stop.load(Ordering::SeqCst) {
                    number += 1;
                    match ledger.submit(set(&tenant, number), Origin::server()).await {
                        Ok(_) => acknowledged = number,
                        Err(LedgerError::Unavailable(_) | LedgerError::Unknown) => {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
                (tenant, (acknowledged, number))
            })
        })
        .collect();
    let cluster = tokio::task::spawn_blocking(move || {
        let backend = "SELECT pid FROM pg_stat_activity WHERE application_name = 'gpuquota-server' ORDER BY backend_start LIMIT 1";
        for round in 0..4 {
            std::thread::sleep(Duration::from_millis(300));
            if round % 2 == 0 {
                cluster.end("-KILL");
                cluster.up();
            } else if let Ok(id) = cluster.psql("t0", backend) {
                // One of its processes dies, and it restarts them all.
                let _ = std::process::Command::new("kill")
                    .args(["-KILL", &id])
                    .status();
            }
        }
        cluster
    });
    let cluster = cluster.await.unwrap();
    until(&running, Result::is_ok).await;
    stop.store(true, Ordering::SeqCst);
    let mut asked = BTreeMap::new();
    for client in clients {
        let (tenant, numbers) = client.await.unwrap();
        asked.insert(tenant, numbers);
    }
    let folded = service::fold(&*running.store, None).await.unwrap();
    assert_eq!(folded.head, running.ledger.read().head);
    for (tenant, (acknowledged, last)) in asked {
        let Some(Limit::Finite(there)) = limit_of(&running.ledger, &tenant) else {
            panic!("{tenant} is lost");
        };
        assert!(
            acknowledged > 0 && (acknowledged..=last).contains(&there),
            "{tenant}: {acknowledged} {there} {last}"
        );
    }
    running.end().await;
    drop(cluster);
}
