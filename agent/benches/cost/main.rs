//! What the agent costs on a node and how it does beside others, in parts; all by default, one with `--only PART`:
//!
//! - `cost`: CPU seconds a minute and PSS of agent and worker at 1 s sampling, NVML calls of a pass, and scrapes; with 8 GPUs and 16
//!   processes, on full H100s and on A100s cut into 7 instances each. Beside it a loop in C that makes the calls that the data needs,
//!   on the same library in the same minute. NVML is the fake, whose calls cost next to nothing, so this is the agent's own part and
//!   the fake's (each call looks whether the scenario changed). Once more with calls that cost 20 us, as ioctls do.
//! - `dense`: the same with 16 processes on each of 56 instances.
//! - `others`: CPU, PSS and scrapes of the agent, all-smi and nvitop-exporter, one after the other on the same scenario.
//! - `hang`: every call on one of 8 GPUs hangs while each of them runs: are scrapes answered in a second, is what changes on another GPU
//!   seen, is the GPU that hangs still shown with a temperature, and does a row name it as hung?
//! - `storm`: the agent's CPU while the node forks programs that use no GPU, as fast as it can, beside that of a quiet node.
//!
//! all-smi and nvitop-exporter are found in PATH, or where GPUQUOTA_ALL_SMI and GPUQUOTA_NVITOP_EXPORTER say
//! (`cargo install all-smi --version 0.22.0` with protoc and libdrm-dev; later ones need a newer Rust; `pip install nvitop-exporter`); one that
//! is not there is said to be ABSENT.
//!
//! `cargo bench -p gpuquota-agent --bench cost [-- --seconds 60 --only PART]`

use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use gpuquota_agent::clock::boottime_ms;
use gpuquota_agent::gpu::sampler::{Sampler, SamplerConfig};

use gpuquota_fake_nvml::scenario::Scenario;
use gpuquota_fake_nvml::{SCENARIO_VARIABLE, preset};

mod figures;
mod hang;
mod others;
mod site;
mod storm;

use figures::{cpu, family, pss_kib, scrapes};
use site::{Places, Site};

type Failure = Box<dyn Error>;

/// As many as it takes until everything that is asked rarely was asked once.
const PASSES: u64 = 60;
const SCRAPES: usize = 1000;

fn main() -> Result<(), Failure> {
    let seconds = std::env::args().skip_while(|arg| arg != "--seconds").nth(1);
    let seconds: u64 = seconds.map_or(Ok(60), |text| text.parse())?;
    let only = std::env::args().skip_while(|arg| arg != "--only").nth(1);
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let full = preset::build("h100x8", "full")?;
    let mut cut = preset::build("a100x8", "cut")?;
    for gpu in 0..8 {
        cut.slice(&gpu.to_string(), &["1g.10gb"; 7])?;
    }
    let kinds = [("8 full GPUs", &full), ("8 GPUs x 7 MIG instances", &cut)];
    if wanted("cost") {
        for (what, scenario) in kinds {
            measure(what, scenario.clone(), Places::Few, seconds)?;
        }
        for (what, scenario) in kinds {
            let mut scenario = scenario.clone();
            scenario.call_cost_us = 20;
            let what = format!("{what}, a call costs 20 us");
            measure(&what, scenario, Places::Few, seconds)?;
        }
    }
    if wanted("dense") {
        let what = "8 GPUs x 7 MIG instances x 16 processes";
        measure(what, cut.clone(), Places::Full, seconds)?;
    }
    if wanted("others") {
        for (what, scenario) in kinds {
            others::beside(what, scenario, seconds)?;
        }
    }
    if wanted("hang") {
        hang::compare(&full)?;
    }
    if wanted("storm") {
        storm::compare(&full, seconds)?;
    }
    Ok(())
}

fn measure(what: &str, scenario: Scenario, places: Places, seconds: u64) -> Result<(), Failure> {
    let mut site = Site::new(scenario, places)?;
    let library = site.library.clone();
    let minimal = Command::new(compiled(site.folder())?)
        .arg(&library)
        .env(SCENARIO_VARIABLE, &site.scenario)
        .stdout(Stdio::piped())
        .spawn()?;
    let minimal_pid = minimal.id();
    site.workloads.0.push(minimal);
    let said = site
        .workloads
        .0
        .last_mut()
        .and_then(|child| child.stdout.take());
    let mut needed = String::new();
    BufReader::new(said.ok_or("no output")?).read_line(&mut needed)?;
    let needed: f64 = needed.trim().parse()?;
    let made = calls(&library, &site.scenario)?;

    let agent = site.agent()?;
    // Start-up is paid once and not what a node costs.
    thread::sleep(Duration::from_secs(5));
    let pids = family(agent.pid)?;
    let all: Vec<u32> = pids.iter().copied().chain([minimal_pid]).collect();
    let spent = || {
        let each = all.iter().map(|pid| cpu(*pid, None));
        let waiting = pids.iter().map(|pid| cpu(*pid, Some("events")));
        each.chain(waiting).collect::<Result<Vec<_>, _>>()
    };
    let before = spent()?;
    thread::sleep(Duration::from_secs(seconds));
    let used: Vec<f64> = spent()?
        .iter()
        .zip(before)
        .map(|(now, before)| (*now - before).as_secs_f64() * 60.0 / seconds as f64)
        .collect();
    let [main, worker, minimal, _, waiting] = used[..] else {
        return Err("not one agent with one worker".into());
    };
    let pss = pids.iter().map(|pid| pss_kib(*pid));
    let pss: u64 = pss.sum::<Result<u64, _>>()?;
    println!("{what}, {} processes", site.processes);
    println!(
        "  CPU s/min    agent {main:.3} + worker {worker:.3} (its wait for events {waiting:.3}) = {:.3}; loop in C {minimal:.3}: {:.2} x",
        main + worker,
        (main + worker) / minimal
    );
    println!("  PSS          {:.1} MiB", pss as f64 / 1024.0);
    println!(
        "  NVML calls   {made:.1} a pass; needed {needed}: {:.2} x",
        made / needed
    );
    for path in ["/metrics", "/metrics?compat=dcgm"] {
        let (median, p99, bytes) = scrapes(agent.address, path, SCRAPES)?;
        println!("  {path}: median {median:.2?}, p99 {p99:.2?}, {bytes} bytes");
    }
    Ok(())
}

/// NVML calls of a pass on average, as the worker counts them.
fn calls(library: &Path, scenario: &Path) -> Result<f64, Failure> {
    // The worker inherits no scenario from this program.
    let script = scenario.with_file_name("worker");
    let text = format!(
        "#!/bin/sh\n{SCENARIO_VARIABLE}='{}' exec '{}' \"$@\"\n",
        scenario.display(),
        env!("CARGO_BIN_EXE_gpuquota-agent")
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut sampler = Sampler::start(SamplerConfig {
            program: script,
            nvml_library: Some(library.to_owned()),
            ..SamplerConfig::default()
        });
        sampler.sample(boottime_ms()).await;
        let before = sampler.stats().nvml_calls;
        for _ in 0..PASSES {
            sampler.sample(boottime_ms()).await;
        }
        let made = sampler.stats().nvml_calls - before;
        sampler.shutdown().await;
        Ok(made as f64 / PASSES as f64)
    })
}

fn compiled(folder: &Path) -> Result<PathBuf, Failure> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/cost/minimal.c");
    let program = folder.join("minimal");
    let status = Command::new("cc")
        .args(["-O2", "-Wall", "-o"])
        .arg(&program)
        .arg(source)
        .args(["-ldl", "-pthread"])
        .status()?;
    status
        .success()
        .then_some(program)
        .ok_or_else(|| "cc failed".into())
}
