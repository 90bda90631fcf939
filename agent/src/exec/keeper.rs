//! Looks after the leases that were taken: renews what runs, gives back what has ended.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gpuquota_proto::agent_v1::TakeLease;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::book::{Book, Entry};
use super::figures::Figures;
use super::lessor::{Lease, Lessor, NoLease};
use crate::clock::boottime_ms;
use crate::process::group::GroupId;

/// How often groups are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// After a call that failed, milliseconds.
const AGAIN_MS: u64 = 5_000;
/// A lease is renewed after this part of its life.
pub(super) const PART: u64 = 3;

/// What is known of a lease besides the book.
#[derive(Clone, Copy, Debug)]
struct Due {
    /// When the server is to be asked next, milliseconds, CLOCK_BOOTTIME.
    at_ms: u64,
    /// The server knows it no more.
    lost: bool,
}

/// Keeps them until `stop`. What runs then goes on, and the next agent looks after it.
pub async fn keep<L: Lessor>(
    book: Arc<Book>,
    lessor: Arc<L>,
    root: Option<PathBuf>,
    figures: Arc<Figures>,
    stop: CancellationToken,
) {
    let mut due = BTreeMap::new();
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = book.changed() => {}
            // Where nobody has a lease nothing is looked for.
            _ = ticks.tick(), if !book.is_empty() => {}
        }
        let lives = |entry: &Entry| match (root.as_deref(), &entry.group) {
            (Some(root), Some(group)) => is_same(root, group, entry) && populated(root, group),
            (None, Some(_)) => true,
            (_, None) => false,
        };
        look(&book, lessor.as_ref(), &mut due, &lives).await;
        figures.hold(book.len());
    }
}

async fn look<L: Lessor>(
    book: &Book,
    lessor: &L,
    due: &mut BTreeMap<String, Due>,
    lives: &(dyn Fn(&Entry) -> bool + Sync),
) {
    let entries = book.entries();
    due.retain(|ask, _| entries.iter().any(|(known, _)| known == ask));
    for (ask, entry) in entries {
        if entry.waits {
            continue;
        }
        let now = boottime_ms();
        let runs = lives(&entry);
        if !runs && entry.group.is_some() {
            book.ended(&ask);
            due.remove(&ask);
        }
        let at = due.entry(ask.clone()).or_insert_with(|| Due {
            at_ms: if runs { entry.renew_at_ms } else { 0 },
            lost: false,
        });
        if now < at.at_ms || (runs && at.lost) {
            continue;
        }
        let asked = match (entry.lease, runs) {
            (Some(lease), true) => renew(lessor, lease, at).await,
            (Some(lease), false) => release(book, lessor, &ask, lease).await,
            (None, _) => settle(book, lessor, &ask, &entry).await,
        };
        at.at_ms = boottime_ms().saturating_add(asked);
    }
}

// All of them return after how many milliseconds the server is to be asked next.
async fn renew<L: Lessor>(lessor: &L, lease: u64, due: &mut Due) -> u64 {
    match lessor.renew(lease).await {
        Ok(Lease { devices, .. }) if devices.is_empty() => {
            due.lost = true;
            tracing::warn!(lease, "a lease ends while its command runs");
            u64::MAX
        }
        Ok(renewed) => renewed.ends_in_ms / PART,
        Err(NoLease::Denied(why) | NoLease::Refused(why)) => {
            due.lost = true;
            tracing::warn!(
                lease,
                why,
                "a lease cannot be renewed while its command runs"
            );
            u64::MAX
        }
        Err(NoLease::Away(why) | NoLease::Barred(why)) => {
            tracing::debug!(lease, why, "a lease is not renewed yet");
            AGAIN_MS
        }
    }
}

async fn release<L: Lessor>(book: &Book, lessor: &L, ask: &str, lease: u64) -> u64 {
    match lessor.release(lease).await {
        Ok(_) => {
            tracing::info!(lease, "a lease is given back");
            book.forget(ask);
            0
        }
        // The server says that there is nothing to give back.
        Err(NoLease::Denied(why) | NoLease::Refused(why)) => {
            tracing::info!(lease, why, "a lease is no more");
            book.forget(ask);
            0
        }
        Err(NoLease::Away(why) | NoLease::Barred(why)) => {
            tracing::debug!(lease, why, "a lease is not given back yet");
            AGAIN_MS
        }
    }
}

// Whether it was given is not known: it is asked for by its name, and then it can be given back. Nothing is leased by that: whoever asked
// with a token that does not count would have it leased without one.
async fn settle<L: Lessor>(book: &Book, lessor: &L, ask: &str, entry: &Entry) -> u64 {
    let again = TakeLease {
        only_if_taken: true,
        ..entry.asked.wire(ask, None)
    };
    match lessor.take(again).await {
        Ok(lease) => {
            book.taken(ask, lease.number, 0);
            0
        }
        Err(NoLease::Denied(_) | NoLease::Refused(_)) => {
            book.forget(ask);
            0
        }
        Err(NoLease::Away(why) | NoLease::Barred(why)) => {
            tracing::debug!(why, "what became of an asking for a lease is not known yet");
            AGAIN_MS
        }
    }
}

// Whether the group is the one in which it began: a unit that is started anew has another of the same path.
fn is_same(root: &Path, group: &str, entry: &Entry) -> bool {
    let now = GroupId::of_folder(root, group);
    entry
        .folder
        .is_none_or(|began| now.is_none_or(|now| now == began))
}

/// Whether somebody lives in the group or below it (`cgroup.events`, Documentation/admin-guide/cgroup-v2.rst). What cannot be
/// told counts as life: a lease that lasts too long harms less than a command that runs without one.
fn populated(root: &Path, group: &str) -> bool {
    let folder = root.join(group.trim_start_matches('/'));
    match fs::read_to_string(folder.join("cgroup.events")) {
        Ok(text) => !text.lines().any(|line| line == "populated 0"),
        Err(error) => {
            error.kind() != std::io::ErrorKind::NotFound
                && error.raw_os_error() != Some(rustix::io::Errno::NODEV.raw_os_error())
        }
    }
}
