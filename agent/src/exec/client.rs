//! The command `exec`: asks the agent of this node for a lease, and becomes the command that is to run under it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Args;

use super::config::DEFAULT_SOCKET;
use super::{Answer, Ask, LONGEST_LINE};
use crate::clock::boottime_ms;
use crate::config::parse_duration;

/// Exit codes by sysexits.h where it has one, and as shells have them.
const UNAVAILABLE: u8 = 69;
const DENIED: u8 = 75;
const REFUSED: u8 = 77;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// Longer than the agent takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two askings while it waits.
const EVERY: Duration = Duration::from_secs(3);
/// And so often where the agent has no time for more of a user's processes, for so long at least. Milliseconds.
const SHORTLY: Duration = Duration::from_millis(500);
const CROWD_MS: u64 = 30_000;
/// Longest token, bytes.
const LONGEST_TOKEN: u64 = 8 * 1024;

/// Flags of the command.
///
/// Exit codes: 2 a wrong command line; 69 the agent, its privileged half or the server does not answer; 75 the ledger says no, which may
/// change; 77 this user may not ask for that tenant; 126 or 127 the command cannot be started; else the command's own.
#[derive(Debug, Args)]
pub struct ExecOptions {
    /// For whom; without it, for whom the node's rules of attribution say. They, or a token, decide whether this user may ask.
    #[arg(long)]
    tenant: Option<String>,
    /// How many GPUs, or instances of them.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
    gpus: u32,
    /// Which model, as quotas call it, e.g. nvidia.com/mig-1g.10gb; without it the only one of the node.
    #[arg(long)]
    model: Option<String>,
    /// Logical CPUs that go with them.
    #[arg(long)]
    cpu_cores: Option<u32>,
    /// Main memory that goes with them, bytes.
    #[arg(long)]
    memory_bytes: Option<u64>,
    /// A file with a token of the server's REST interface, where the rules do not say that this user is the tenant's.
    #[arg(long, value_name = "FILE", requires = "tenant")]
    token_file: Option<PathBuf>,
    /// While the ledger says no, ask again for so long: a number with ms, s or m.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "0s")]
    wait: Duration,
    /// The agent's socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Asks, and becomes the command; it returns only where that does not work.
#[must_use]
pub fn exec(options: ExecOptions) -> ExitCode {
    let Some(program) = options.command.first() else {
        return fail(2, "there is no command");
    };
    // Before anything is leased for it.
    let path = match find(program, std::env::var_os("PATH").as_deref()) {
        Ok(path) => path,
        Err((code, why)) => return fail(code, why),
    };
    let token = match options.token_file.as_deref().map(read_token).transpose() {
        Ok(token) => token,
        Err(why) => return fail(2, why),
    };
    let ask = Ask {
        tenant: options.tenant,
        gpus: options.gpus,
        model: options.model,
        cpu_cores: options.cpu_cores,
        memory_bytes: options.memory_bytes,
        token,
    };
    let environment = match until_granted(&options.socket, &ask, options.wait) {
        Ok(environment) => environment,
        Err((code, why)) => return fail(code, why),
    };
    let mut command = Command::new(path);
    command.arg0(program);
    command.args(options.command.iter().skip(1));
    command.envs(environment);
    let error = command.exec();
    let code = match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    };
    fail(code, format!("{}: {error}", program.display()))
}

type Failure = (u8, String);

fn until_granted(
    socket: &Path,
    ask: &Ask,
    wait: Duration,
) -> Result<BTreeMap<String, String>, Failure> {
    let begin = boottime_ms();
    let end = begin.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    let (mut told, mut answered) = (false, false);
    loop {
        let answer = match exchange(socket, ask) {
            // An agent that is restarted is there again soon.
            Err(_) if answered && boottime_ms() < end => Answer::Busy {
                why: "the agent went away".to_owned(),
            },
            other => other?,
        };
        answered = true;
        match answer {
            Answer::Go {
                lease,
                tenant,
                mut environment,
            } => {
                environment.insert("GPUQUOTA_LEASE".to_owned(), lease.to_string());
                environment.insert("GPUQUOTA_TENANT".to_owned(), tenant);
                return Ok(environment);
            }
            Answer::Denied { why } => {
                let left = end.saturating_sub(boottime_ms());
                if left == 0 {
                    return Err((DENIED, why));
                }
                if !std::mem::replace(&mut told, true) {
                    say(format!("waiting: {why}"));
                }
                std::thread::sleep(EVERY.min(Duration::from_millis(left)));
            }
            Answer::Busy { why } => {
                // Others of one start are served in between, also for who does not wait for GPUs.
                let left = end.max(begin + CROWD_MS).saturating_sub(boottime_ms());
                if left == 0 {
                    return Err((UNAVAILABLE, why));
                }
                std::thread::sleep(SHORTLY.min(Duration::from_millis(left)));
            }
            Answer::Refused { why } => return Err((REFUSED, why)),
            Answer::Away { why } => return Err((UNAVAILABLE, why)),
        }
    }
}

fn exchange(socket: &Path, ask: &Ask) -> Result<Answer, Failure> {
    let away = |why: String| (UNAVAILABLE, why);
    let mut stream = UnixStream::connect(socket).map_err(|error| {
        away(format!(
            "no agent listens at {}: {error}; is gpuquota-agent.service running?",
            socket.display()
        ))
    })?;
    let mut line = serde_json::to_vec(ask).map_err(|error| (2, error.to_string()))?;
    line.push(b'\n');
    let told = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
        .and_then(|()| stream.write_all(&line))
        .and_then(|()| {
            let mut answer = Vec::new();
            let mut read = BufReader::new(stream).take(LONGEST_LINE);
            read.read_until(b'\n', &mut answer).map(|_| answer)
        });
    let answer = told.map_err(|error| away(format!("the agent does not answer: {error}")))?;
    if answer.is_empty() {
        return Err(away("the agent went away before it answered".to_owned()));
    }
    serde_json::from_slice(&answer)
        .map_err(|error| away(format!("the agent's answer is not understood: {error}")))
}

// As execvp(3) looks for it.
fn find(program: &std::ffi::OsStr, path: Option<&std::ffi::OsStr>) -> Result<PathBuf, Failure> {
    let named = || program.display().to_string();
    if program.is_empty() {
        return Err((NOT_FOUND, "the command has no name".to_owned()));
    }
    let places: Vec<PathBuf> = match program.as_bytes().contains(&b'/') {
        true => vec![PathBuf::from(program)],
        false => std::env::split_paths(path.unwrap_or_default())
            .map(|folder| folder.join(program))
            .collect(),
    };
    let files = || {
        places
            .iter()
            .filter_map(|place| Some((place, fs::metadata(place).ok()?)))
    };
    let runs = |about: &fs::Metadata| about.is_file() && about.permissions().mode() & 0o111 != 0;
    if let Some((place, _)) = files().find(|(_, about)| runs(about)) {
        return Ok(place.clone());
    }
    match files().next() {
        Some(_) => Err((NOT_EXECUTABLE, format!("{}: cannot be executed", named()))),
        None => Err((NOT_FOUND, format!("{}: not found", named()))),
    }
}

fn read_token(path: &Path) -> Result<String, String> {
    let at = |error: io::Error| format!("{}: {error}", path.display());
    let mut text = String::new();
    let file = fs::File::open(path).map_err(at)?;
    let _ = file
        .take(LONGEST_TOKEN)
        .read_to_string(&mut text)
        .map_err(at)?;
    match text.trim() {
        "" => Err(format!("{} holds no token", path.display())),
        token => Ok(token.to_owned()),
    }
}

fn fail(code: u8, why: impl std::fmt::Display) -> ExitCode {
    say(why);
    ExitCode::from(code)
}

fn say(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "gpuquota-agent exec: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn a_command_that_cannot_start_is_known_before_anything_is_leased() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str, mode: u32| {
            let path = dir.path().join(name);
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let (runs, text) = (place("runs", 0o755), place("text", 0o644));
        let path = Some(dir.path().as_os_str());
        assert_eq!(find(OsStr::new("runs"), path), Ok(runs.clone()));
        assert_eq!(find(runs.as_os_str(), None), Ok(runs));
        let code = |found: Result<PathBuf, Failure>| found.unwrap_err().0;
        assert_eq!(code(find(OsStr::new("text"), path)), NOT_EXECUTABLE);
        assert_eq!(code(find(text.as_os_str(), path)), NOT_EXECUTABLE);
        assert_eq!(code(find(OsStr::new("none"), path)), NOT_FOUND);
        assert_eq!(code(find(OsStr::new("runs"), None)), NOT_FOUND);
        assert_eq!(code(find(dir.path().as_os_str(), None)), NOT_EXECUTABLE);
    }
}
