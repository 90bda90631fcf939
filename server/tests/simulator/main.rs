//! A deterministic simulator of several servers on one journal.
//!
//! Two to five servers, each the real fold, batcher, sweep, snapshots and clock check, share one simulated journal in one
//! single-threaded runtime with paused time. Clients ask under operation ids and repeat what was not answered; agents
//! open sessions, report, fall silent and move from server to server. Servers crash at every step of a write, appends are
//! lost, late or doubled, disks fill, syncs fail, clocks are set, snapshots tear. Everything asked, answered, shown and made
//! durable is written down as a history, and `checker` judges it.
//!
//! A seed is a run, byte for byte:
//!
//! ```text
//! cargo test -p gpuquota-server --test simulator                     # many seeds, on two threads
//! GPUQUOTA_SEED=17 cargo test -p gpuquota-server --test simulator    # this one
//! GPUQUOTA_HISTORIES=10000 cargo test -p gpuquota-server --test simulator      # so many, as tests/run does
//! cargo test -p gpuquota-server --test simulator --features mutants  # does it find planted bugs
//! ```
//!
//! A violation is printed with its seed, the fewest operations and kinds of faults that still show it, and the end of that
//! history.
//!
//! To extend it: a new command of clients is a line in the table of `commands.rs`; a new kind of fault is a `plan::Fault`
//! with its place in `journal.rs`, `chaos.rs` or `world.rs`; what a new event must keep to is counted in
//! `bank` of the checker. The checker (`tests/checker` of the repository) works on plain data and knows nothing of the
//! simulator: it judges histories of real programs too. Whatever makes a choice takes it from its `Dice`, and nothing reads a clock, starts a thread or walks an
//! unordered map.
#![expect(clippy::unwrap_used, reason = "tests")]

mod acting;
mod agent;
mod chaos;
#[path = "../../../tests/checker/mod.rs"]
mod checker;
mod client;
mod clock;
mod commands;
mod dice;
mod history;
mod journal;
mod link;
#[cfg(feature = "mutants")]
mod mutants;
mod names;
mod plan;
mod replica;
mod shrink;
mod story;
mod torn;
mod world;

use tempfile::TempDir;

use plan::Plan;

/// Operations of one history.
const OPERATIONS: u64 = 200;
/// Histories where nobody says how many.
const HISTORIES: u64 = 500;
const THREADS: u64 = 2;

// In memory where there is such a place: nothing here must survive a power cut.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap())
}

// The first seed from `first` on, `step` apart, that breaks a rule.
fn search(first: u64, step: u64, end: u64) -> Option<u64> {
    let dir = scratch();
    let mut seeds = (first..end).step_by(usize::try_from(step).unwrap());
    seeds.find(|seed| {
        let history = story::play(&Plan::of(*seed, OPERATIONS), dir.path());
        !checker::check(&history).is_empty()
    })
}

#[test]
fn no_history_breaks_a_rule() {
    if let Some(seed) = number("GPUQUOTA_SEED") {
        let failed = search(seed, 1, seed + 1);
        assert!(failed.is_none(), "{}", shrink::report(seed, OPERATIONS));
        return;
    }
    let end = number("GPUQUOTA_HISTORIES").unwrap_or(HISTORIES);
    let threads: Vec<_> = (0..THREADS)
        .map(|first| std::thread::spawn(move || search(first, THREADS, end)))
        .collect();
    let failed: Vec<u64> = threads
        .into_iter()
        .filter_map(|thread| thread.join().unwrap())
        .collect();
    if let Some(seed) = failed.into_iter().min() {
        panic!("{}", shrink::report(seed, OPERATIONS));
    }
    // Around the capture of what a test prints; the suite says how long it took.
    let line =
        format!("MEASURED simulator: {end} histories of {OPERATIONS} operations, no rule broken\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

#[test]
fn a_seed_is_a_history_byte_for_byte() {
    let dir = scratch();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..30 {
        let text = |_| {
            let history = story::play(&Plan::of(seed, OPERATIONS), dir.path());
            let lines = history.iter().map(|entry| format!("{entry}\n"));
            lines.collect::<String>()
        };
        let [first, second] = [(); 2].map(text);
        assert_eq!(first, second, "seed {seed}");
        assert!(seen.insert(first), "two seeds have one history");
    }
}

// What a run is made of must happen, or the runs prove nothing.
#[test]
fn histories_hold_what_they_are_meant_to_hold() {
    let dir = scratch();
    let mut text = String::new();
    for seed in 0..80 {
        for entry in story::play(&Plan::of(seed, OPERATIONS), dir.path()) {
            text.push_str(&entry.to_string());
            text.push('\n');
        }
    }
    for wanted in [
        "crashes before its append is sent",
        "crashes while its append is on the way",
        "crashes before its append is answered",
        "crashes while it reads the journal",
        "its storage failed",
        "cannot start",
        "is stopped",
        "is torn",
        "says something else",
        "all sleep for 90000 s",
        "too many commands are waiting",
        "its disk is full",
        "the wall clock jumped",
        "seat_set",
        "seat_expired",
        "licences_exhausted",
        "licences_in_use",
        "below_use",
        "quota_expired",
        "node_silent",
        "node_heard",
        "node_settled",
        "node_unsettled",
        "stale_session",
        "operation_reused",
        "snapshot_taken",
        "steps_begun",
        "steps_held",
        "steps_confirmed",
        "step_ended",
    ] {
        assert!(text.contains(wanted), "no history holds `{wanted}`");
    }
}
