//! Workers that cannot be killed, which no test can make for real.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::*;
use crate::gpu::protocol::Target;

fn unkillable() -> Child {
    Command::new("cat")
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Case 72: the driver swallows two workers, and later lets go of one.
#[tokio::test]
async fn fault_a_rule_02_two_stuck_workers_are_enough() {
    let config = SamplerConfig {
        program: PathBuf::from("/no/such/program"),
        ..SamplerConfig::default()
    };
    let mut sampler = Sampler::start(config);
    sampler.morgue.keep(unkillable(), None);
    let state = sampler.sample(1_000).await.nvml;
    assert!(
        matches!(state, NvmlState::Broken(_)),
        "one more is tried: {state:?}"
    );
    sampler.morgue.keep(unkillable(), None);
    let state = sampler.sample(1_001).await.nvml;
    assert!(
        matches!(state, NvmlState::Broken(_)),
        "not before the pause is over: {state:?}"
    );
    let state = sampler.sample(60_000).await.nvml;
    assert!(
        matches!(&state, NvmlState::Unresponsive(detail) if detail.contains("stuck")),
        "{state:?}"
    );
    assert_eq!(sampler.stats().workers_abandoned, 2);
    assert_eq!(sampler.stats().workers_started, 0);

    sampler.morgue.stuck_mut()[0].0.kill().await.unwrap();
    let state = sampler.sample(120_000).await.nvml;
    assert!(matches!(state, NvmlState::Broken(_)), "{state:?}");
    assert_eq!(sampler.stats().workers_abandoned, 1);
}

/// While a worker is stuck, a GPU in quarantine is not probed: the probe would only get stuck, too.
#[tokio::test]
async fn a_stuck_worker_keeps_probes_away() {
    let mut sampler = Sampler::start(SamplerConfig {
        program: PathBuf::from("/bin/cat"),
        ..SamplerConfig::default()
    });
    let pauses = (Duration::from_millis(1), Duration::from_millis(1));
    sampler.quarantine.add(Target::Index(0), pauses, 0);
    sampler.morgue.keep(unkillable(), None);
    sampler.mind_quarantine(1_000).await;
    assert_eq!(sampler.stats().workers_started, 0);
    sampler.morgue.stuck_mut()[0].0.kill().await.unwrap();
    sampler.morgue.sweep();
    sampler.mind_quarantine(1_000).await;
    assert_eq!(sampler.stats().workers_started, 1);
}

/// Three GPUs hold a worker each for ever: the next worker is started all the same, and none of the three is probed.
#[tokio::test]
async fn fault_a_rule_02_workers_stuck_on_gpus_leave_the_other_gpus_readable() {
    let mut sampler = Sampler::start(SamplerConfig {
        program: PathBuf::from("/no/such/program"),
        ..SamplerConfig::default()
    });
    let pauses = (Duration::from_millis(1), Duration::from_millis(1));
    for gpu in 0..3 {
        sampler.quarantine.add(Target::Index(gpu), pauses, 0);
        sampler.morgue.keep(unkillable(), Some(Target::Index(gpu)));
    }
    let state = sampler.sample(1_000).await.nvml;
    assert!(
        matches!(state, NvmlState::Broken(_)),
        "one is tried: {state:?}"
    );
    assert_eq!(sampler.stats().workers_abandoned, 3);
    sampler.config.program = PathBuf::from("/bin/cat");
    sampler.mind_quarantine(2_000).await;
    assert_eq!(sampler.stats().workers_started, 0, "all are occupied");
    sampler.morgue.stuck_mut()[0].0.kill().await.unwrap();
    sampler.morgue.sweep();
    sampler.mind_quarantine(3_000).await;
    assert_eq!(sampler.stats().workers_started, 1, "one woke up");
}
