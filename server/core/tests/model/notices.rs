//! Tenants are told before a quota ends.

use gpuquota_core::Command;
use gpuquota_core::command::SetQuota;
use gpuquota_core::event::Event;
use gpuquota_core::limit::Limit;

use crate::drain::{at, granted, sweep};
use crate::examples::{GPU, bought, put, until};
use crate::reference::DAY;
use crate::{Ledger, START};

fn noticed(ledger: &Ledger) -> Vec<u32> {
    let events = ledger
        .journal
        .iter()
        .flat_map(|(.., record)| &record.events);
    events
        .filter_map(|event| match event {
            Event::QuotaNoticed { days, .. } => Some(*days),
            _ => None,
        })
        .collect()
}

#[test]
fn an_end_is_noticed_28_7_and_1_days_before_once_and_anew_for_another_end() {
    let mut ledger = Ledger::default();
    let quota = |days: i64| until(put(bought("a", GPU), 1), days * DAY);
    granted(&mut ledger, &Command::SetQuota(quota(40)), START);
    assert_eq!(ledger.state.next_due(), Some(at(12 * DAY)));
    sweep(&mut ledger, at(12 * DAY - 1));
    assert_eq!(noticed(&ledger), [] as [u32; 0]);
    sweep(&mut ledger, at(12 * DAY));
    sweep(&mut ledger, at(20 * DAY));
    assert_eq!(noticed(&ledger), [28]);
    let raised = SetQuota {
        limit: Limit::Finite(2),
        ..quota(40)
    };
    granted(&mut ledger, &Command::SetQuota(raised), at(21 * DAY));
    sweep(&mut ledger, at(22 * DAY));
    assert_eq!(noticed(&ledger), [28], "the same end");
    sweep(&mut ledger, at(33 * DAY));
    sweep(&mut ledger, at(39 * DAY));
    assert_eq!(noticed(&ledger), [28, 7, 1]);
    assert_eq!(ledger.state.next_due(), Some(at(40 * DAY)));
    granted(&mut ledger, &Command::SetQuota(quota(70)), at(39 * DAY + 1));
    // The server was down: it tells of the nearest only.
    sweep(&mut ledger, at(64 * DAY));
    assert_eq!(noticed(&ledger), [28, 7, 1, 7]);
    sweep(&mut ledger, at(70 * DAY));
    assert_eq!(
        noticed(&ledger),
        [28, 7, 1, 7],
        "an end that came is no notice"
    );
    // One that ends soon is noticed with the row that sets it.
    granted(&mut ledger, &Command::SetQuota(quota(75)), at(71 * DAY));
    assert_eq!(noticed(&ledger), [28, 7, 1, 7, 7]);
    assert!(ledger.refold() == ledger.state);
}
