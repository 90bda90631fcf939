//! A node of its own for each test: a scenario, workloads, and a sampler that reads it.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gpuquota_agent::clock::boottime_ms;
use gpuquota_agent::gpu::reading::{GpuReading, Health, NvmlState, Reading};
use gpuquota_agent::gpu::sampler::{Collected, Sampler, SamplerConfig};
use gpuquota_agent::sysfs::PciBus;
use gpuquota_fake_nvml::scenario::{Action, Fault, Process, Scenario, ScenarioError};
use gpuquota_fake_nvml::{SCENARIO_VARIABLE, file, link, preset};
use rustix::process::Pid;

/// A GPU call that takes longer has hung.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_millis(400);
/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Node {
    folder: tempfile::TempDir,
    workloads: RefCell<Vec<Child>>,
}

impl Node {
    pub(crate) fn new(name: &str) -> Self {
        let node = Self {
            folder: tempfile::tempdir().unwrap(),
            workloads: RefCell::default(),
        };
        fs::set_permissions(node.path(), fs::Permissions::from_mode(0o755)).unwrap();
        file::write(&node.scenario(), &preset::build(name, "seeing").unwrap()).unwrap();
        link::link(&node.path().join("lib"), link::How::Copy).unwrap();
        node
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn scenario(&self) -> PathBuf {
        self.path().join("node.toml")
    }

    /// In place of `/sys`, so that the machine below the test does not show.
    pub(crate) fn sysfs(&self) -> PathBuf {
        self.path().join("sys")
    }

    pub(crate) fn library(&self) -> PathBuf {
        self.path().join("lib").join(link::SONAME)
    }

    pub(crate) fn edit<R>(
        &self,
        change: impl FnOnce(&mut Scenario) -> Result<R, ScenarioError>,
    ) -> R {
        file::edit(&self.scenario(), change).unwrap()
    }

    pub(crate) fn fault(&self, function: &str, gpu: Option<&str>, action: Action) {
        let fault = Fault {
            gpu: gpu.map(str::to_owned),
            ..Fault::new(function, action)
        };
        self.edit(|node| node.add_fault(fault));
    }

    pub(crate) fn answer(&self, function: &str, gpu: Option<&str>, code: u32) {
        let fault = Fault {
            gpu: gpu.map(str::to_owned),
            code: Some(code),
            ..Fault::new(function, Action::Return)
        };
        self.edit(|node| node.add_fault(fault));
    }

    pub(crate) fn heal(&self) {
        self.edit(|node| Ok(node.clear_faults(None)));
    }

    /// A real process that uses no GPU yet.
    pub(crate) fn workload(&self) -> u32 {
        let child = Command::new("sleep")
            .arg("600")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id();
        self.workloads.borrow_mut().push(child);
        pid
    }

    pub(crate) fn kill(&self, pid: u32) {
        let mut workloads = self.workloads.borrow_mut();
        let child = workloads
            .iter_mut()
            .find(|child| child.id() == pid)
            .unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// A process with 1 GiB on a GPU, or on an instance of it.
    pub(crate) fn run_on(&self, gpu: &str, place: Option<(u32, u32)>) -> u32 {
        let pid = self.workload();
        let process = Process {
            memory_mib: Some(1024),
            gi: place.map(|(gi, _)| gi),
            ci: place.map(|(_, ci)| ci),
            ..Process::new(gpu, pid)
        };
        self.edit(|node| node.add_process(process));
        pid
    }

    /// The program that samplers start as a worker. A script, because the worker inherits its environment and all tests share
    /// one. Written by another process: none of this one's children must hold it open for writing when it is run.
    fn worker_program(&self, before: &str) -> PathBuf {
        let path = self.path().join("worker");
        let script = format!(
            "#!/bin/sh\n{before}\n{SCENARIO_VARIABLE}='{}' exec '{}' \"$@\"\n",
            self.scenario().display(),
            env!("CARGO_BIN_EXE_gpuquota-agent"),
        );
        let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
        let status = Command::new("sh")
            .args(["-c", write, "sh", &script])
            .arg(&path)
            .status()
            .unwrap();
        assert!(status.success());
        path
    }

    pub(crate) fn sampler(&self) -> Sampler {
        self.sampler_with("")
    }

    /// A sampler whose workers run these shell commands before they become the agent.
    pub(crate) fn sampler_with(&self, before: &str) -> Sampler {
        self.sampler_waiting(before, CALL_DEADLINE)
    }

    /// The same with another deadline for calls.
    pub(crate) fn sampler_waiting(&self, before: &str, call_deadline: Duration) -> Sampler {
        let ms = Duration::from_millis;
        Sampler::start(SamplerConfig {
            program: self.worker_program(before),
            nvml_library: Some(self.library()),
            call_deadline,
            retry: (ms(20), ms(50)),
            probe: (ms(50), ms(200)),
            lost: (ms(200), ms(400)),
            bus: PciBus::new(&self.sysfs()),
            events: Some((ms(200), ms(400))),
            renewal: (ms(50), ms(200)),
            ..SamplerConfig::default()
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for child in self.workloads.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

/// A sample that must come within the promised time.
pub(crate) async fn timely(sampler: &mut Sampler) -> Collected {
    let sample = sampler.sample(boottime_ms());
    // Four deadlines, and some air for a busy machine.
    let limit = CALL_DEADLINE * 4 + Duration::from_secs(3);
    tokio::time::timeout(limit, sample).await.unwrap()
}

/// One sample that must answer.
pub(crate) async fn reading(sampler: &mut Sampler) -> Reading {
    let collected = sampler.sample(boottime_ms()).await;
    assert_eq!(collected.nvml, NvmlState::Ok);
    collected.reading.unwrap()
}

/// Samples until one is as wanted.
pub(crate) async fn sample_until(
    sampler: &mut Sampler,
    wanted: impl Fn(&Collected) -> bool,
) -> Collected {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let collected = sampler.sample(boottime_ms()).await;
        if wanted(&collected) {
            return collected;
        }
        assert!(tokio::time::Instant::now() < end, "{collected:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn healths(reading: &Reading) -> Vec<Health> {
    reading.gpus.iter().map(|gpu| gpu.health).collect()
}

pub(crate) fn pids(gpu: &GpuReading) -> Vec<u32> {
    gpu.processes
        .iter()
        .flatten()
        .filter_map(|process| process.pid)
        .collect()
}
