//! What the demo starts itself as, so that nothing outlives it, not even its kill -9.
//!
//! `leash` asks the kernel for SIGKILL when its parent ends and becomes the given program; the request survives exec.
//! `workload` is what "runs on a GPU": it waits until its standard input, which the demo holds, is closed.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// Becomes `command`. Returns only when that is impossible or pointless.
pub(crate) fn leash(parent: u32, command: &[OsString]) -> ExitCode {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("gpuquota-demo: no signal for the end of the demo: {error}");
        return ExitCode::FAILURE;
    }
    // The demo may have ended before the request.
    if getppid().map(Pid::as_raw_pid) != i32::try_from(parent).ok() {
        return ExitCode::FAILURE;
    }
    let Some((program, arguments)) = command.split_first() else {
        return ExitCode::FAILURE;
    };
    let error = Command::new(program).args(arguments).exec();
    eprintln!("gpuquota-demo: cannot start {}: {error}", program.display());
    ExitCode::FAILURE
}

/// Waits for the end of the demo.
pub(crate) fn work() -> ExitCode {
    match io::copy(&mut io::stdin().lock(), &mut io::sink()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
