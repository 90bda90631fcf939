//! Drivers that tell the truth, and drivers that call a process by two pids.

use proptest::prelude::*;

use super::*;
use crate::gpu::usage::{newest, since};

const STEP_US: u64 = 100_000;
const START_US: u64 = 1_000_000_000;

/// A process of a driver that tells the truth: it is listed and sampled while it holds the GPU.
#[derive(Clone, Debug)]
struct Run {
    pid: u32,
    /// As the samples name it.
    sampled_as: u32,
    from: u64,
    to: u64,
    /// Whether it works, step by step.
    work: Vec<bool>,
}

/// Passes of ten steps: the list at step 1 of each, the samples at step 2. Whether it was in doubt after each.
fn passes(runs: &[Run], count: u64) -> Vec<bool> {
    let mut agreement = Agreement::default();
    let mut newest_us = 0;
    let pass = |pass: u64| {
        let (list, asked) = (pass * 10 + 1, pass * 10 + 2);
        let mut listed: Vec<u32> = runs
            .iter()
            .filter(|run| (run.from..run.to).contains(&list))
            .map(|run| run.pid)
            .collect();
        listed.sort_unstable();
        let mut samples = Vec::new();
        for run in runs {
            let at_work = (run.from..run.to.min(asked + 1)).zip(run.work.iter().cycle());
            samples.extend(at_work.map(|(step, work)| Sample {
                pid: run.sampled_as,
                at_us: START_US + step * STEP_US,
                sm: u32::from(*work) * 50,
                memory: 0,
            }));
        }
        let now_us = START_US + asked * STEP_US - STEP_US / 2;
        if listed.is_empty() {
            agreement.skip();
        } else {
            let (rows, latest) = newest(&samples, since(newest_us, now_us), now_us);
            newest_us = newest_us.max(latest);
            agreement.compare(&listed, &rows, now_us);
        }
        agreement.is_contradicted()
    };
    (0..count).map(pass).collect()
}

fn runs() -> impl Strategy<Value = Vec<Run>> {
    let run = (
        0_u64..80,
        1_u64..40,
        prop::collection::vec(any::<bool>(), 1..8),
    );
    prop::collection::vec(run, 1..12).prop_map(|runs| {
        let numbered = runs.into_iter().zip(1_u32..);
        let run = |((from, steps, work), pid)| Run {
            pid,
            sampled_as: pid,
            from,
            to: from + steps,
            work,
        };
        numbered.map(run).collect()
    })
}

fn always(pid: u32, sampled_as: u32, from: u64, to: u64) -> Run {
    Run {
        pid,
        sampled_as,
        from,
        to,
        work: vec![true],
    }
}

proptest! {
    /// Whenever processes begin, pause and end: a driver that tells the truth is never doubted.
    #[test]
    fn rule_07_processes_that_come_and_go_raise_no_doubt(mut runs in runs()) {
        runs.push(always(1000, 1000, 0, 200));
        prop_assert_eq!(passes(&runs, 12), vec![false; 12]);
    }
}

#[test]
fn rule_07_a_pid_at_work_on_no_list_is_a_contradiction_until_samples_name_the_list() {
    // Alone, and beside one that both answers name.
    let other = always(7, 5000, 0, 1000);
    let expected = [false, false, false, true, true, true];
    assert_eq!(passes(std::slice::from_ref(&other), 6), expected);
    let beside = always(8, 8, 0, 1000);
    assert_eq!(passes(&[other.clone(), beside], 6), expected);
    // It ends: what stays in doubt is what no sample names, whoever else works.
    let ends = Run { to: 55, ..other };
    let from_third = |second: Run| passes(&[ends.clone(), second], 12).split_off(3);
    let six = [true, true, true, true, true, true, false, false, false];
    assert_eq!(from_third(always(10, 10, 0, 200)), six);
    let idle = Run {
        sampled_as: 0,
        ..always(9, 9, 60, 200)
    };
    assert_eq!(from_third(idle), [true; 9]);
    // A list of nobody proves nothing either; the next one is confirmed first.
    let eight = [true, true, true, true, true, true, true, true, false];
    assert_eq!(from_third(always(11, 11, 95, 200)), eight);
}
