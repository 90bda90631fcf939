//! All that the demo runs, and what a story can do to it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use crate::agent::{Agent, OWN_PLAN, PLANS, Plan, has_gpus};
use crate::client::scrape;
use crate::folder::Folder;
use crate::process::{Invocation, Launcher};
use crate::programs::Programs;
use crate::quotas;
use crate::scene::{Act, Place};
use crate::server::{Declared, Server, USUAL_PORTS};
use crate::world::World;

const PATIENCE: Duration = Duration::from_secs(8);
const NODES_DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);

/// All that the demo runs.
#[derive(Debug)]
pub(crate) struct Cluster {
    launcher: Launcher,
    /// Its programs.
    pub(crate) programs: Programs,
    /// The fake library under NVML's name.
    library: PathBuf,
    server: Option<Server>,
    /// Nodes by name.
    pub(crate) agents: BTreeMap<&'static str, Agent>,
    jobs: BTreeMap<&'static str, Job>,
}

#[derive(Debug)]
struct Job {
    child: Child,
    pid: u32,
    node: &'static str,
}

impl Cluster {
    /// Nothing runs yet.
    pub(crate) fn new(folder: &Folder, demo: PathBuf, programs: Programs) -> Self {
        Self {
            launcher: Launcher {
                demo,
                logs: folder.logs(),
            },
            library: folder.at("lib"),
            programs,
            server: None,
            agents: BTreeMap::new(),
            jobs: BTreeMap::new(),
        }
    }

    /// Starts the server, the nodes, and loads the quotas. `usual_ports`: the documented ones, where they are free.
    pub(crate) async fn start(&mut self, folder: &Folder, usual_ports: bool) -> Result<()> {
        Invocation::new(&self.programs.fake, &["link"])
            .option("--dir", &self.library)
            .output()
            .await?;
        let mut plans: Vec<Plan> = PLANS.to_vec();
        if has_gpus(&self.programs).await {
            plans.push(OWN_PLAN);
        }
        let declared: Vec<Declared<'_>> = plans
            .iter()
            .map(|plan| Declared {
                name: plan.name,
                region: plan.region,
            })
            .collect();
        let server = Server::start(
            &self.launcher,
            &self.programs,
            &folder.at("server"),
            &declared,
            usual_ports.then_some(USUAL_PORTS),
        )
        .await?;
        let server = self.server.insert(server);
        quotas::load(&server.rest).await?;
        for plan in plans {
            let agent = Agent::start(
                &self.launcher,
                &self.programs,
                &server.dir,
                &folder.at("agents").join(plan.name),
                &self.library,
                plan,
                usual_ports,
            )
            .await?;
            self.agents.insert(plan.name, agent);
        }
        self.wait_for_nodes().await
    }

    async fn wait_for_nodes(&mut self) -> Result<()> {
        let deadline = Instant::now() + NODES_DEADLINE;
        loop {
            self.check_alive()?;
            let world = self.look().await?;
            let absent: Vec<&str> = world
                .nodes
                .iter()
                .filter(|node| node.state != "up" || node.devices.is_empty())
                .map(|node| node.name.as_str())
                .collect();
            if absent.is_empty() && world.nodes.len() == self.agents.len() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("no report from {}", absent.join(", "));
            }
            sleep(POLL).await;
        }
    }

    /// The server.
    pub(crate) fn server(&self) -> Result<&Server> {
        self.server.as_ref().context("no server runs")
    }

    /// What REST and all `/metrics` say now.
    pub(crate) async fn look(&self) -> Result<World> {
        let server = self.server()?;
        let listing = server.rest.quotas().await?;
        let nodes = server.rest.nodes().await?;
        let metrics = scrape(&server.rest.http, &server.metrics_url).await?;
        let mut agents = BTreeMap::new();
        for (name, agent) in &self.agents {
            if agent.runs() {
                let scraped = agent.scrape(&server.rest.http).await;
                let scraped = scraped.with_context(|| format!("{name} answers no scrape"))?;
                agents.insert((*name).to_owned(), scraped);
            }
        }
        Ok(World::new(listing, &nodes, metrics, agents))
    }

    /// An error when something ended that should run.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        if let Some(server) = &mut self.server {
            server.check_alive()?;
        }
        self.agents.values_mut().try_for_each(Agent::check_alive)
    }

    /// Does what a story says.
    pub(crate) async fn perform(&mut self, act: &Act) -> Result<()> {
        match act {
            Act::Start { job, tenant, place } => self.start_job(job, *tenant, place).await,
            Act::End { job } => self.end_job(job).await,
            Act::Put {
                tenant,
                body,
                status,
            } => {
                let answer = self.server()?.rest.put_quota(tenant, body).await?;
                if answer.status != *status {
                    bail!("PUT {tenant} {body}: {status} was expected, not {answer:?}");
                }
                Ok(())
            }
            Act::KillAgent { node } => self.agent(node)?.kill().await,
            Act::RestartAgent { node } => {
                let (launcher, programs) = (self.launcher.clone(), self.programs.clone());
                self.agent(node)?.run(&launcher, &programs).await
            }
            Act::Lose { node, gpu } => self.edit_gpu(node, "lose", gpu).await,
            Act::Restore { node, gpu } => self.edit_gpu(node, "restore", gpu).await,
            Act::CrashServer => {
                let server = self.server.take().context("no server runs")?;
                let server = server.crash_and_restart(&self.launcher, &self.programs);
                self.server = Some(server.await?);
                Ok(())
            }
        }
    }

    async fn edit_gpu(&mut self, node: &str, edit: &str, gpu: &str) -> Result<()> {
        let scenario = self.agent(node)?.scenario()?.to_owned();
        Invocation::new(&self.programs.fake, &[])
            .option("--scenario", scenario)
            .words(&[edit, "--gpu", gpu])
            .output()
            .await
            .map(drop)
    }

    fn agent(&mut self, node: &str) -> Result<&mut Agent> {
        let agent = self.agents.get_mut(node);
        agent.with_context(|| format!("there is no node {node}"))
    }

    async fn start_job(
        &mut self,
        job: &'static str,
        tenant: Option<&str>,
        place: &Place,
    ) -> Result<()> {
        let child = self.launcher.start_workload()?;
        let pid = child.id().context("the workload ended at once")?;
        let agent = self.agent(place.node)?;
        let (dir, scenario) = (agent.dir.clone(), agent.scenario()?.to_owned());
        // First whose it is, then where it is: never seen without an owner.
        if let Some(tenant) = tenant {
            Invocation::new(&self.programs.agent, &["register", "--tenant", tenant])
                .option("--pid", pid.to_string())
                .option("--dir", dir)
                .output()
                .await?;
        }
        let mut listing = Invocation::new(&self.programs.fake, &[])
            .option("--scenario", scenario)
            .words(&["add-process"])
            .option("--pid", pid.to_string())
            .option("--gpu", place.gpu.to_string())
            .option("--memory-mib", place.memory_mib.to_string())
            .option("--sm-percent", "80");
        if let Some((gi, ci)) = place.instance {
            let (gi, ci) = (gi.to_string(), ci.to_string());
            listing = listing.option("--gi", gi).option("--ci", ci);
        }
        listing.output().await?;
        let node = place.node;
        self.jobs.insert(job, Job { child, pid, node });
        Ok(())
    }

    async fn end_job(&mut self, name: &str) -> Result<()> {
        let Some(mut job) = self.jobs.remove(name) else {
            return Ok(());
        };
        job.child.kill().await?;
        let scenario = self.agent(job.node)?.scenario()?.to_owned();
        // The library lists no process that has ended; this only keeps the file short.
        Invocation::new(&self.programs.fake, &[])
            .option("--scenario", scenario)
            .words(&["remove-process"])
            .option("--pid", job.pid.to_string())
            .output()
            .await?;
        Ok(())
    }

    /// Ends everything in order: workloads, agents, server. Names what had to be killed.
    pub(crate) async fn stop(&mut self) -> Result<Vec<String>> {
        for mut job in std::mem::take(&mut self.jobs).into_values() {
            job.child.kill().await?;
        }
        let mut killed = Vec::new();
        for (name, mut agent) in std::mem::take(&mut self.agents) {
            if !agent.stop(PATIENCE).await? {
                killed.push(format!("the agent of {name}"));
            }
        }
        if let Some(server) = self.server.take()
            && !server.stop(PATIENCE).await?
        {
            killed.push("the server".to_owned());
        }
        Ok(killed)
    }
}
