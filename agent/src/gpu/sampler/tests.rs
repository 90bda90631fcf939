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

/// A process whose first thread has ended while another runs: what a killed worker looks like while one of its threads is in a call of
/// the driver. `/proc/PID/stat` calls it a zombie, and all that it had open is open.
fn half_dead(folder: &std::path::Path) -> Child {
    let source = folder.join("half.c");
    let program = folder.join("half");
    let text = "#include <pthread.h>\n#include <sys/syscall.h>\n#include <unistd.h>\n\
        static void *stay(void *x) { pause(); return x; }\n\
        int main(void) { pthread_t t; pthread_create(&t, 0, stay, 0); syscall(SYS_exit, 0); }\n";
    std::fs::write(&source, text).unwrap();
    let mut compiler = std::process::Command::new("cc");
    compiler
        .arg("-pthread")
        .arg("-o")
        .arg(&program)
        .arg(&source);
    assert!(compiler.status().unwrap().success());
    Command::new(program).kill_on_drop(true).spawn().unwrap()
}

#[tokio::test]
async fn rule_13_a_worker_with_one_thread_left_in_the_driver_is_not_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut worker = half_dead(dir.path());
    let pid = worker.id().unwrap();
    let zombie = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.contains(") Z ")
    };
    for _ in 0..1000 {
        if zombie() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(zombie());
    let mut sampler = Sampler::start(SamplerConfig::default());
    sampler.pids.push(pid);
    let within = Duration::from_millis(50);
    assert_eq!(sampler.quiesce(String::new(), within).await, [pid]);
    worker.kill().await.unwrap();
    assert_eq!(sampler.quiesce(String::new(), within).await, [] as [u32; 0]);
}
