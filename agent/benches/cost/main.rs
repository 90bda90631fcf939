//! What the agent costs on a node: CPU seconds a minute and PSS of agent and worker at 1 s sampling, NVML calls of a pass, and
//! scrapes; with 8 GPUs and 16 processes, on full H100s and on A100s cut into 7 instances each. Beside it a loop in C that makes the
//! calls that the data needs, on the same library in the same minute. NVML is the fake, whose calls cost next to nothing, so
//! this is the agent's own part and the fake's (each call looks whether the scenario changed). Once more with calls that cost
//! 20 us, as ioctls do.
//!
//! `cargo bench -p gpuquota-agent --bench cost [-- --seconds 60]`

use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::Duration;

use gpuquota_agent::clock::boottime_ms;
use gpuquota_agent::gpu::sampler::{Sampler, SamplerConfig};

use gpuquota_fake_nvml::link::{How, link};
use gpuquota_fake_nvml::scenario::{Process, Scenario};
use gpuquota_fake_nvml::{SCENARIO_VARIABLE, file, preset};

mod figures;

use figures::{cpu, family, pss_kib, scrapes};

type Failure = Box<dyn Error>;

const PROCESSES: usize = 16;
/// As many as it takes until everything that is asked rarely was asked once.
const PASSES: u64 = 60;
const SCRAPES: usize = 1000;

fn main() -> Result<(), Failure> {
    let seconds = std::env::args().skip_while(|arg| arg != "--seconds").nth(1);
    let seconds: u64 = seconds.map_or(Ok(60), |text| text.parse())?;
    let full = preset::build("h100x8", "full")?;
    measure("8 full GPUs", full.clone(), seconds)?;
    let mut cut = preset::build("a100x8", "cut")?;
    for gpu in 0..8 {
        cut.slice(&gpu.to_string(), &["1g.10gb"; 7])?;
    }
    measure("8 GPUs x 7 MIG instances", cut.clone(), seconds)?;
    for (what, mut scenario) in [("8 full GPUs", full), ("8 GPUs x 7 MIG instances", cut)] {
        scenario.call_cost_us = 20;
        measure(&format!("{what}, a call costs 20 us"), scenario, seconds)?;
    }
    Ok(())
}

fn measure(what: &str, mut scenario: Scenario, seconds: u64) -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let mut workloads = Workloads::default();
    for at in 0..PROCESSES {
        let child = Command::new("sleep").arg("100000").spawn()?;
        let gpu = (at % 8).to_string();
        let mut process = Process::new(&gpu, child.id());
        let instances = scenario.gpu_mut(&gpu)?.mig.clone();
        if let Some(instance) = instances.get(at / 8) {
            process.gi = Some(instance.gi);
            process.ci = Some(instance.ci);
        }
        process.memory_mib = Some(1024);
        scenario.add_process(process)?;
        workloads.0.push(child);
    }
    let path = dir.path().join("scenario.toml");
    file::write(&path, &scenario)?;
    let library = link(dir.path(), How::Copy)?;
    fs::write(dir.path().join("agent.toml"), CONFIG)?;
    let minimal = Command::new(compiled(dir.path())?)
        .arg(&library)
        .env(SCENARIO_VARIABLE, &path)
        .stdout(Stdio::piped())
        .spawn()?;
    let minimal_pid = minimal.id();
    workloads.0.push(minimal);
    let said = workloads.0.last_mut().and_then(|child| child.stdout.take());
    let mut needed = String::new();
    BufReader::new(said.ok_or("no output")?).read_line(&mut needed)?;
    let needed: f64 = needed.trim().parse()?;
    let made = calls(&library, &path)?;

    let mut agent = Command::new(env!("CARGO_BIN_EXE_gpuquota-agent"))
        .args(["run", "--standalone", "--interval", "1s"])
        .args(["--metrics", "127.0.0.1:0", "--dir"])
        .arg(dir.path())
        .arg("--nvml-library")
        .arg(library)
        .env(SCENARIO_VARIABLE, &path)
        .env("RUST_LOG", "info")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let log = agent.stderr.take();
    let pid = agent.id();
    workloads.0.push(agent);
    let address = listens(log.ok_or("no log")?)?;
    // Start-up is paid once and not what a node costs.
    thread::sleep(Duration::from_secs(5));
    let pids = family(pid)?;
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
    let [agent, worker, minimal, _, waiting] = used[..] else {
        return Err("not one agent with one worker".into());
    };
    let pss = pids.iter().map(|pid| pss_kib(*pid));
    let pss: u64 = pss.sum::<Result<u64, _>>()?;
    println!("{what}, {PROCESSES} processes");
    println!(
        "  CPU s/min    agent {agent:.3} + worker {worker:.3} (its wait for events {waiting:.3}) = {:.3}; loop in C {minimal:.3}: {:.2} x",
        agent + worker,
        (agent + worker) / minimal
    );
    println!("  PSS          {:.1} MiB", pss as f64 / 1024.0);
    println!(
        "  NVML calls   {made:.1} a pass; needed {needed}: {:.2} x",
        made / needed
    );
    for path in ["/metrics", "/metrics?compat=dcgm"] {
        let (median, p99, bytes) = scrapes(address, path, SCRAPES)?;
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
        .arg("-ldl")
        .status()?;
    status
        .success()
        .then_some(program)
        .ok_or_else(|| "cc failed".into())
}

/// Where the agent says that its metrics are.
fn listens(log: ChildStderr) -> Result<SocketAddr, Failure> {
    let mut lines = BufReader::new(log).lines();
    let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let (_, rest) = line.split_once("metrics.address=")?;
        rest.split_whitespace().next()?.parse().ok()
    });
    // Whoever writes to a pipe that nobody reads is ended.
    thread::spawn(move || lines.for_each(drop));
    address.ok_or_else(|| "the agent does not run".into())
}

const CONFIG: &str = "[attribution]\n[[attribution.rule]]\nuser = \"root\"\ntenant = \"bench\"\n";

/// Ends what it started, however the run ends.
#[derive(Default)]
struct Workloads(Vec<Child>);

impl Drop for Workloads {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
