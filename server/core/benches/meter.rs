//! What the meter costs with 80,000 devices: a report that changes one of them, and closing, reading and forgetting hours.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod fleet;

use std::hint::black_box;
use std::time::Instant;

use gpuquota_core::Command;

use fleet::{NODES, START, device, fold, report, reported};

const HOUR: i64 = 3_600_000;

fn main() {
    let mut state = reported(|_, at| at % 2 == 0);
    println!("{} devices", state.metered_devices());

    let begin = Instant::now();
    let changes = 20_000;
    for change in 0..changes {
        let (node, turn) = (change % NODES, change / NODES);
        let number = 2 + u64::try_from(turn).unwrap();
        let changed = vec![device(node, 0, turn % 2 == 1)];
        fold(
            &mut state,
            &report(node, number, false, changed),
            START + 1000,
        );
    }
    let each = begin.elapsed() / u32::try_from(changes).unwrap();
    println!("a report that changes one device, decided and folded: {each:?}");

    let begin = Instant::now();
    fold(&mut state, &Command::Sweep, START + HOUR);
    println!("closing an hour: {:?}", begin.elapsed());

    let (from, to) = (state.stored_before(), state.closed_before());
    let begin = Instant::now();
    let metered = state.metered(from, to, state.at());
    let rows = metered.rows.len();
    println!(
        "reading it, {rows} rows, error {} ms: {:?}",
        metered.error_ms,
        begin.elapsed()
    );
    black_box(metered);

    let begin = Instant::now();
    fold(
        &mut state,
        &Command::NoteUsage { through: to },
        START + HOUR,
    );
    println!("forgetting it, {changes} changes: {:?}", begin.elapsed());
}
