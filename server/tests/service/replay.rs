//! Operation ids: one id has one effect, also across a restart, and may be used anew after a day.

use gpuquota_core::Denied;
use gpuquota_core::limit::Limit;
use gpuquota_server::service::LedgerError;

use crate::databases::both;
use crate::running::{HOUR, Running, START, SetClock, keyed, limit_of, set};

#[tokio::test]
async fn case_39_and_40_an_operation_id_has_one_effect_for_a_day() {
    for base in both("case_39_and_40_an_operation_id_has_one_effect_for_a_day") {
        // Ten minutes before midnight, so that the day changes within the window.
        let begin = (START / (24 * HOUR) + 1) * 24 * HOUR - 600_000;
        let running = Running::of(&base, SetClock::new(begin)).await;
        let both = tokio::join!(
            running.ledger.submit(set("a", 1), keyed("k", "f")),
            running.ledger.submit(set("a", 1), keyed("k", "f")),
        );
        let (first, second) = (both.0.unwrap(), both.1.unwrap());
        assert_eq!(first.outcome, second.outcome);
        assert_eq!(running.ledger.read().state.seq().0, 1, "one row");
        let other = running.ledger.submit(set("a", 2), keyed("k", "g")).await;
        assert_eq!(other, Err(LedgerError::Denied(Denied::OperationReused)));
        assert_eq!(limit_of(&running.ledger, "a"), Some(Limit::Finite(1)));
        running.end().await;

        // Another change came between; the repetition still has no effect.
        let running = Running::of(&base, SetClock::new(begin + HOUR)).await;
        running
            .ledger
            .submit(set("a", 5), keyed("k2", "x"))
            .await
            .unwrap();
        let repeated = running
            .ledger
            .submit(set("a", 1), keyed("k", "f"))
            .await
            .unwrap();
        assert_eq!(repeated.outcome, first.outcome);
        assert_eq!(limit_of(&running.ledger, "a"), Some(Limit::Finite(5)));

        running.clock.set(begin + 25 * HOUR);
        running
            .ledger
            .submit(set("a", 7), keyed("k", "g"))
            .await
            .unwrap();
        assert_eq!(limit_of(&running.ledger, "a"), Some(Limit::Finite(7)));
        running.end().await;
    }
}
