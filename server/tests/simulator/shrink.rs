//! From a seed that breaks a rule to a shorter history that still does.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::checker::{Entry, Violation, check};
use crate::plan::Plan;
use crate::{scratch, story};

/// Lines of the history that are printed.
const TAIL: usize = 80;

/// What a person needs: what is wrong, how to see it again, and the end of the shortest history that shows it.
pub(crate) fn report(seed: u64, operations: u64) -> String {
    let (plan, history, found) = shortest(Plan::of(seed, operations));
    let mut text = format!("seed {seed} breaks a rule\n");
    for violation in found.iter().take(5) {
        let _ = writeln!(text, "  {violation}");
    }
    let _ = writeln!(
        text,
        "again: GPUQUOTA_SEED={seed} cargo test -p gpuquota-server --test simulator\n{} operations \
         are enough, with {:?}; the end of that history:",
        plan.operations, plan.faults
    );
    for entry in history.iter().skip(history.len().saturating_sub(TAIL)) {
        let _ = writeln!(text, "{entry}");
    }
    text
}

type Shown = (Plan, Vec<Entry>, Vec<Violation>);

// Fewer operations, then fewer kinds of faults, as long as something is still wrong.
fn shortest(plan: Plan) -> Shown {
    let dir = scratch();
    let play = |plan: Plan| -> Shown {
        let history = story::play(&plan, dir.path());
        let found = check(&history);
        (plan, history, found)
    };
    let mut best = play(plan);
    let mut low = 0;
    while low + 1 < best.0.operations {
        let operations = low.midpoint(best.0.operations);
        let shown = play(Plan {
            operations,
            ..best.0.clone()
        });
        if shown.2.is_empty() {
            low = operations;
        } else {
            best = shown;
        }
    }
    for fault in best.0.faults.clone() {
        let faults: BTreeSet<_> = best
            .0
            .faults
            .iter()
            .copied()
            .filter(|it| *it != fault)
            .collect();
        let shown = play(Plan {
            faults,
            ..best.0.clone()
        });
        if !shown.2.is_empty() {
            best = shown;
        }
    }
    best
}
