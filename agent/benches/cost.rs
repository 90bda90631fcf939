//! What the agent costs on a node: CPU seconds a minute and PSS of agent and worker, at 1 s sampling, with 8 GPUs and 16
//! processes, on full H100s and on A100s cut into 7 instances each. NVML is the fake, whose calls cost next to nothing,
//! so this is the agent's own part.
//!
//! `cargo bench -p gpuquota-agent --bench cost [-- --seconds 60]`

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use gpuquota_fake_nvml::link::{How, link};
use gpuquota_fake_nvml::scenario::{Process, Scenario};
use gpuquota_fake_nvml::{SCENARIO_VARIABLE, file, preset};

type Failure = Box<dyn Error>;

const PROCESSES: usize = 16;
/// Ticks of `/proc/PID/stat` a second; fixed by Linux for user space.
const TICKS: f64 = 100.0;

fn main() -> Result<(), Failure> {
    let seconds = std::env::args().skip_while(|arg| arg != "--seconds").nth(1);
    let seconds: u64 = seconds.map_or(Ok(60), |text| text.parse())?;
    measure("8 full GPUs", preset::build("h100x8", "full")?, seconds)?;
    let mut cut = preset::build("a100x8", "cut")?;
    for gpu in 0..8 {
        cut.slice(&gpu.to_string(), &["1g.10gb"; 7])?;
    }
    measure("8 GPUs x 7 MIG instances", cut, seconds)
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
    let agent = Command::new(env!("CARGO_BIN_EXE_gpuquota-agent"))
        .args([
            "run",
            "--standalone",
            "--interval",
            "1s",
            "--metrics",
            "127.0.0.1:0",
            "--dir",
        ])
        .arg(dir.path())
        .arg("--nvml-library")
        .arg(library)
        .env(SCENARIO_VARIABLE, &path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = agent.id();
    workloads.0.push(agent);
    // Start-up is paid once and not what a node costs.
    thread::sleep(Duration::from_secs(5));
    let pids = family(pid)?;
    let before = ticks(&pids)?;
    thread::sleep(Duration::from_secs(seconds));
    let used = (ticks(&pids)? - before) / TICKS * 60.0 / seconds as f64;
    let pss: u64 = pids
        .iter()
        .map(|pid| pss_kib(*pid))
        .sum::<Result<u64, _>>()?;
    println!(
        "{what}, {PROCESSES} processes: {used:.3} CPU s/min, PSS {:.1} MiB in {} processes",
        pss as f64 / 1024.0,
        pids.len()
    );
    Ok(())
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

fn family(pid: u32) -> Result<Vec<u32>, Failure> {
    let mut pids = vec![pid];
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let children = fs::read_to_string(task?.path().join("children"))?;
        for child in children.split_whitespace() {
            pids.push(child.parse()?);
        }
    }
    Ok(pids)
}

fn ticks(pids: &[u32]) -> Result<f64, Failure> {
    let mut total = 0.0;
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, fields) = stat.rsplit_once(") ").ok_or("no comm in stat")?;
        // utime and stime are fields 14 and 15, that is 11 and 12 behind the name.
        for field in fields.split(' ').skip(11).take(2) {
            total += field.parse::<f64>()?;
        }
    }
    Ok(total)
}

fn pss_kib(pid: u32) -> Result<u64, Failure> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(Path::new(&path))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no Pss")?.parse()?)
}
