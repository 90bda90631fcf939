//! A node that forks as fast as it can, none of it on a GPU.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use gpuquota_fake_nvml::scenario::Scenario;

use crate::Failure;
use crate::figures::{cpu, family, forks};
use crate::site::{Places, Site, Workloads};

/// Shells that fork, as many as there are cores on a small machine.
const SHELLS: usize = 2;

/// The agent's CPU on a quiet node and in the storm.
pub(crate) fn compare(scenario: &Scenario, seconds: u64) -> Result<(), Failure> {
    let mut site = Site::new(scenario.clone(), Places::Few)?;
    let agent = site.agent()?;
    thread::sleep(Duration::from_secs(5));
    let pids = family(agent.pid)?;
    let spent = || {
        pids.iter()
            .map(|pid| cpu(*pid, None))
            .sum::<Result<Duration, _>>()
    };
    let over = || {
        let (before, forked) = (spent()?, forks()?);
        thread::sleep(Duration::from_secs(seconds));
        let used = (spent()? - before).as_secs_f64() * 60.0 / seconds as f64;
        Ok::<_, Failure>((used, (forks()? - forked) / seconds))
    };
    let (quiet, few) = over()?;
    let mut storm = Workloads::default();
    for _ in 0..SHELLS {
        // The agent must have its turn, as on a node with more cores.
        let mut shell = Command::new("nice");
        shell.args(["-n", "19", "sh", "-c", "while :; do /bin/true; done"]);
        storm.0.push(shell.stdin(Stdio::null()).spawn()?);
    }
    let (stormy, many) = over()?;
    println!("8 full GPUs, 16 processes, a fork storm beside them");
    println!("  {:18}{:>12}{:>14}", "", "forks/s", "CPU s/min");
    println!("  {:18}{few:>12}{quiet:>14.3}", "quiet");
    println!(
        "  {:18}{many:>12}{stormy:>14.3}   {:.2} x",
        "storm",
        stormy / quiet
    );
    Ok(())
}
