//! Workers that cannot be killed.

use std::path::{Path, PathBuf};
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

fn compiled(folder: &Path, text: &str, define: &str) -> PathBuf {
    let source = folder.join("worker.c");
    let program = folder.join("worker");
    std::fs::write(&source, text).unwrap();
    let mut compiler = std::process::Command::new("cc");
    let held = format!("-DHELD=\"{}\"", folder.join("held").display());
    compiler.args(["-pthread", define, &held, "-o"]);
    compiler.arg(&program).arg(&source);
    assert!(compiler.status().unwrap().success());
    program
}

/// A worker that cannot be killed as far as its parent sees: another process traces it and does not let go of what is left of it.
/// It says that it hangs on GPU 3 when it is asked (`AT_ONCE`) or else when its input ends.
fn unkillable_worker(folder: &Path, define: &str) -> PathBuf {
    std::fs::write(folder.join("held"), "").unwrap();
    let text = r#"
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <unistd.h>
int main(void) {
    int ready[2]; char b[64]; struct stat s; pid_t own = getpid();
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    if (pipe(ready) || fork() == 0) {
        close(0); close(1);
        alarm(60);
        ptrace(PTRACE_SEIZE, own, 0, 0);
        write(ready[1], "x", 1);
        while (stat(HELD, &s) == 0) usleep(20000);
        _exit(0);
    }
    read(ready[0], b, 1);
    while (read(0, b, sizeof b) > 0) if (AT_ONCE) break;
    puts("{\"hung\":{\"call\":\"nvmlDeviceGetUUID\",\"target\":{\"index\":3}}}");
    fflush(stdout);
    for (;;) pause();
}"#;
    compiled(folder, text, define)
}

fn sampler_of(program: PathBuf) -> Sampler {
    Sampler::start(SamplerConfig {
        program,
        ..SamplerConfig::default()
    })
}

async fn until_stuck(sampler: &mut Sampler) {
    let end = Instant::now() + Duration::from_secs(10);
    while sampler.morgue.stuck() == 0 {
        assert!(Instant::now() < end, "none is stuck");
        sampler.morgue.sweep();
        sampler.mind_library(1_000).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whoever is stuck on one GPU keeps workers away from that GPU, not from the others.
#[tokio::test]
async fn fault_a_rule_02_a_trial_that_is_stuck_on_a_gpu_counts_for_that_gpu() {
    let dir = tempfile::tempdir().unwrap();
    let mut sampler = sampler_of(unkillable_worker(dir.path(), "-DAT_ONCE=1"));
    sampler.renewal.noticed("a test".to_owned());
    until_stuck(&mut sampler).await;
    assert_eq!(sampler.morgue.stuck_on_none(), 0);
    assert_eq!(sampler.morgue.occupied(), [Target::Index(3)]);
}

#[tokio::test]
async fn fault_a_rule_02_a_quiesced_worker_says_where_it_is_stuck() {
    let dir = tempfile::tempdir().unwrap();
    let mut sampler = sampler_of(unkillable_worker(dir.path(), "-DAT_ONCE=0"));
    let pid = sampler.worker(0).unwrap().pid().unwrap();
    let left = sampler.quiesce(String::new(), Duration::from_millis(50));
    assert_eq!(left.await, [pid]);
    until_stuck(&mut sampler).await;
    assert_eq!(sampler.morgue.stuck_on_none(), 0);
    assert_eq!(sampler.morgue.occupied(), [Target::Index(3)]);
}

/// However often the driver is let go of and taken again: a GPU holds one worker.
#[tokio::test]
async fn fault_a_rule_02_a_probe_that_is_called_back_and_stays_is_counted_and_the_only_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut sampler = sampler_of(unkillable_worker(dir.path(), "-DAT_ONCE=0"));
    let pauses = (Duration::from_millis(1), Duration::from_millis(1));
    sampler.quarantine.add(Target::Index(1), pauses, 0);
    sampler.mind_quarantine(1_000).await;
    for _ in 0..2 {
        let why = String::new();
        let left = sampler.quiesce(why, Duration::from_millis(50)).await;
        assert_eq!(left.len(), 1);
        sampler.resume();
        sampler.mind_quarantine(2_000).await;
        assert_eq!(sampler.stats().workers_started, 1);
    }
    until_stuck(&mut sampler).await;
    sampler.mind_quarantine(3_000).await;
    let stats = sampler.stats();
    assert_eq!((stats.workers_started, stats.workers_abandoned), (1, 1));
    assert_eq!(sampler.morgue.stuck_on_none(), 0);
    // It wakes up.
    std::fs::remove_file(dir.path().join("held")).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while sampler.stats().workers_abandoned > 0 {
        assert!(Instant::now() < end);
        sampler.morgue.sweep();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sampler.mind_quarantine(4_000).await;
    assert_eq!(sampler.stats().workers_started, 2);
}

/// A probe and a trial that are in a call are left the time to come back from it.
#[tokio::test]
async fn rule_19_probes_and_trials_end_by_the_end_of_their_input() {
    let text = r#"
#include <stdio.h>
#include <unistd.h>
int main(void) {
    char b[64]; char name[4096];
    while (read(0, b, sizeof b) > 0);
    snprintf(name, sizeof name, HELD "%d", getpid());
    fclose(fopen(name, "w"));
}"#;
    let dir = tempfile::tempdir().unwrap();
    let mut sampler = sampler_of(compiled(dir.path(), text, "-DNONE"));
    let pauses = (Duration::from_millis(1), Duration::from_millis(1));
    sampler.quarantine.add(Target::Index(1), pauses, 0);
    sampler.mind_quarantine(1_000).await;
    sampler.renewal.noticed("a test".to_owned());
    sampler.mind_library(1_000).await;
    let pids = sampler.pids.clone();
    assert_eq!(pids.len(), 2);
    let why = String::new();
    let left = sampler.quiesce(why, Duration::from_secs(2)).await;
    assert_eq!(left, [] as [u32; 0]);
    for pid in pids {
        let held = dir.path().join(format!("held{pid}"));
        assert!(held.exists(), "killed");
    }
}

/// A process whose first thread has ended while another runs: what a killed worker looks like while one of its threads is in a call of
/// the driver. `/proc/PID/stat` calls it a zombie, and all that it had open is open.
fn half_dead(folder: &Path) -> Child {
    let text = "#include <pthread.h>\n#include <sys/syscall.h>\n#include <unistd.h>\n\
        static void *stay(void *x) { pause(); return x; }\n\
        int main(void) { pthread_t t; pthread_create(&t, 0, stay, 0); syscall(SYS_exit, 0); }\n";
    let program = compiled(folder, text, "-DNONE");
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
