//! The story: what happens to the demo's nodes, turn by turn, and what must be seen of it.

use crate::phrases::{
    GPU, LARGE_MIG, SMALL_MIG, dedicated, gpu, gpus, held, mig, operator_gpu, operator_mig,
    processes, put, speech, start, step, up, used, vision,
};
use crate::quotas::VISION_LAB_LIMIT;
use crate::scene::{Act, Expect, Step};

const RAISED_LIMIT: u32 = 6;
const TRAINING: [&str; 4] = ["train-1", "train-2", "train-3", "train-4"];

/// All turns. It ends as it began, so that it can be told again.
pub(crate) fn story() -> Vec<Step> {
    let mut steps = within_quota();
    steps.extend(over_quota());
    steps.extend(others_devices());
    steps.extend(failures());
    steps.push(ending());
    steps.push(step(
        "the administrator takes the raise back",
        vec![put(VISION_LAB_LIMIT, 200)],
        vec![used(vision(), 0, VISION_LAB_LIMIT)],
    ));
    steps
}

fn within_quota() -> Vec<Step> {
    vec![
        step(
            "three nodes are up and nothing runs",
            vec![],
            vec![
                used(vision(), 0, VISION_LAB_LIMIT),
                used(operator_gpu(), 0, 1),
                used(operator_mig(), 0, 1),
                used(dedicated(), 0, 1),
                up("gpu01"),
                up("gpu-a100"),
                up("gpu02"),
                Expect::Violations(&[]),
            ],
        ),
        step(
            "vision-lab starts training on a GPU of gpu01",
            vec![start("train-0", "vision-lab", gpu("gpu01", 0))],
            vec![
                used(vision(), 1, VISION_LAB_LIMIT),
                held("gpu01", "vision-lab", GPU, 1),
            ],
        ),
        step(
            "a second process of vision-lab on the same GPU: a device counts once",
            vec![start("train-0b", "vision-lab", gpu("gpu01", 0))],
            vec![
                processes("gpu01", "vision-lab", 2),
                held("gpu01", "vision-lab", GPU, 1),
                used(vision(), 1, VISION_LAB_LIMIT),
            ],
        ),
        step(
            "a process on a MIG instance counts for the MIG model, not for a full GPU",
            vec![
                start("notebook", "platform-operator", mig(0, 7)),
                start("dictation", "speech-lab", mig(1, 1)),
            ],
            vec![
                used(operator_mig(), 1, 1),
                used(operator_gpu(), 0, 1),
                used(speech(), 1, 2),
                held("gpu-a100", "platform-operator", SMALL_MIG, 1),
                held("gpu-a100", "platform-operator", GPU, 0),
                held("gpu-a100", "speech-lab", LARGE_MIG, 1),
            ],
        ),
        step(
            "zjw1029 works on gpu02, the node that is dedicated to it",
            vec![start("render", "zjw1029", gpu("gpu02", 0))],
            vec![
                used(dedicated(), 1, 1),
                held("gpu02", "zjw1029", GPU, 1),
                Expect::Violations(&[]),
            ],
        ),
    ]
}

fn over_quota() -> Vec<Step> {
    let spread = TRAINING.iter().zip(1..4);
    vec![
        step(
            "vision-lab spreads over four GPUs: all of its quota, and no more",
            spread
                .map(|(job, index)| start(job, "vision-lab", gpu("gpu01", index)))
                .collect(),
            vec![
                used(vision(), 4, VISION_LAB_LIMIT),
                held("gpu01", "vision-lab", GPU, 4),
                Expect::Violations(&[]),
            ],
        ),
        step(
            "a fifth GPU: over quota, and shown as it is",
            vec![start(TRAINING[3], "vision-lab", gpu("gpu01", 4))],
            vec![
                used(vision(), 5, VISION_LAB_LIMIT),
                held("gpu01", "vision-lab", GPU, 5),
                Expect::Violations(&[("vision-lab", "gpu01", "over_quota", 1)]),
            ],
        ),
        step(
            "an administrator sets 3 while 5 are in use: refused with 409, nothing changes",
            vec![put(3, 409)],
            vec![used(vision(), 5, VISION_LAB_LIMIT)],
        ),
        step(
            "an administrator sets 6: what was over quota is justified",
            vec![put(RAISED_LIMIT, 200)],
            vec![used(vision(), 5, RAISED_LIMIT), Expect::Violations(&[])],
        ),
    ]
}

fn others_devices() -> Vec<Step> {
    vec![
        step(
            "platform-operator takes a GPU of gpu02, zjw1029's node: within its quota, but foreign there",
            vec![start("intruder", "platform-operator", gpu("gpu02", 1))],
            vec![
                used(operator_gpu(), 1, 1),
                used(dedicated(), 1, 1),
                held("gpu02", "platform-operator", GPU, 1),
                Expect::Violations(&[("platform-operator", "gpu02", "foreign", 1)]),
            ],
        ),
        step(
            "intern has no quota at all: a squatter; and nobody knows whose the process on another GPU is",
            vec![
                start("experiment", "intern", gpu("gpu01", 7)),
                Act::Start {
                    job: "unknown",
                    tenant: None,
                    place: gpu("gpu01", 6),
                },
            ],
            vec![
                held("gpu01", "intern", GPU, 1),
                processes("gpu01", "", 1),
                Expect::Unattributed {
                    node: "gpu01",
                    devices: 1,
                },
                Expect::Violations(&[
                    ("", "gpu01", "unattributed", 1),
                    ("intern", "gpu01", "squatter", 1),
                    ("platform-operator", "gpu02", "foreign", 1),
                ]),
            ],
        ),
    ]
}

fn failures() -> Vec<Step> {
    vec![
        step(
            "a GPU of gpu02 falls off the bus: lost, and still charged; the other one goes on",
            vec![Act::Lose {
                node: "gpu02",
                gpu: "0",
            }],
            vec![
                gpus("gpu02", "lost", 1),
                gpus("gpu02", "ok", 1),
                used(dedicated(), 1, 1),
                held("gpu02", "platform-operator", GPU, 1),
            ],
        ),
        step(
            "gpu02's agent is killed and its processes end unseen: silent, and still charged",
            vec![
                Act::KillAgent { node: "gpu02" },
                Act::End { job: "render" },
                Act::End { job: "intruder" },
            ],
            vec![
                Expect::Node {
                    node: "gpu02",
                    state: "silent",
                },
                used(dedicated(), 1, 1),
                used(operator_gpu(), 1, 1),
            ],
        ),
        step(
            "the GPU is reset, the agent is back and tells what is true: freed",
            vec![
                Act::Restore {
                    node: "gpu02",
                    gpu: "0",
                },
                Act::RestartAgent { node: "gpu02" },
            ],
            vec![
                up("gpu02"),
                gpus("gpu02", "ok", 2),
                used(dedicated(), 0, 1),
                used(operator_gpu(), 0, 1),
                held("gpu02", "zjw1029", GPU, 0),
                Expect::Violations(&[
                    ("", "gpu01", "unattributed", 1),
                    ("intern", "gpu01", "squatter", 1),
                ]),
            ],
        ),
        step(
            "the server is killed and starts again: nothing is lost, and the nodes come back",
            vec![Act::CrashServer],
            vec![
                used(vision(), 5, RAISED_LIMIT),
                used(operator_mig(), 1, 1),
                up("gpu01"),
                up("gpu-a100"),
                up("gpu02"),
                Expect::Sessions,
            ],
        ),
    ]
}

fn ending() -> Step {
    let jobs = [
        "train-0",
        "train-0b",
        "notebook",
        "dictation",
        "experiment",
        "unknown",
    ];
    step(
        "all work ends: every device is free again",
        jobs.iter()
            .chain(&TRAINING)
            .map(|job| Act::End { job })
            .collect(),
        vec![
            used(vision(), 0, RAISED_LIMIT),
            used(operator_mig(), 0, 1),
            used(speech(), 0, 2),
            held("gpu01", "vision-lab", GPU, 0),
            held("gpu-a100", "speech-lab", LARGE_MIG, 0),
            Expect::Unattributed {
                node: "gpu01",
                devices: 0,
            },
            Expect::Violations(&[]),
        ],
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_story_ends_as_it_began() {
        let (mut jobs, mut dead, mut lost) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for act in story().iter().flat_map(|step| &step.acts) {
            match act {
                Act::Start { job, .. } => assert!(jobs.insert(*job), "{job} starts twice"),
                Act::End { job } => assert!(jobs.remove(job), "{job} ends without a start"),
                Act::KillAgent { node } => assert!(dead.insert(*node)),
                Act::RestartAgent { node } => assert!(dead.remove(node)),
                Act::Lose { node, gpu } => assert!(lost.insert((*node, *gpu))),
                Act::Restore { node, gpu } => assert!(lost.remove(&(*node, *gpu))),
                Act::Put { .. } | Act::CrashServer => {}
            }
        }
        let all_over = jobs.is_empty() && dead.is_empty() && lost.is_empty();
        assert!(all_over, "{jobs:?} {dead:?} {lost:?}");
    }
}
