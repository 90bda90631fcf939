//! Hours that are over leave the ledger's state for the tables of usage, so that the state does not grow for ever, and what is
//! kept by device leaves those after a time, so that they do not either.
//!
//! First the rows, then the note in the journal: whoever dies between the two, or does it a second time, or beside
//! another server, finds the same rows there, because every server's state says the same of an hour that is over.

use std::sync::atomic::Ordering;
use std::time::Duration;

use gpuquota_core::meter::Hour;
use gpuquota_core::{Command, State};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{Counters, Ledger, Origin};
use crate::store::{UsageHours, UsageKept};

const TICK: Duration = Duration::from_secs(10);
const DAY: i64 = 24;
/// Rows to store at once, about.
const AT_ONCE: u64 = 100_000;
/// How often rows are dropped that are older than they are kept, and how many then at most: many times what an hour adds.
const DROP_TICK: Duration = Duration::from_secs(3600);
const DROPPED_AT_ONCE: u64 = 500_000;

/// For how long usage is kept by device; the sums by tenant, region and model are kept for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageKeeping {
    /// Days of UTC, the one that runs not counted.
    pub days: u32,
}

/// Stores what is over every ten seconds until `stop`.
pub async fn store_usage(ledger: Ledger, keeping: UsageKeeping, stop: CancellationToken) {
    let [mut tick, mut drops] = [TICK, DROP_TICK].map(tokio::time::interval);
    for ticks in [&mut tick, &mut drops] {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
            _ = drops.tick() => drop_usage_once(&ledger, keeping, &stop).await,
        }
        while !stop.is_cancelled() && store_usage_once(&ledger).await {}
    }
}

/// Stores the first hours that are over and not stored; whether there may be more.
pub async fn store_usage_once(ledger: &Ledger) -> bool {
    let committed = ledger.read();
    let Some((from, to)) = next_hours(&committed.state) else {
        return false;
    };
    let metered = tokio::task::spawn_blocking(move || {
        let metered = committed.state.metered(from, to, committed.state.at());
        (UsageHours::of(from, to, &metered), metered.error_ms)
    });
    let Ok((hours, error_ms)) = metered.await else {
        return false;
    };
    let counters = ledger.counters();
    if error_ms > 0 {
        counters
            .usage_error_ms
            .fetch_add(error_ms, Ordering::Relaxed);
        tracing::error!(
            usage.error_ms = error_ms,
            usage.from_ms = from.start().0,
            usage.to_ms = to.start().0,
            "metered time does not add up to the time for which devices existed; it is not stored. This is a defect: \
             keep the journal and report it"
        );
        return false;
    }
    match ledger.store.put_usage(&hours).await {
        Ok(UsageKept::Same) => {}
        Ok(UsageKept::Differs) => {
            Counters::add(&counters.usage_conflicts, 1);
            tracing::error!(
                usage.from_ms = from.start().0,
                usage.to_ms = to.start().0,
                "other usage is stored of these hours than the journal says; neither is changed. Find out who wrote to \
                 the tables of usage, and remove those hours from them to have the journal's"
            );
            return false;
        }
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "usage cannot be stored now; it is tried again"
            );
            return false;
        }
    }
    let note = Command::NoteUsage { through: to };
    match ledger.submit(note, Origin::server()).await {
        Ok(_) => true,
        Err(error) => {
            tracing::warn!(error = %error, "usage is stored but not noted; it is tried again");
            false
        }
    }
}

/// Drops what is kept by device of days that are too long over, as much as is dropped at a time.
pub async fn drop_usage_once(ledger: &Ledger, keeping: UsageKeeping, stop: &CancellationToken) {
    let committed = ledger.read();
    let today = Hour::of(committed.state.at()).0.div_euclid(DAY);
    let before = Hour((today - i64::from(keeping.days)) * DAY);
    // What is not stored yet is dropped another time.
    let before = before.min(committed.state.stored_before());
    if before <= Hour::default() {
        return;
    }
    let mut dropped = 0;
    while dropped < DROPPED_AT_ONCE && !stop.is_cancelled() {
        match ledger.store.drop_usage_by_device(before).await {
            Ok(0) => break,
            Ok(rows) => dropped += rows,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "usage by device that is too old cannot be dropped now; it is tried again in an hour"
                );
                break;
            }
        }
    }
    if dropped > 0 {
        tracing::info!(
            usage.rows = dropped,
            usage.before_ms = before.start().0,
            "usage by device was dropped"
        );
    }
}

// As many hours as make about so many rows, one at least.
fn next_hours(state: &State) -> Option<(Hour, Hour)> {
    let from = state.first_unstored()?;
    let devices = u64::try_from(state.metered_devices()).unwrap_or(AT_ONCE);
    let hours = (AT_ONCE / devices.max(1)).clamp(1, 24);
    let to = from.plus(u32::try_from(hours).unwrap_or(1));
    Some((from, to.min(state.closed_before())))
}
