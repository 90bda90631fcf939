//! A journal that is not what the server last saw: it stops or closes for writing, and never turns in circles.

use std::sync::Arc;
use std::time::Duration;

use gpuquota_core::Record;
use gpuquota_core::event::Event;
use gpuquota_core::id::{Seq, TenantName, Timestamp};
use gpuquota_server::service::{LedgerError, Origin};
use gpuquota_server::store::{Row, Store};

use crate::databases::both;
use crate::running::{Running, START, SetClock, limit_of, set};

async fn asked(running: &Running, tenant: &str) -> Result<(), LedgerError> {
    let answer = running.ledger.submit(set(tenant, 1), Origin::server());
    let answer = tokio::time::timeout(Duration::from_secs(10), answer).await;
    assert!(answer.is_ok(), "it turns in circles");
    answer.unwrap().map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_was_cut_or_replaced_under_the_server_ends_it() {
    for statement in ["DELETE FROM journal WHERE seq = 2", "DELETE FROM journal"] {
        for base in both("a_journal_that_was_cut_or_replaced_under_the_server_ends_it") {
            let running = Running::of(&base, SetClock::new(START)).await;
            asked(&running, "a").await.unwrap();
            asked(&running, "b").await.unwrap();
            base.sql(statement).await;
            assert!(matches!(
                asked(&running, "c").await,
                Err(LedgerError::Unavailable(_))
            ));
            assert!(running.ledger.fatal().is_cancelled(), "{statement}");
            running.end().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_writers_row_that_contradicts_the_ledger_closes_it_for_writing_only() {
    for base in both("another_writers_row_that_contradicts_the_ledger_closes_it_for_writing_only") {
        let running = Running::of(&base, SetClock::new(START)).await;
        asked(&running, "a").await.unwrap();
        let record = Record {
            actor: "server".into(),
            request_id: None,
            from: None,
            reason: None,
            tenants: Default::default(),
            replay: None,
            events: vec![Event::TenantCreated {
                tenant: TenantName::new("a").unwrap(),
            }],
        };
        let body = serde_json::to_string(&record).unwrap();
        let head = running.ledger.read().head;
        let row = Row::new(head, Seq(2), Timestamp(START), "other", None, body);
        let store: Arc<dyn Store> = running.store.clone();
        store.append(&[row]).await.unwrap();
        for _ in 0..2 {
            let refused = asked(&running, "b").await.unwrap_err();
            assert!(refused.to_string().contains("invariant"), "{refused}");
        }
        assert!(limit_of(&running.ledger, "a").is_some(), "reads go on");
        assert!(!running.ledger.fatal().is_cancelled());
        running.end().await;
    }
}
