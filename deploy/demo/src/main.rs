//! `cargo demo`: the whole system on this machine, with no privileges and nothing installed.

mod agent;
mod check;
mod cli;
mod client;
mod cluster;
mod exposition;
mod folder;
mod leash;
mod live;
mod phrases;
mod ports;
mod process;
mod programs;
mod quotas;
mod scene;
mod screen;
mod server;
mod story;
mod table;
mod tour;
mod world;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::cli::{Cli, Mode};
use crate::cluster::Cluster;
use crate::folder::{Folder, shown};
use crate::programs::{BuildPlace, Programs};
use crate::screen::Screen;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match &cli.mode {
        Some(Mode::Leash { parent, command }) => return leash::leash(*parent, command),
        Some(Mode::Workload) => return leash::work(),
        None => {}
    }
    // One thread, also because the kernel ends what is on a leash together with the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = runtime
        .context("cannot start")
        .and_then(|runtime| runtime.block_on(demo(&cli)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(cli: &Cli) -> Result<()> {
    let place = BuildPlace::find()?;
    let name = if cli.check {
        format!("demo-check-{}", std::process::id())
    } else {
        "demo".to_owned()
    };
    let folder = Folder::create(&place.target.join(name))?;
    let mut screen = Screen::new(cli.check);
    let mut ended = Ended::new()?;
    let outcome = tokio::select! {
        outcome = prepared(cli, &place, &folder, &mut screen) => outcome,
        signal = ended.wait() => Err(anyhow::anyhow!("{signal} before anything ran")),
    };
    let outcome = match outcome {
        Ok(programs) => {
            let mut cluster = Cluster::new(&folder, place.program.clone(), programs.clone());
            let outcome = tokio::select! {
                outcome = shown_to_people(cli, &mut cluster, &folder, &mut screen) => outcome,
                signal = ended.wait() => match cli.check {
                    true => Err(anyhow::anyhow!("{signal} before the end")),
                    false => Ok(()),
                },
            };
            let stopped = stopped(cli, &mut cluster, &mut screen).await;
            match outcome.and(stopped) {
                Ok(()) if cli.check => {
                    check::check_journal(&programs.server, &folder, &mut screen).await
                }
                outcome => outcome,
            }
        }
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) if cli.check => folder.remove(),
        Ok(()) => Ok(()),
        Err(error) => bail!("{error:#}\nlogs: {}", shown(&folder.logs())),
    }
}

async fn prepared(
    cli: &Cli,
    place: &BuildPlace,
    folder: &Folder,
    screen: &mut Screen,
) -> Result<Programs> {
    let begun = Instant::now();
    if !screen.is_terminal() {
        screen.say("building the server, the agent and the fake NVML")?;
    }
    let log = folder.logs().join("build.log");
    let mut trouble = None;
    let programs = place.build(&log, |line| {
        let text = format!("building, {} s: {line}", begun.elapsed().as_secs());
        trouble = screen.progress(&text).err();
    });
    let programs = programs.await?;
    trouble.map_or(Ok(()), Err)?;
    if cli.check {
        screen.say(&format!("ok: built ({} ms)", begun.elapsed().as_millis()))?;
    }
    Ok(programs)
}

async fn shown_to_people(
    cli: &Cli,
    cluster: &mut Cluster,
    folder: &Folder,
    screen: &mut Screen,
) -> Result<()> {
    let begun = Instant::now();
    screen.progress("starting a server and its nodes")?;
    cluster.start(folder, !cli.check).await?;
    tour::write_token(cluster, folder)?;
    if cli.check {
        let started = format!("{} nodes report to a server", cluster.agents.len());
        screen.say(&format!(
            "ok: {started} ({} ms)",
            begun.elapsed().as_millis()
        ))?;
        return check::check(cluster, folder, screen).await;
    }
    screen.say(&tour::introduction(cluster, folder)?)?;
    live::live(cluster, screen, cli.rounds).await
}

async fn stopped(cli: &Cli, cluster: &mut Cluster, screen: &mut Screen) -> Result<()> {
    let begun = Instant::now();
    screen.keep();
    let said = if cli.check {
        Ok(())
    } else {
        screen.say("\nstopping")
    };
    // Whether or not anybody reads.
    let killed = cluster.stop().await?;
    said?;
    if !killed.is_empty() {
        bail!("had to be killed: {}", killed.join(", "));
    }
    if cli.check {
        let milliseconds = begun.elapsed().as_millis();
        screen.say(&format!(
            "ok: everything ended by itself ({milliseconds} ms)"
        ))?;
    } else {
        screen.say("stopped; nothing runs any more")?;
    }
    Ok(())
}

/// The signals that end the demo.
struct Ended {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Ended {
    fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "interrupted",
            _ = self.terminate.recv() => "terminated",
            _ = self.hang_up.recv() => "hung up",
        }
    }
}
