//! The command `enforcer`, as systemd runs it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::config::{EnforcerConfig, EnforcerConfigError};
use super::denials::Denials;
use super::probe::Prober;
use super::server::{Place, serve};
use crate::facts::boot_id;
use crate::notify::Manager;

/// Flags of the command.
#[derive(Debug, Args)]
pub struct EnforcerOptions {
    /// What only root may say; a file that is not there says nothing.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/gpuquota/enforcer.toml"
    )]
    config: PathBuf,
    /// Its own folder, made by the service manager: socket, and what is denied in this boot.
    #[arg(long, value_name = "DIR", default_value = "/run/gpuquota-enforcer")]
    dir: PathBuf,
    /// Where its programs are kept, in a bpf file system.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/gpuquota")]
    pins: PathBuf,
    /// Whose orders count besides root's.
    #[arg(long, value_name = "USER", default_value = "gpuquota-agent")]
    agent: String,
    /// Take away all that is denied, and end: before the package is removed, or when something goes wrong.
    #[arg(long)]
    lift_all: bool,
}

/// Why it cannot run.
#[derive(Debug, thiserror::Error)]
pub enum EnforcerError {
    /// Nobody but root can do what it is for.
    #[error("it must run as root")]
    NotRoot,
    /// The configuration.
    #[error(transparent)]
    Config(#[from] EnforcerConfigError),
    /// There is no such user.
    #[error("there is no user {0:?} in /etc/passwd: install the package, or run systemd-sysusers")]
    NoUser(String),
    /// Some stay denied.
    #[error("{0} groups are still denied their devices; what is said above says why")]
    StillDenied(usize),
    /// The socket, or the kernel.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Runs until SIGTERM or SIGINT. What is denied stays denied.
///
/// # Errors
/// When it cannot start.
pub async fn enforcer(options: EnforcerOptions) -> Result<(), EnforcerError> {
    if !rustix::process::geteuid().is_root() {
        return Err(EnforcerError::NotRoot);
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let records = options.dir.join("denied");
    if options.lift_all {
        let prober = Prober::new(std::env::current_exe()?);
        return match Denials::new(records, options.pins, prober).lift_all() {
            0 => Ok(()),
            still => Err(EnforcerError::StillDenied(still)),
        };
    }
    let config = EnforcerConfig::load(&options.config)?;
    let passwd = fs::read_to_string(Path::new("/etc/passwd"))?;
    let agent = user(&passwd, &options.agent).ok_or(EnforcerError::NoUser(options.agent))?;
    let place = Place {
        socket: options.dir.join("enforcer.sock"),
        agent,
        records,
        pins: options.pins,
    };
    let stop = CancellationToken::new();
    let serving = serve(place, config, boot_id()?, stop.clone());
    tokio::pin!(serving);
    // The socket is there once the first poll is over.
    tokio::select! {
        biased;
        served = &mut serving => return Ok(served?),
        () = std::future::ready(()) => Manager::up(),
    }
    tokio::select! {
        served = &mut serving => return Ok(served?),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    serving.await?;
    Ok(())
}

// User and group of a line `name:x:uid:gid:…` (passwd(5)). System users are in the file itself.
fn user(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let mut lines = passwd.lines().map(|line| line.split(':'));
    let mut fields =
        lines.find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
    let uid = fields.nth(1)?.parse().ok()?;
    Some((uid, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0::/:/bin/sh\nagent2:x:7:8::/:\nagent:x:990:991::/:/usr/sbin/nologin\nodd:x:y:1\n";
        assert_eq!(user(passwd, "agent"), Some((990, 991)));
        assert_eq!(user(passwd, "age"), None);
        assert_eq!(user(passwd, "odd"), None);
    }
}
