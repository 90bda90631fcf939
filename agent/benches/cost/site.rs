//! A node for one measurement: a scenario with real processes on it, and the agent that reads it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;

use gpuquota_fake_nvml::link::{How, link};
use gpuquota_fake_nvml::scenario::{Process, Scenario};
use gpuquota_fake_nvml::{SCENARIO_VARIABLE, file};

use crate::Failure;

const CONFIG: &str = "[attribution]\n[[attribution.rule]]\nuser = \"root\"\ntenant = \"bench\"\n";

/// Where processes run.
#[derive(Clone, Copy)]
pub(crate) enum Places {
    /// 16, two on each GPU.
    Few,
    /// 16 on each instance.
    Full,
}

/// The node; what it started ends with it.
pub(crate) struct Site {
    dir: tempfile::TempDir,
    pub(crate) scenario: PathBuf,
    pub(crate) library: PathBuf,
    pub(crate) workloads: Workloads,
    pub(crate) processes: usize,
}

/// The running agent.
pub(crate) struct Agent {
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
}

impl Site {
    pub(crate) fn new(mut scenario: Scenario, places: Places) -> Result<Self, Failure> {
        let dir = tempfile::tempdir()?;
        let mut workloads = Workloads::default();
        let mut wanted = Vec::new();
        match places {
            Places::Few => wanted.extend((0..16).map(|at| (at % 8, at / 8))),
            Places::Full => {
                let instances = (0..8).flat_map(|gpu| (0..7).map(move |instance| (gpu, instance)));
                wanted.extend(instances.flat_map(|place| [place; 16]));
            }
        }
        for (gpu, instance) in &wanted {
            let child = Command::new("sleep").arg("100000").spawn()?;
            let gpu = gpu.to_string();
            let mut process = Process::new(&gpu, child.id());
            workloads.0.push(child);
            if let Some(instance) = scenario.gpu_mut(&gpu)?.mig.get(*instance) {
                process.gi = Some(instance.gi);
                process.ci = Some(instance.ci);
            }
            process.memory_mib = Some(64);
            scenario.add_process(process)?;
        }
        let path = dir.path().join("scenario.toml");
        file::write(&path, &scenario)?;
        let library = link(dir.path(), How::Copy)?;
        fs::write(dir.path().join("agent.toml"), CONFIG)?;
        Ok(Self {
            scenario: path,
            library,
            workloads,
            processes: wanted.len(),
            dir,
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the agent at 1 s.
    pub(crate) fn agent(&mut self) -> Result<Agent, Failure> {
        let mut agent = Command::new(env!("CARGO_BIN_EXE_gpuquota-agent"))
            .args(["run", "--standalone", "--interval", "1s"])
            .args(["--metrics", "127.0.0.1:0", "--dir"])
            .arg(self.dir.path())
            .arg("--nvml-library")
            .arg(&self.library)
            .env(SCENARIO_VARIABLE, &self.scenario)
            .env("RUST_LOG", "info")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let log = agent.stderr.take();
        let pid = agent.id();
        self.workloads.0.push(agent);
        let address = listens(log.ok_or("no log")?)?;
        Ok(Agent { pid, address })
    }
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

/// Ends what it started, however the run ends.
#[derive(Default)]
pub(crate) struct Workloads(pub(crate) Vec<Child>);

impl Drop for Workloads {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
