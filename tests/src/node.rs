//! A node: the unchanged agent over the fake NVML, with real processes on its GPUs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use gpuquota_fake_nvml::scenario::{Process, Scenario, ScenarioError};
use gpuquota_fake_nvml::{file, link, preset};

use crate::program::{Running, Workload, free_address, program, succeed};
use crate::rest::Rest;
use crate::scrape::Scrape;
use crate::server::Server;
use crate::wait::{SOON, until};

/// How often the agents of the tests look, in milliseconds.
pub const INTERVAL_MS: u64 = 200;

/// A GPU, or an instance of one.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// A whole GPU by index.
    Gpu(&'a str),
    /// A MIG instance: index of the GPU, GPU instance.
    Mig(&'a str, u32),
}

/// An agent's directory, its fake driver, and the agent while it runs.
#[derive(Debug)]
pub struct Node {
    /// Name in the certificate.
    pub name: String,
    /// `--dir`.
    pub dir: PathBuf,
    /// The scenario of the fake driver.
    pub scenario: PathBuf,
    /// The fake driver.
    pub library: PathBuf,
    /// The agent; `None` while it is stopped.
    pub process: Option<Running>,
    /// The agent's metrics listener.
    pub metrics: SocketAddr,
}

impl Node {
    /// A node of `server` with GPUs of this preset, not started.
    #[must_use]
    pub fn new(server: &Server, name: &str, gpus: &str) -> Self {
        let dir = server.issue_agent(name);
        let scenario = dir.join("scenario.toml");
        file::write(&scenario, &preset::build(gpus, name).unwrap()).unwrap();
        let library = link::link(&dir.join("lib"), link::How::Copy).unwrap_or_else(|e| {
            panic!("{e}: run `cargo build --workspace` first, as tests/run does")
        });
        let node = Self {
            name: name.to_owned(),
            dir,
            scenario,
            library,
            process: None,
            metrics: free_address(),
        };
        node.configure("[attribution]\nregistered = true\n");
        node
    }

    /// The same, started and up.
    pub async fn start(server: &Server, name: &str, gpus: &str) -> Self {
        let mut node = Self::new(server, name, gpus);
        node.run().await;
        node.up(&server.admin()).await;
        node
    }

    /// Adds lines to `agent.toml`.
    pub fn configure(&self, lines: &str) {
        let path = self.dir.join("agent.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        // Plain settings must stand before the first table.
        let text = if lines.starts_with('[') {
            text + lines
        } else {
            lines.to_owned() + &text
        };
        std::fs::write(&path, text).unwrap();
    }

    /// The command that runs this agent.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(program("gpuquota-agent"));
        command.arg("run").arg("--dir").arg(&self.dir);
        command.args(["--interval", &format!("{INTERVAL_MS}ms")]);
        command.arg("--metrics").arg(self.metrics.to_string());
        command.arg("--nvml-library").arg(&self.library);
        command.env("GPUQUOTA_FAKE_NVML", &self.scenario);
        command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
        command
    }

    /// Starts the agent and waits until it answers scrapes.
    pub async fn run(&mut self) {
        let name = format!("agent {}", self.name);
        self.process = Some(Running::start(&name, &mut self.command()));
        self.seen("agent shows its first reading", |scrape| {
            scrape
                .value("gpuquota_nvml_state", &[("state", "ok")])
                .is_some()
        })
        .await;
    }

    /// Waits until the server has the node up with its devices.
    pub async fn up(&self, admin: &Rest) {
        until(&format!("{} is up", self.name), SOON, async || {
            let node = admin.node(&self.name).await;
            let devices = node["devices"].as_array().map_or(0, Vec::len);
            if node["state"] == "up" && node["settled"] == true && devices > 0 {
                Ok(())
            } else {
                Err(node.to_string())
            }
        })
        .await;
    }

    /// The running agent.
    pub fn process(&mut self) -> &mut Running {
        self.process.as_mut().expect("the agent runs")
    }

    /// SIGKILL to the agent.
    pub fn kill9(&mut self) {
        self.process().kill9();
        self.process = None;
    }

    /// SIGTERM; the agent must end well.
    pub async fn stop(&mut self) {
        let status = self.process().terminate().await;
        assert!(status.success(), "the agent ended with {status}");
        self.process = None;
    }

    /// Changes the scenario.
    pub fn edit(&self, change: impl FnOnce(&mut Scenario) -> Result<(), ScenarioError>) {
        file::edit(&self.scenario, change).unwrap();
    }

    /// UUID of the GPU with this index.
    #[must_use]
    pub fn uuid(&self, index: usize) -> String {
        file::read(&self.scenario).unwrap().gpus[index].uuid.clone()
    }

    /// Registers a process for a tenant.
    pub fn register(&self, workload: &Workload, tenant: &str) {
        let mut command = Command::new(program("gpuquota-agent"));
        command.args([
            "register",
            "--pid",
            &workload.pid().to_string(),
            "--tenant",
            tenant,
        ]);
        succeed(command.arg("--dir").arg(&self.dir));
    }

    /// Lets the driver list a process.
    pub fn place(&self, workload: &Workload, place: Place<'_>) {
        let process = match place {
            Place::Gpu(gpu) => Process::new(gpu, workload.pid()),
            Place::Mig(gpu, gi) => Process {
                gi: Some(gi),
                ..Process::new(gpu, workload.pid())
            },
        };
        self.edit(|scenario| {
            scenario.add_process(Process {
                memory_mib: Some(512),
                ..process
            })
        });
    }

    /// A real process of a tenant that the driver lists from now on.
    #[must_use]
    pub fn workload(&self, tenant: &str, place: Place<'_>) -> Workload {
        let workload = Workload::start();
        self.register(&workload, tenant);
        self.place(&workload, place);
        workload
    }

    /// A scrape of the agent.
    pub async fn scrape(&self) -> Scrape {
        Scrape::of(self.metrics).await.unwrap()
    }

    /// Waits until a scrape of the agent is as wanted.
    pub async fn seen(&mut self, what: &str, wanted: impl Fn(&Scrape) -> bool) {
        let metrics = self.metrics;
        let process = self.process.as_mut().expect("the agent runs");
        until(what, SOON, async || {
            assert!(process.lives(), "the agent ended");
            let scrape = Scrape::of(metrics).await?;
            if wanted(&scrape) {
                Ok(())
            } else {
                Err(scrape.text)
            }
        })
        .await;
    }

    /// Process ids of the NVML workers below the agent.
    #[must_use]
    pub fn workers(&self) -> Vec<u32> {
        let agent = self.process.as_ref().expect("the agent runs");
        agent.descendants()
    }
}
