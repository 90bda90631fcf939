//! The worker process: loads NVML, answers one request after the other, and dies without harm to the agent.
//!
//! Two threads and blocking pipes, nothing else. The second thread only watches: when a call passes its deadline it says so
//! on standard output, since the thread that made the call cannot. What to do about it is the agent's business.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};

use super::gate::Gate;
use super::nvml::{self, Reader, Scope};
use super::protocol::{Answer, SAMPLE, SAMPLE_MORE, Target};
use crate::clock::monotonic_ms;

/// Command line of the hidden subcommand `nvml-worker`.
#[derive(Clone, Debug, clap::Args)]
pub struct WorkerOptions {
    /// NVML to load; the system's `libnvidia-ml.so.1` when absent.
    #[arg(long, value_name = "PATH")]
    pub nvml_library: Option<PathBuf>,
    /// GPUs not to touch: a PCI bus id, or # and an index.
    #[arg(long, value_name = "GPU")]
    pub exclude: Vec<Target>,
    /// Touch these GPUs only: a PCI bus id, or # and an index.
    #[arg(long, value_name = "GPU")]
    pub only: Vec<Target>,
    /// A call that takes longer is reported as hung, milliseconds.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub call_deadline_ms: u64,
    /// Say which GPU comes next before touching it.
    #[arg(long)]
    pub announce: bool,
}

/// Runs until standard input ends or NVML as a whole fails.
#[must_use]
pub fn run_worker(options: WorkerOptions) -> ExitCode {
    // Should the kernel refuse, the end of standard input still ends the worker; only a stuck one would stay.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let gate = Arc::new(Gate::default());
    let watched = Arc::clone(&gate);
    let watchdog = thread::Builder::new()
        .name("watchdog".to_owned())
        .stack_size(128 * 1024)
        .spawn(move || watch(&watched, options.call_deadline_ms.max(1)));
    if let Err(error) = watchdog {
        log(format_args!("no watchdog: {error}"));
        return ExitCode::FAILURE;
    }
    match serve(&gate, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log(format_args!("{error}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(gate: &Gate, options: WorkerOptions) -> io::Result<()> {
    let mut requests = Requests::default();
    if !requests.next()? {
        return Ok(());
    }
    let library = match nvml::open(options.nvml_library.as_deref(), gate) {
        Ok(library) => library,
        Err(unavailable) => return say(&failed(unavailable)),
    };
    let scope = Scope {
        only: options.only,
        exclude: options.exclude,
    };
    let outcome = answer_all(gate, &library, scope, options.announce, &mut requests);
    nvml::close(library, gate);
    outcome
}

fn answer_all(
    gate: &Gate,
    library: &nvml::Library,
    scope: Scope,
    announce: bool,
    requests: &mut Requests,
) -> io::Result<()> {
    let mut reader = Reader::new(library, gate, scope);
    let mut unidentified = 0;
    loop {
        let before = gate.calls();
        // A failure to announce shows again when the reading is written.
        let pass = reader.read(requests.more(), &mut |target| {
            if announce {
                let _ = say(&Answer::On {
                    target: target.clone(),
                });
            }
        });
        let pass = match pass {
            Ok(pass) => pass,
            Err(unavailable) => return say(&failed(unavailable)),
        };
        if pass.unidentified != unidentified {
            unidentified = pass.unidentified;
            log(format_args!(
                "{unidentified} GPUs have no handle and cannot be identified"
            ));
        }
        say(&Answer::Reading {
            reading: pass.reading,
            unidentified: pass.unidentified,
            code: pass.code,
            calls: gate.calls().wrapping_sub(before),
        })?;
        if !requests.next()? {
            return Ok(());
        }
    }
}

/// Lines on standard input.
#[derive(Debug, Default)]
struct Requests {
    line: Vec<u8>,
}

impl Requests {
    /// Waits for the next request; `false` at the end of the input.
    fn next(&mut self) -> io::Result<bool> {
        self.line.clear();
        if io::stdin().lock().read_until(b'\n', &mut self.line)? == 0 {
            return Ok(false);
        }
        if self.line != SAMPLE && self.line != SAMPLE_MORE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a request"));
        }
        Ok(true)
    }

    /// Whether the newest request is for everything.
    fn more(&self) -> bool {
        self.line == SAMPLE_MORE
    }
}

/// Reports each call that passes `deadline_ms` once, for as long as the process lives.
fn watch(gate: &Gate, deadline_ms: u64) {
    let pause = Duration::from_millis((deadline_ms / 4).clamp(1, 1000));
    let mut reported = None;
    loop {
        thread::sleep(pause);
        if let Some(overdue) = gate.overdue(monotonic_ms(), deadline_ms)
            && reported != Some(overdue.number)
        {
            reported = Some(overdue.number);
            let hung = Answer::Hung {
                call: overdue.call.to_owned(),
                target: overdue.target,
            };
            if say(&hung).is_err() {
                return;
            }
        }
    }
}

fn failed(unavailable: nvml::Unavailable) -> Answer {
    Answer::Failed {
        state: unavailable.state,
        code: unavailable.code,
    }
}

/// Writes one answer as one line and at once: both threads do.
fn say(answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

fn log(text: std::fmt::Arguments<'_>) {
    // Without standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "nvml-worker: {text}");
}
