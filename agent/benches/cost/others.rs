//! Published exporters on the same scenario.

use std::env;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use gpuquota_fake_nvml::SCENARIO_VARIABLE;
use gpuquota_fake_nvml::scenario::Scenario;

use crate::Failure;
use crate::figures::{cpu, family, pss_kib, scrape, scrapes};
use crate::site::{Places, Site};

/// They may take long to import what they need.
const START: Duration = Duration::from_secs(30);
const SCRAPES: usize = 200;

/// A program that serves `/metrics`.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Program {
    Agent,
    AllSmi,
    Nvitop,
}

pub(crate) const PROGRAMS: [Program; 3] = [Program::Agent, Program::AllSmi, Program::Nvitop];

/// One that runs.
pub(crate) struct Running {
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
}

impl Program {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Agent => "gpuquota-agent",
            Self::AllSmi => "all-smi",
            Self::Nvitop => "nvitop-exporter",
        }
    }

    /// With the rows of temperature.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Agent => "/metrics?compat=dcgm",
            Self::AllSmi | Self::Nvitop => "/metrics",
        }
    }

    fn found(self) -> Option<PathBuf> {
        let variable = match self {
            Self::Agent => return None,
            Self::AllSmi => "GPUQUOTA_ALL_SMI",
            Self::Nvitop => "GPUQUOTA_NVITOP_EXPORTER",
        };
        let named = env::var_os(variable).map(PathBuf::from);
        let folders = env::var_os("PATH").unwrap_or_default();
        let mut in_path = env::split_paths(&folders).map(|folder| folder.join(self.name()));
        named.or_else(|| in_path.find(|path| path.is_file()))
    }

    /// Starts it and waits for its first answer; `None`, said aloud, where it is not installed.
    pub(crate) fn start(self, site: &mut Site) -> Result<Option<Running>, Failure> {
        if self == Self::Agent {
            let agent = site.agent()?;
            let (pid, address) = (agent.pid, agent.address);
            return Ok(Some(Running { pid, address }));
        }
        let Some(program) = self.found() else {
            println!("  ABSENT {}: not in PATH", self.name());
            return Ok(None);
        };
        // Free a moment ago; nobody else is expected to take it.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let port = address.port().to_string();
        let mut command = Command::new(program);
        match self {
            Self::AllSmi => command.args(["api", "--interval", "1", "--processes", "--port"]),
            Self::Nvitop | Self::Agent => command.args(["--interval", "1", "--port"]),
        };
        // all-smi looks for NVIDIA's GPUs only where nvidia-smi names one.
        let known = site.folder().join("nvidia-smi");
        fs::write(&known, "#!/bin/sh\necho 'GPU 0: NVIDIA (UUID: GPU-0)'\n")?;
        fs::set_permissions(&known, fs::Permissions::from_mode(0o755))?;
        let before = env::var_os("PATH").unwrap_or_default();
        let folders = env::split_paths(&before);
        let path = env::join_paths([site.folder().to_owned()].into_iter().chain(folders))?;
        let child = command
            .arg(port)
            .env("PATH", path)
            .env("LD_LIBRARY_PATH", site.folder())
            .env(SCENARIO_VARIABLE, &site.scenario)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pid = child.id();
        site.workloads.0.push(child);
        let pause = Duration::from_millis(200);
        for _ in 0..START.as_millis() / pause.as_millis() {
            if scrape(address, self.path(), Duration::from_secs(5))
                .is_ok_and(|text| rows(&text) > 0)
            {
                return Ok(Some(Running { pid, address }));
            }
            thread::sleep(pause);
        }
        println!("  ABSENT {}: it does not show the GPUs", self.name());
        Ok(None)
    }
}

/// Rows of GPU temperatures, whatever they are called.
pub(crate) fn temperatures(text: &str) -> impl Iterator<Item = &str> {
    let named = |line: &&str| {
        let name = line
            .split(['{', ' '])
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        !line.starts_with('#')
            && name.contains("temp")
            && !name.contains("mem")
            && !name.contains("cpu")
    };
    text.lines().filter(named)
}

pub(crate) fn rows(text: &str) -> usize {
    temperatures(text).count()
}

/// A table of what each costs on this scenario, one after the other.
pub(crate) fn beside(what: &str, scenario: &Scenario, seconds: u64) -> Result<(), Failure> {
    println!("{what}, 16 processes, beside others");
    println!(
        "  {:18}{:>12}{:>12}{:>14}{:>14}{:>10}",
        "", "CPU s/min", "PSS MiB", "scrape median", "scrape p99", "bytes"
    );
    for program in PROGRAMS {
        let mut site = Site::new(scenario.clone(), Places::Few)?;
        let Some(running) = program.start(&mut site)? else {
            continue;
        };
        thread::sleep(Duration::from_secs(5));
        let pids = family(running.pid)?;
        let spent = || {
            pids.iter()
                .map(|pid| cpu(*pid, None))
                .sum::<Result<Duration, _>>()
        };
        let before = spent()?;
        thread::sleep(Duration::from_secs(seconds));
        let used = (spent()? - before).as_secs_f64() * 60.0 / seconds as f64;
        let pss = pids
            .iter()
            .map(|pid| pss_kib(*pid))
            .sum::<Result<u64, _>>()?;
        let (median, p99, bytes) = scrapes(running.address, "/metrics", SCRAPES)?;
        println!(
            "  {:18}{used:>12.3}{:>12.1}{median:>14.2?}{p99:>14.2?}{bytes:>10}",
            program.name(),
            pss as f64 / 1024.0
        );
    }
    Ok(())
}
