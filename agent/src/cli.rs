//! The command line.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use gpuquota_proto::pinned::Pin;
use tracing_subscriber::EnvFilter;

use crate::clock::{boottime_ms, unix_s};
use crate::config::{Config, ConfigError, DEFAULT_FILE, Overrides, parse_duration, state_folder};
use crate::control::Request;
use crate::control::client::{self, Outcome};
use crate::devices::{DevicesOptions, devices};
use crate::doctor::{DoctorOptions, doctor};
use crate::enforce::{EnforcerOptions, ProbeOptions, enforcer, probe_open};
use crate::exec::client::{ExecOptions, exec};
use crate::facts::boot_id;
use crate::gpu::worker::{WorkerOptions, run_worker};
use crate::join::{JoinOptions, join};
use crate::registered;
use crate::run::run;
use crate::state::enter_folder;

/// What is wrong is in the configuration or on the command line.
const EXIT_CONFIG: u8 = 2;
/// Bytes of standard input that are read for a token, at most.
const LONGEST_INPUT: u64 = 4096;
/// Tasks that block, such as waiting for a disk, are left behind after this.
const RUNTIME_DEADLINE: Duration = Duration::from_millis(300);

/// Reads NVML and the kernel and says who holds which GPU.
#[derive(Debug, Parser)]
#[command(name = "gpuquota-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch this node's GPUs and report to the server.
    Run(RunArgs),
    /// Become a node of a server, with a token from `gpuquota-server join-token`.
    Join(JoinArgs),
    /// Show what NVML and the kernel say right now.
    Devices(DevicesOptions),
    /// Tell what the agent needs on this node, and every way round the limits here, with what to do.
    Doctor(DoctorOptions),
    /// Give a living process to a tenant, where `attribution.registered` is on.
    Register {
        /// The agent's directory.
        #[arg(long)]
        dir: PathBuf,
        /// The process.
        #[arg(long)]
        pid: u32,
        /// Whose it is.
        #[arg(long)]
        tenant: String,
    },
    /// Take a registered process back.
    Unregister {
        /// The agent's directory.
        #[arg(long)]
        dir: PathBuf,
        /// The process.
        #[arg(long)]
        pid: u32,
    },
    /// Make the agent let go of the driver, or not open it when it starts: before a driver upgrade, rmmod, or a change of MIG mode.
    Quiesce {
        /// The agent's directory.
        #[arg(long)]
        dir: PathBuf,
        /// After this it reads again by itself; a number with ms, s or m, at most a day.
        #[arg(long = "for", value_name = "TIME", value_parser = parse_duration, default_value = "10m")]
        time: Duration,
        /// Shown while it lasts.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Make the agent read again.
    Resume {
        /// The agent's directory.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Start a command under a lease: with its GPUs and no others, for as long as it runs.
    Exec(ExecOptions),
    /// Check the configuration, or print the commented default.
    Config {
        /// Print agent.toml with all settings and their defaults.
        #[arg(long, conflicts_with = "dir", required_unless_present = "dir")]
        print_default: bool,
        /// Check the configuration in this directory.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// The privileged half: signals verified processes and denies device nodes to control groups, for the agent of this node.
    Enforcer(EnforcerOptions),
    /// Try to open device nodes from within a control group.
    #[command(hide = true)]
    ProbeOpen(ProbeOptions),
    /// Talk to NVML on behalf of an agent.
    #[command(hide = true)]
    NvmlWorker(WorkerOptions),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The agent's directory: agent.toml, certificate and state.
    #[arg(long)]
    dir: PathBuf,
    /// How often the GPUs are read, e.g. 1s.
    #[arg(long, value_parser = parse_duration)]
    interval: Option<Duration>,
    /// Where /metrics is served.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Metrics only, no server.
    #[arg(long)]
    standalone: bool,
    /// NVML to load instead of the system's.
    #[arg(long, value_name = "PATH")]
    nvml_library: Option<PathBuf>,
    /// Where the proc file system is.
    #[arg(long, value_name = "PATH", hide = true)]
    proc_root: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct JoinArgs {
    /// Address of the server's listener for agents, https://HOST:PORT.
    #[arg(long, value_name = "URL")]
    server: String,
    /// The token; `-` reads it from standard input, where no list of processes shows it.
    #[arg(long)]
    token: String,
    /// Hash of the authority's public key, sha256:HEX, as join-token prints it.
    #[arg(long, value_name = "HASH")]
    ca_hash: Pin,
    /// The agent's directory, where its key is made; files of an agent that is one already are left alone.
    #[arg(long)]
    dir: PathBuf,
}

/// Parses the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::NvmlWorker(options) => run_worker(options),
        Command::ProbeOpen(options) => probe_open(&options),
        Command::Enforcer(options) => {
            log_to_stderr("info");
            match block_on(enforcer(options)) {
                Ok(Ok(())) => ExitCode::SUCCESS,
                Ok(Err(error)) => fail(&error),
                Err(error) => fail(&error),
            }
        }
        Command::Run(args) => {
            log_to_stderr("info");
            start(args)
        }
        Command::Join(args) => {
            log_to_stderr("error");
            become_node(args)
        }
        Command::Devices(options) => {
            log_to_stderr("error");
            block_on(devices(options)).unwrap_or_else(|error| fail(&error))
        }
        Command::Doctor(options) => {
            log_to_stderr("error");
            block_on(doctor(options)).unwrap_or_else(|error| fail(&error))
        }
        Command::Register { dir, pid, tenant } => in_state(&dir, |state| {
            registered::register(state, pid, &tenant).map_err(|error| error.to_string())
        }),
        Command::Unregister { dir, pid } => in_state(&dir, |state| {
            registered::unregister(state, pid).map_err(|error| error.to_string())
        }),
        Command::Quiesce { dir, time, reason } => {
            let for_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            order(&dir, &Request::Quiesce { for_ms, reason })
        }
        Command::Resume { dir } => order(&dir, &Request::Resume),
        Command::Exec(options) => exec(options),
        Command::Config { dir: None, .. } => print_default(),
        Command::Config { dir: Some(dir), .. } => match Config::load(&dir, Overrides::default()) {
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => refuse(&error),
        },
    }
}

fn start(args: RunArgs) -> ExitCode {
    let overrides = Overrides {
        interval: args.interval,
        metrics: args.metrics,
        nvml_library: args.nvml_library,
        standalone: args.standalone,
        proc_root: args.proc_root,
    };
    let config = match Config::load(&args.dir, overrides) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    match block_on(run(config)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(&error),
        Err(error) => fail(&error),
    }
}

fn become_node(args: JoinArgs) -> ExitCode {
    let token = match args.token.as_str() {
        "-" => match io::read_to_string(io::stdin().take(LONGEST_INPUT)) {
            Ok(token) => token,
            Err(error) => return fail(&error),
        },
        _ => args.token,
    };
    let options = JoinOptions {
        server: args.server,
        token,
        pin: args.ca_hash,
        // A new folder belongs to whom the one above it belongs, and a relative path may name none.
        dir: std::path::absolute(&args.dir).unwrap_or(args.dir),
    };
    match block_on(join(&options)) {
        Ok(Ok(joined)) => {
            let _ = writeln!(io::stdout(), "this is node {} now", joined.node);
            if let Some(left) = joined.left {
                say(left);
            }
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => fail(&error),
        Err(error) => fail(&error),
    }
}

// One thread: it mostly waits, and small is what an agent on somebody else's machine has to be.
fn block_on<T>(task: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_stack_size(1 << 20)
        .thread_keep_alive(Duration::from_secs(1))
        .build()?;
    let outcome = runtime.block_on(task);
    runtime.shutdown_timeout(RUNTIME_DEADLINE);
    Ok(outcome)
}

fn in_state(dir: &Path, act: impl FnOnce(&Path) -> Result<(), String>) -> ExitCode {
    let state = match state_folder(dir) {
        Ok(state) => state,
        Err(error) => return refuse(&error),
    };
    let done = enter_folder(&state)
        .map_err(|error| format!("{}: {error}", state.display()))
        .and_then(|()| act(&state));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn order(dir: &Path, request: &Request) -> ExitCode {
    let state = match state_folder(dir) {
        Ok(state) => state,
        Err(error) => return refuse(&error),
    };
    let boot_id = match boot_id() {
        Ok(boot_id) => boot_id,
        Err(error) => return fail(&error),
    };
    let done = match client::order(&state, request, &boot_id) {
        Ok(Outcome::Obeyed(answer)) => {
            if let Some(warning) = &answer.warning {
                say(warning);
            }
            format!("done in {} ms", answer.took_ms)
        }
        Ok(Outcome::Kept(quiet)) => format!(
            "no agent runs with this directory, so it has nothing open; one that starts leaves the driver alone: {}",
            quiet.text(boottime_ms(), unix_s())
        ),
        Ok(Outcome::Forgotten(true)) => {
            "no agent runs with this directory; one that starts reads the driver again".to_owned()
        }
        Ok(Outcome::Forgotten(false)) => {
            "no agent runs with this directory, and none was told to leave the driver alone"
                .to_owned()
        }
        Err(error) => return fail(&error),
    };
    let _ = writeln!(io::stdout(), "{done}");
    ExitCode::SUCCESS
}

fn print_default() -> ExitCode {
    match io::stdout().write_all(DEFAULT_FILE.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn refuse(error: &ConfigError) -> ExitCode {
    say(error);
    ExitCode::from(EXIT_CONFIG)
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    say(error);
    ExitCode::FAILURE
}

fn say(error: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "gpuquota-agent: {error}");
}

// `RUST_LOG` chooses what is logged. The journal has times and colours of its own.
fn log_to_stderr(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        logs.without_time().init();
    } else {
        logs.init();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("gpuquota-agent run --dir D --interval 1s --metrics 127.0.0.1:0").is_ok());
        assert!(parse("gpuquota-agent run --dir D --standalone --nvml-library /x").is_ok());
        assert!(parse("gpuquota-agent run").is_err());
        assert!(parse("gpuquota-agent run --dir D --interval 1").is_err());
        assert!(parse("gpuquota-agent config --print-default").is_ok());
        assert!(parse("gpuquota-agent config").is_err());
        assert!(parse("gpuquota-agent quiesce --dir D --for 30s --reason x").is_ok());
        assert!(parse("gpuquota-agent quiesce --dir D --for ever").is_err());
        assert!(parse("gpuquota-agent resume --dir D").is_ok());
        assert!(parse("gpuquota-agent register --dir D --pid 1 --tenant a").is_ok());
        assert!(parse("gpuquota-agent exec --tenant a --gpus 1 -- train --tenant b").is_ok());
        assert!(parse("gpuquota-agent exec --tenant a --gpus 0 -- train").is_err());
        assert!(parse("gpuquota-agent exec --gpus 1 --token-file F -- train").is_err());
        assert!(parse("gpuquota-agent exec --gpus 1 train").is_err());
    }
}
