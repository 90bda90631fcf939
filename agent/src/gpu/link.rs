//! The agent's end of one worker process: start it, ask it, end it. Nothing here waits longer than it is told to.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::select;
use tokio::time::timeout;

use super::event::News;
use super::leaf::Leaf;
use super::protocol::{ANSWER_LIMIT, Answer, SAMPLE, SAMPLE_MORE, Target};
use super::reading::{NvmlState, Reading};

/// How long a worker may take to end by itself.
const GRACE: Duration = Duration::from_millis(700);
/// How long the kernel may take to end a killed worker before it is held to be stuck in the driver.
const AFTER_KILL: Duration = Duration::from_secs(1);

/// How a worker is started.
#[derive(Clone, Debug)]
pub(super) struct Start {
    pub(super) program: PathBuf,
    pub(super) nvml_library: Option<PathBuf>,
    pub(super) proc_root: PathBuf,
    pub(super) call_deadline: Duration,
    pub(super) only: Vec<Target>,
    pub(super) exclude: Vec<Target>,
    pub(super) announce: bool,
    /// Whether it listens for driver events.
    pub(super) events: bool,
    /// Its control group, if it has one of its own.
    pub(super) leaf: Option<Leaf>,
}

/// What came of one request.
#[derive(Debug)]
pub(super) enum Reply {
    Reading {
        reading: Reading,
        unidentified: u32,
        code: Option<u32>,
        calls: u64,
    },
    /// The worker said that NVML fails, and ends.
    Failed { state: NvmlState, code: Option<u32> },
    /// The worker is stuck in this call.
    Hung {
        call: String,
        target: Option<Target>,
    },
    /// The worker ended or talks nonsense. `at`: the GPU it was about to touch, if it announces.
    Died { how: String, at: Option<Target> },
    /// No word within the time.
    Silent,
}

/// How a worker ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// It could not even be killed.
    pub(super) stuck: Option<Child>,
    /// The GPU of its last call, as far as it is known.
    pub(super) on: Option<Target>,
}

#[derive(Debug)]
pub(super) struct Link {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    line: Vec<u8>,
    at: Option<Target>,
    pub(super) announces: bool,
    /// The next readings are to have the figures that few ask for.
    pub(super) more: bool,
    pub(super) listens: bool,
    /// What the driver told by itself and nobody has taken yet.
    pub(super) news: Option<News>,
    /// Another library lies on disk than it has loaded.
    pub(super) outdated: Option<String>,
    /// A request was given up before its answer came.
    pub(super) out_of_step: bool,
    /// Readings that it gave.
    pub(super) readings: u32,
}

impl Link {
    pub(super) fn start(start: &Start) -> io::Result<Self> {
        let mut command = Command::new(&start.program);
        command.arg0("gpuquota-agent").arg("nvml-worker");
        command
            .arg("--call-deadline-ms")
            .arg(start.call_deadline.as_millis().to_string());
        command.arg("--proc-root").arg(&start.proc_root);
        if let Some(library) = &start.nvml_library {
            command.arg("--nvml-library").arg(library);
        }
        for target in &start.only {
            command.arg("--only").arg(target.to_string());
        }
        for target in &start.exclude {
            command.arg("--exclude").arg(target.to_string());
        }
        if start.announce {
            command.arg("--announce");
        }
        if start.events {
            command.arg("--events");
        }
        // Its own group: a Ctrl-C for the agent must not take the worker away before the agent is done.
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        if let (Some(leaf), Some(pid)) = (&start.leaf, child.id())
            && let Err(error) = leaf.take(pid)
        {
            // It may have ended already; else it lives with the agent, which is no reason to do without it.
            tracing::warn!(%error, group = %leaf.path().display(), "a worker is not in its own control group");
        }
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("the worker has no pipes"));
        };
        Ok(Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
            line: Vec::new(),
            at: None,
            announces: start.announce,
            more: false,
            listens: start.events,
            out_of_step: false,
            news: None,
            outdated: None,
            readings: 0,
        })
    }

    /// Process id, while it has not been waited for.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Asks for one reading.
    pub(super) async fn ask(&mut self, within: Duration) -> Reply {
        // Stays so if whoever waits for this goes away.
        self.out_of_step = true;
        let reply = timeout(within, self.exchange())
            .await
            .unwrap_or(Reply::Silent);
        self.out_of_step = matches!(reply, Reply::Silent);
        reply
    }

    async fn exchange(&mut self) -> Reply {
        // A worker that has ended shows itself by the end of its output, behind its last words.
        let request = if self.more { SAMPLE_MORE } else { SAMPLE };
        let _ = self.stdin.write_all(request).await;
        loop {
            self.line.clear();
            let read = (&mut self.stdout)
                .take(ANSWER_LIMIT)
                .read_until(b'\n', &mut self.line)
                .await;
            if read.is_err() || self.line.last() != Some(&b'\n') {
                return Reply::Died {
                    how: self.fate().await,
                    at: self.at.take(),
                };
            }
            match serde_json::from_slice(&self.line) {
                Ok(Answer::On { target }) => self.at = Some(target),
                Ok(Answer::Outdated { what }) => self.outdated = Some(what),
                Ok(Answer::News(news)) => self.news.get_or_insert_default().join(news),
                Ok(Answer::Reading {
                    reading,
                    unidentified,
                    code,
                    calls,
                }) => {
                    self.at = None;
                    self.readings = self.readings.saturating_add(1);
                    return Reply::Reading {
                        reading,
                        unidentified,
                        code,
                        calls,
                    };
                }
                Ok(Answer::Failed { state, code }) => return Reply::Failed { state, code },
                Ok(Answer::Hung { call, target }) => return Reply::Hung { call, target },
                Err(error) => {
                    return Reply::Died {
                        how: format!("unreadable answer: {error}"),
                        at: self.at.take(),
                    };
                }
            }
        }
    }

    async fn fate(&mut self) -> String {
        match timeout(GRACE, self.child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it closed its output".to_owned(),
        }
    }

    /// The GPU that it announced and has not come back from.
    pub(super) fn at(&self) -> Option<&Target> {
        self.at.as_ref()
    }

    /// Ends the worker: by end of input when `gently`, then SIGTERM, then SIGKILL. A worker in a call says which, once its input
    /// has ended.
    pub(super) async fn end(self, gently: bool) -> Ended {
        let Self {
            child,
            stdin,
            mut stdout,
            mut line,
            at: mut on,
            ..
        } = self;
        drop(stdin);
        let stuck = select! {
            biased;
            stuck = ended(child, gently) => stuck,
            never = last_words(&mut stdout, &mut line, &mut on) => match never {},
        };
        Ended { stuck, on }
    }
}

/// Notes the GPU of which a worker speaks that is told to end.
async fn last_words(
    stdout: &mut BufReader<ChildStdout>,
    line: &mut Vec<u8>,
    on: &mut Option<Target>,
) -> Infallible {
    loop {
        // What a request that was given up has read of a line belongs to the next.
        if line.last() == Some(&b'\n') {
            line.clear();
        }
        let mut limited = (&mut *stdout).take(ANSWER_LIMIT);
        if limited.read_until(b'\n', line).await.is_err() || line.last() != Some(&b'\n') {
            return pending().await;
        }
        match serde_json::from_slice(line) {
            Ok(Answer::Hung { target, .. }) => *on = target,
            Ok(Answer::On { target }) => *on = Some(target),
            Ok(Answer::Reading { .. }) => *on = None,
            Ok(Answer::Failed { .. } | Answer::Outdated { .. } | Answer::News(_)) | Err(_) => {}
        }
    }
}

async fn ended(mut child: Child, gently: bool) -> Option<Child> {
    if gently && timeout(GRACE, child.wait()).await.is_ok() {
        return None;
    }
    signal(&child, Signal::TERM);
    if timeout(GRACE, child.wait()).await.is_ok() {
        return None;
    }
    signal(&child, Signal::KILL);
    match timeout(AFTER_KILL, child.wait()).await {
        Ok(_) => None,
        Err(_) => Some(child),
    }
}

/// The pid is the worker's until it has been waited for, so this never reaches another process.
fn signal(child: &Child, signal: Signal) {
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended just now.
        let _ = kill_process(pid, signal);
    }
}
