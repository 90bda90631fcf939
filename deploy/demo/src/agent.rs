//! A node of the demo: its directory with a certificate, its GPUs, its agent.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use reqwest::Client;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::client::scrape;
use crate::ports;
use crate::process::{Invocation, Launcher, Service};
use crate::programs::Programs;

/// The name of a node with this machine's own GPUs.
pub(crate) const THIS_MACHINE: &str = "this-machine";
const FAKE_VARIABLE: &str = "GPUQUOTA_FAKE_NVML";
const LIBRARY_VARIABLE: &str = "LD_LIBRARY_PATH";
const START_DEADLINE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);
const TRIES: u32 = 3;

/// What a node is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Its name.
    pub(crate) name: &'static str,
    /// Where it stands.
    pub(crate) region: &'static str,
    /// Its GPUs, a preset of the fake NVML; `None`: those that this machine has.
    pub(crate) preset: Option<&'static str>,
    /// Where its metrics are, if that is free.
    pub(crate) port: u16,
}

/// The nodes of the story.
pub(crate) const PLANS: [Plan; 3] = [
    Plan {
        name: "gpu01",
        region: "US",
        preset: Some("h100x8"),
        port: 9401,
    },
    Plan {
        name: "gpu-a100",
        region: "US",
        preset: Some("a100-mig"),
        port: 9403,
    },
    Plan {
        name: "gpu02",
        region: "US",
        preset: Some("h100x2"),
        port: 9404,
    },
];

/// The node with this machine's own GPUs.
pub(crate) const OWN_PLAN: Plan = Plan {
    name: THIS_MACHINE,
    region: "US",
    preset: None,
    port: 9405,
};

/// A node.
#[derive(Debug)]
pub(crate) struct Agent {
    plan: Plan,
    /// Its directory.
    pub(crate) dir: PathBuf,
    /// `http://…/metrics`.
    pub(crate) metrics_url: String,
    // Where the fake library lies, and the scenario it plays.
    fake: Option<(PathBuf, PathBuf)>,
    // Without it the node is dead.
    service: Option<Service>,
}

impl Agent {
    /// Makes the node's directory and starts its agent.
    pub(crate) async fn start(
        launcher: &Launcher,
        programs: &Programs,
        server: &Path,
        dir: &Path,
        library: &Path,
        plan: Plan,
        usual_port: bool,
    ) -> Result<Self> {
        Invocation::new(&programs.server, &["issue-agent", "--node", plan.name])
            .option("--dir", server)
            .option("--out", dir)
            .output()
            .await?;
        let scenario = dir.join("scenario.toml");
        if let Some(preset) = plan.preset {
            Invocation::new(&programs.fake, &[])
                .option("--scenario", &scenario)
                .words(&["new", "--preset", preset, "--seed", plan.name])
                .output()
                .await?;
        }
        let config = dir.join("agent.toml");
        let issued = std::fs::read_to_string(&config)?;
        let mut usual = usual_port.then_some(plan.port);
        for attempt in 1.. {
            let port = ports::free(usual.take())?;
            std::fs::write(&config, configured(&issued, port))?;
            let mut agent = Self {
                plan,
                dir: dir.to_owned(),
                metrics_url: format!("http://127.0.0.1:{port}/metrics"),
                fake: plan.preset.map(|_| (library.to_owned(), scenario.clone())),
                service: None,
            };
            match agent.run(launcher, programs).await {
                Ok(()) => return Ok(agent),
                Err(error) if attempt < TRIES => drop(error),
                Err(error) => return Err(error),
            }
        }
        bail!("no agent for {}", plan.name)
    }

    /// Starts the agent on its directory and waits until it answers scrapes.
    pub(crate) async fn run(&mut self, launcher: &Launcher, programs: &Programs) -> Result<()> {
        let run = Invocation::new(&programs.agent, &["run"]).option("--dir", &self.dir);
        let name = format!("agent-{}", self.plan.name);
        let mut service = launcher.start(&name, &self.on_its_gpus(run))?;
        let http = crate::client::http()?;
        let deadline = Instant::now() + START_DEADLINE;
        while let Err(error) = self.scrape(&http).await {
            service.check_alive()?;
            if Instant::now() > deadline {
                let tail = service.log_tail();
                return Err(error.context(format!("{name} does not answer\n{tail}")));
            }
            sleep(POLL).await;
        }
        service.check_alive()?;
        self.service = Some(service);
        Ok(())
    }

    /// Gives a program the GPUs of this node.
    pub(crate) fn on_its_gpus(&self, what: Invocation) -> Invocation {
        match &self.fake {
            Some((library, scenario)) => what
                .variable(LIBRARY_VARIABLE, library)
                .variable(FAKE_VARIABLE, scenario),
            None => what.without(FAKE_VARIABLE),
        }
    }

    /// The same for a shell: assignments before a command.
    pub(crate) fn shell_variables(&self) -> String {
        let shown = crate::folder::shown;
        self.fake.as_ref().map_or_else(String::new, |(lib, file)| {
            let (library, scenario) = (shown(lib), shown(file));
            format!("{LIBRARY_VARIABLE}={library} {FAKE_VARIABLE}={scenario} ")
        })
    }

    /// The scenario of its GPUs.
    pub(crate) fn scenario(&self) -> Result<&Path> {
        let fake = self.fake.as_ref().map(|(_, scenario)| scenario.as_path());
        fake.with_context(|| format!("{} has GPUs of its own", self.plan.name))
    }

    /// Its metrics.
    pub(crate) async fn scrape(&self, http: &Client) -> Result<crate::exposition::Scrape> {
        scrape(http, &self.metrics_url).await
    }

    /// Whether the agent runs, or was killed by the story.
    pub(crate) fn runs(&self) -> bool {
        self.service.is_some()
    }

    /// An error when it ended although nobody killed it.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        self.service.as_mut().map_or(Ok(()), Service::check_alive)
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        match self.service.take() {
            Some(service) => service.kill().await,
            None => Ok(()),
        }
    }

    /// SIGTERM. Whether it ended by itself.
    pub(crate) async fn stop(&mut self, patience: Duration) -> Result<bool> {
        match self.service.take() {
            Some(service) => service.stop(patience).await,
            None => Ok(true),
        }
    }
}

/// Whether this machine has an NVML that answers, and GPUs.
pub(crate) async fn has_gpus(programs: &Programs) -> bool {
    let look = Invocation::new(&programs.agent, &["devices", "--json"]).without(FAKE_VARIABLE);
    let Ok(seen) = look.output().await else {
        return false;
    };
    let seen: Value = serde_json::from_str(&seen).unwrap_or_default();
    let devices = seen.get("devices").and_then(Value::as_array);
    devices.is_some_and(|devices| !devices.is_empty())
}

fn configured(issued: &str, port: u16) -> String {
    format!(
        "{issued}interval = \"500ms\"\n\n[metrics]\nlisten = \"127.0.0.1:{port}\"\n\n# The demo has no privileges: \
         it says whose its processes are.\n[attribution]\nregistered = true\n"
    )
}
