//! The worker process: loads NVML, answers one request after the other, and dies without harm to the agent.
//!
//! Three threads and blocking pipes, nothing else. The second thread only watches: when a call passes its deadline it says so
//! on standard output, since the thread that made the call cannot. What to do about it is the agent's business. The third
//! waits for driver events; what it heard goes out before the next answer.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::bulletin::Bulletin;
use super::event::EventsState;
use super::gate::Gate;
use super::nvml::{self, Orders, Reader, Scope};
use super::protocol::{Answer, SAMPLE, SAMPLE_MORE, Target};
use super::upgrade::{Loaded, explained};
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
    /// Where the proc file system is.
    #[arg(long, value_name = "PATH", default_value = "/proc")]
    pub proc_root: PathBuf,
    /// Listen for driver events, too.
    #[arg(long)]
    pub events: bool,
}

/// How long the end of the worker waits for the thread that listens: its wait, and some air. The agent waits a little longer.
const LISTENER_DEADLINE: Duration = Duration::from_millis(nvml::WAIT_MS as u64 + 100);
/// Readings between two looks at the library's file.
const LIBRARY_EVERY: u64 = 10;
/// With the input ended a call that takes longer is reported, milliseconds: the agent waits a little longer before it ends the worker
/// otherwise, and then has to know which GPU it is about.
const ENDING_MS: u64 = 100;
const STACK_BYTES: usize = 128 * 1024;

/// What the threads share.
#[derive(Debug, Default)]
struct Shared {
    /// Calls for readings.
    gate: Gate,
    /// Calls for events.
    events_gate: Gate,
    orders: Orders,
    news: Bulletin,
}

/// Runs until standard input ends or NVML as a whole fails.
#[must_use]
pub fn run_worker(options: WorkerOptions) -> ExitCode {
    // Should the kernel refuse, the end of standard input still ends the worker; only a stuck one would stay.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let shared = Arc::new(Shared::default());
    let watched = Arc::clone(&shared);
    let watchdog = thread::Builder::new()
        .name("watchdog".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || watch(&watched, options.call_deadline_ms.max(1)));
    if let Err(error) = watchdog {
        log(format_args!("no watchdog: {error}"));
        return ExitCode::FAILURE;
    }
    match serve(&shared, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log(format_args!("{error}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(shared: &Arc<Shared>, options: WorkerOptions) -> io::Result<()> {
    let mut requests = Requests::default();
    if !requests.next()? {
        return Ok(());
    }
    let library = match nvml::open(options.nvml_library.as_deref(), &shared.gate) {
        Ok(library) => library,
        Err(mut unavailable) => {
            unavailable.state = explained(unavailable.state, &options.proc_root);
            return shared.say(&failed(unavailable));
        }
    };
    let loaded = Loaded::find(options.nvml_library.as_deref());
    let scope = Scope {
        only: options.only,
        exclude: options.exclude,
    };
    let listens = options.events && listen(shared, library);
    let reader = Reader::new(library, &shared.gate, scope);
    let outcome = answer_all(
        shared,
        reader,
        loaded.as_ref(),
        options.announce,
        &mut requests,
    );
    // Never under the feet of the other thread: what it holds, the end of this process gives back.
    if !listens || shared.orders.stop(LISTENER_DEADLINE) {
        nvml::close(library, &shared.gate);
    }
    outcome
}

fn listen(shared: &Arc<Shared>, library: &'static nvml::Library) -> bool {
    shared.news.set_state(EventsState::Starting);
    let own = Arc::clone(shared);
    let listener = thread::Builder::new()
        .name("events".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || nvml::listen(library, &own.events_gate, &own.orders, &own.news));
    if let Err(error) = &listener {
        log(format_args!("no thread for events: {error}"));
        shared.news.set_state(EventsState::Off);
    }
    listener.is_ok()
}

fn answer_all(
    shared: &Shared,
    mut reader: Reader<'_>,
    loaded: Option<&Loaded>,
    announce: bool,
    requests: &mut Requests,
) -> io::Result<()> {
    let gate = &shared.gate;
    let mut unidentified = 0;
    for turn in 0_u64.. {
        if turn.is_multiple_of(LIBRARY_EVERY)
            && let Some(what) = loaded.and_then(Loaded::replaced)
        {
            shared.say(&Answer::Outdated { what })?;
        }
        let before = gate.calls();
        if shared.news.take_mig_change() {
            reader.look_again();
        }
        // A failure to announce shows again when the reading is written.
        let pass = reader.read(requests.more(), &mut |target| {
            if announce {
                let _ = shared.say(&Answer::On {
                    target: target.clone(),
                });
            }
        });
        let pass = match pass {
            Ok(pass) => pass,
            Err(unavailable) => return shared.say(&failed(unavailable)),
        };
        if pass.unidentified != unidentified {
            unidentified = pass.unidentified;
            log(format_args!(
                "{unidentified} GPUs have no handle and cannot be identified"
            ));
        }
        shared.say(&Answer::Reading {
            reading: pass.reading,
            unidentified: pass.unidentified,
            code: pass.code,
            calls: gate.calls().wrapping_sub(before),
        })?;
        // Only now, so that a library that dies of it has given a reading before.
        shared.orders.watch(reader.gpus());
        if !requests.next()? {
            break;
        }
    }
    Ok(())
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

/// Reports each call that passes its deadline once, for as long as the process lives.
fn watch(shared: &Shared, mut deadline_ms: u64) {
    let mut ending = false;
    let mut reported = None;
    loop {
        let pause_ms = (deadline_ms / 4).clamp(1, 1000);
        if ending {
            thread::sleep(Duration::from_millis(pause_ms));
        } else if input_ended(pause_ms) {
            ending = true;
            deadline_ms = deadline_ms.min(ENDING_MS);
        }
        let now_ms = monotonic_ms();
        if let Some(overdue) = shared
            .events_gate
            .overdue(now_ms, deadline_ms.saturating_add(nvml::WAIT_MS.into()))
        {
            let call = overdue.call.to_owned();
            shared.news.set_state(EventsState::Hung { call });
        }
        if let Some(overdue) = shared.gate.overdue(now_ms, deadline_ms)
            && reported != Some(overdue.number)
        {
            reported = Some(overdue.number);
            let hung = Answer::Hung {
                call: overdue.call.to_owned(),
                target: overdue.target,
            };
            if shared.say(&hung).is_err() {
                return;
            }
        }
    }
}

/// Whether nobody writes to standard input any more; waits for that as long as told.
fn input_ended(within_ms: u64) -> bool {
    let stdin = io::stdin();
    let mut input = [PollFd::new(&stdin, PollFlags::empty())];
    let within = Timespec {
        tv_sec: 0,
        tv_nsec: i64::try_from(within_ms.min(999)).unwrap_or(999) * 1_000_000,
    };
    match poll(&mut input, Some(&within)) {
        Ok(_) => input
            .iter()
            .any(|input| input.revents().contains(PollFlags::HUP)),
        Err(_) => {
            thread::sleep(Duration::from_millis(within_ms));
            false
        }
    }
}

fn failed(unavailable: nvml::Unavailable) -> Answer {
    Answer::Failed {
        state: unavailable.state,
        code: unavailable.code,
    }
}

impl Shared {
    /// Writes one answer as one line and at once, with the news before it: several threads do.
    fn say(&self, answer: &Answer) -> io::Result<()> {
        let mut lines = Vec::new();
        let mut out = io::stdout().lock();
        if let Some(news) = self.news.take() {
            serde_json::to_writer(&mut lines, &Answer::News(news))?;
            lines.push(b'\n');
        }
        serde_json::to_writer(&mut lines, answer)?;
        lines.push(b'\n');
        out.write_all(&lines)?;
        out.flush()
    }
}

fn log(text: std::fmt::Arguments<'_>) {
    // Without standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "nvml-worker: {text}");
}
