//! Planted bugs: the simulator has to find each of them, or what it does not find says nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use gpuquota_core::mutant::{Mutant, plant};

use crate::plan::Plan;
use crate::{OPERATIONS, checker, scratch, story};

/// Histories in which a planted bug must show.
const WITHIN: u64 = 200;

// What a history breaks; a panic is a find too.
fn breaks(seed: u64, dir: &Path) -> Option<String> {
    let judged = catch_unwind(AssertUnwindSafe(|| {
        let history = story::play(&Plan::of(seed, OPERATIONS), dir);
        checker::check(&history)
    }));
    match judged {
        Ok(found) => found.first().map(ToString::to_string),
        Err(_) => Some("it panics".to_owned()),
    }
}

fn find(mutants: &[Mutant]) -> Vec<Mutant> {
    let dir = scratch();
    let mut missed = Vec::new();
    for mutant in mutants {
        plant(Some(*mutant));
        let found = (0..WITHIN).find_map(|seed| Some((seed, breaks(seed, dir.path())?)));
        plant(None);
        match found {
            Some((seed, how)) => println!("{mutant:?}: found by seed {seed}: {how}"),
            None => missed.push(*mutant),
        }
    }
    missed
}

#[test]
fn each_planted_bug_is_found_within_200_histories() {
    let (first, second) = Mutant::ALL.split_at(Mutant::ALL.len() / 2);
    let threads = [first, second].map(|half| std::thread::spawn(move || find(half)));
    let missed: Vec<Mutant> = threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
