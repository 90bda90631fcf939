//! Starting, watching and ending the demo's processes.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

const LOG_LINES: usize = 12;

/// How processes are started: by which program they are leashed and where they log.
#[derive(Clone, Debug)]
pub(crate) struct Launcher {
    /// The demo itself.
    pub(crate) demo: PathBuf,
    /// Folder for logs.
    pub(crate) logs: PathBuf,
}

/// A program with its arguments and environment.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    program: PathBuf,
    arguments: Vec<std::ffi::OsString>,
    variables: Vec<(&'static str, PathBuf)>,
    // Must not be inherited from whoever started the demo.
    without: Vec<&'static str>,
}

impl Invocation {
    /// `program` with the fixed words `words`.
    pub(crate) fn new(program: &Path, words: &[&str]) -> Self {
        Self {
            program: program.to_owned(),
            arguments: words.iter().map(Into::into).collect(),
            variables: Vec::new(),
            without: vec!["RUST_LOG"],
        }
    }

    /// Adds more fixed words.
    pub(crate) fn words(mut self, words: &[&str]) -> Self {
        self.arguments.extend(words.iter().map(Into::into));
        self
    }

    /// Adds an option with its value.
    pub(crate) fn option(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.arguments.push(name.into());
        self.arguments.push(value.as_ref().to_owned());
        self
    }

    /// Sets an environment variable.
    pub(crate) fn variable(mut self, name: &'static str, value: &Path) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    /// Takes an environment variable away.
    pub(crate) fn without(mut self, name: &'static str) -> Self {
        self.without.push(name);
        self
    }

    fn dress(&self, command: &mut Command) {
        for name in &self.without {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.kill_on_drop(true);
    }

    /// Runs it to its end and returns what it printed.
    pub(crate) async fn output(&self) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null());
        self.dress(&mut command);
        let name = self.program.file_name().unwrap_or_default().display();
        let output = command
            .output()
            .await
            .with_context(|| format!("cannot start {name}"))?;
        if !output.status.success() {
            let words: Vec<_> = self.arguments.iter().map(|word| word.display()).collect();
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{name} {}: {}\n{}",
                words.join(" "),
                output.status,
                said.trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// A process of the demo.
#[derive(Debug)]
pub(crate) struct Service {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Launcher {
    /// Starts a program that ends with the demo. It has a process group of its own, so that Ctrl-C reaches the demo alone
    /// and things end in order.
    pub(crate) fn start(&self, name: &str, what: &Invocation) -> Result<Service> {
        let log = self.logs.join(format!("{name}.log"));
        let file = OpenOptions::new().create(true).append(true).open(&log)?;
        let mut command = Command::new(&self.demo);
        command
            .args(["leash", "--parent", &std::process::id().to_string(), "--"])
            .arg(&what.program)
            .args(&what.arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0);
        what.dress(&mut command);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Service {
            name: name.to_owned(),
            log,
            child,
        })
    }

    /// Starts a process that only lives, as long as its standard input is open.
    pub(crate) fn start_workload(&self) -> Result<Child> {
        let mut command = Command::new(&self.demo);
        command
            .arg("workload")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        command.spawn().context("cannot start a workload")
    }
}

impl Service {
    /// An error with the end of the log, when the process has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}\n{}", self.name, self.log_tail()),
        }
    }

    /// The last lines of its log.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES);
        lines.get(from..).unwrap_or_default().join("\n")
    }

    /// SIGKILL, as an accident would.
    pub(crate) async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// SIGTERM, and SIGKILL to one that does not end within `patience`. Whether it ended by itself.
    pub(crate) async fn stop(mut self, patience: Duration) -> Result<bool> {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            return Ok(true);
        };
        // Not waited for yet, so the id is still this process's.
        kill_process(pid, Signal::TERM)?;
        match tokio::time::timeout(patience, self.child.wait()).await {
            Ok(ended) => Ok(ended?.success()),
            Err(_) => {
                self.child.kill().await?;
                Ok(false)
            }
        }
    }
}
