//! User and account of a Slurm job: by the configured command, else its user by the user id that the kernel tells.

use std::process::Stdio;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::cache::{Facts, JobKey, Key};
use super::{Creator, Patience};
use crate::attribute::users;
use crate::observation::Reason;

/// What is read of a command's output, bytes.
const OUTPUT_LIMIT: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Slurm {
    command: Vec<String>,
    patience: Patience,
}

impl Slurm {
    pub(super) fn new(command: Vec<String>, patience: Patience) -> Self {
        Self { command, patience }
    }

    async fn run(&self, job: &str) -> Result<Facts, Reason> {
        let mut parts = self.command.iter().map(|part| part.replace("{job}", job));
        let program = parts.next().ok_or(Reason::JobUnknown)?;
        let mut child = Command::new(program)
            .args(parts)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                tracing::debug!(%error, "the command that tells of jobs cannot be run");
                Reason::RuntimeUnreachable
            })?;
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let read = stdout.take(OUTPUT_LIMIT).read_to_end(&mut output).await;
            read.map_err(|_| Reason::RuntimeUnreachable)?;
        }
        match child.wait().await {
            Ok(status) if status.success() => parse(&output).ok_or(Reason::JobUnknown),
            // A scheduler that is away and a job that it does not know look alike.
            Ok(_) => Err(Reason::JobUnknown),
            Err(_) => Err(Reason::RuntimeUnreachable),
        }
    }
}

impl Creator for Slurm {
    const NAME: &'static str = "Slurm";

    async fn tell(&mut self, key: &Key) -> Result<Facts, Reason> {
        match key {
            Key::Job(JobKey { id, uid: None, .. }) => {
                let answer = timeout(self.patience.command, self.run(id.as_str())).await;
                let facts = answer.unwrap_or(Err(Reason::RuntimeUnreachable))?;
                let user = facts.user.clone();
                // Without its id the answer cannot be held against the process's own: it is asked again.
                let uid = tokio::task::spawn_blocking(move || uid_of(user.as_deref()?)).await;
                let uid = uid.ok().flatten().ok_or(Reason::RuntimeUnreachable)?;
                Ok(Facts {
                    uid: Some(uid),
                    ..facts
                })
            }
            Key::Job(JobKey { uid: Some(uid), .. }) => {
                let uid = *uid;
                let name = tokio::task::spawn_blocking(move || users::name_of(uid)).await;
                let user = name.ok().flatten().ok_or(Reason::JobUnknown)?;
                Ok(Facts {
                    user: Some(user),
                    ..Facts::default()
                })
            }
            Key::Container(_) | Key::Pod(_) => Err(Reason::JobUnknown),
        }
    }
}

/// Slurm writes a number where it does not know the name.
fn uid_of(user: &str) -> Option<u32> {
    user.parse().ok().or_else(|| users::uid_of(user))
}

/// Lines `USER ACCOUNT`, all the same: an array's tasks have one line each.
pub(super) fn parse(output: &[u8]) -> Option<Facts> {
    let text = std::str::from_utf8(output).ok()?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next()?;
    if lines.any(|line| line != first) {
        return None;
    }
    let (user, account) = first.split_once(' ')?;
    let account = account.trim();
    let one_word = |text: &str| !text.contains(|c: char| c.is_whitespace() || c.is_control());
    if !one_word(user) || !one_word(account) {
        return None;
    }
    Some(Facts {
        user: Some(user.to_owned()),
        account: Some(account.to_owned()).filter(|account| account != "(null)"),
        ..Facts::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_clear_answer_counts() {
        let facts = parse(b"alice phys\n").unwrap();
        assert_eq!(
            (facts.user.as_deref(), facts.account.as_deref()),
            (Some("alice"), Some("phys"))
        );
        assert_eq!(parse(b"alice phys\n\nalice phys\n"), Some(facts));
        assert_eq!(parse(b"alice (null)\n").unwrap().account, None);
        for unclear in [
            "",
            "\n",
            "alice",
            "alice phys x",
            "alice phys\nbob bio\n",
            "alice \u{85}",
            "ali\tce phys",
            "alice ph\u{0}ys",
        ] {
            assert_eq!(
                parse(unclear.as_bytes()).and_then(|facts| facts.account.filter(|a| !a.is_empty())),
                None,
                "{unclear:?}"
            );
        }
    }
}
