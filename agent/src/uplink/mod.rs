//! The stream to the server: kept up, with what was not acknowledged sent again after each loss.

pub mod backoff;
pub mod dial;
pub mod dialogue;
pub mod outbox;
mod session;
pub mod status;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::unix_s;
use crate::join::trust::Authorities;

use backoff::{Backoff, Waits};
use dial::{Credentials, DialError, Line, Server, dial, stamp};
use dialogue::Dialogue;
use outbox::Outbox;
use session::Ended;
use status::UplinkStatus;

/// A stopping agent waits at most this long for its session to end.
const STOP_DEADLINE: Duration = Duration::from_millis(2500);
/// While there is no session, own files are looked at this often.
const FILES_LOOK: Duration = Duration::from_secs(1);

/// Everything a connection needs.
#[derive(Debug)]
pub struct Uplink {
    /// Where the server is.
    pub server: Server,
    /// Who this node is.
    pub credentials: Credentials,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// How long to wait between attempts.
    pub waits: Waits,
    /// What is to be sent.
    pub outbox: Arc<Outbox>,
    /// What is said about policies and steps.
    pub dialogue: Arc<Dialogue>,
    /// What `/metrics` says of it.
    pub status: Arc<UplinkStatus>,
    /// What the server tells of the authorities; `None`: others look after them.
    pub authorities: Option<Authorities>,
}

impl Uplink {
    /// Keeps a session up until `stop`; then flushes, says goodbye and returns.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(self.waits);
        let mut line = None;
        let mut last_reason: Option<String> = None;
        loop {
            let begun = Instant::now();
            let ended = self.attempt(line.take(), &stop).await;
            let was_up = self.status.ended();
            if was_up && begun.elapsed() >= self.waits.stable_after {
                backoff.reset();
            }
            let wait = match ended {
                Ended::Stopped => return,
                Ended::Renewed(renewed) => {
                    line = Some(renewed);
                    continue;
                }
                Ended::Lost(reason) => {
                    let wait = backoff.lost();
                    // An outage is told once, not at each attempt.
                    if was_up || last_reason.as_ref() != Some(&reason) {
                        let wait_ms = wait.as_millis();
                        tracing::warn!(reason, wait.ms = wait_ms, "no session with the server");
                    }
                    last_reason = Some(reason);
                    wait
                }
                Ended::Contended => {
                    tracing::error!(
                        "a newer session of this node took over: is a second agent running with its certificate?"
                    );
                    backoff.contended()
                }
                Ended::Refused(reason) => {
                    tracing::error!(
                        reason,
                        "the server or its certificate is refused, or it refuses this node"
                    );
                    backoff.refused()
                }
                Ended::Unacceptable(reason) => {
                    tracing::error!(reason, "the server cannot take what was sent");
                    self.outbox.give_up("the server cannot take it");
                    backoff.refused()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.files_changed() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    // New files may be what the server waits for.
    async fn files_changed(&self) {
        let before = stamp(&self.credentials.files);
        while stamp(&self.credentials.files) == before {
            tokio::time::sleep(FILES_LOOK).await;
        }
    }

    async fn attempt(&self, line: Option<Line>, stop: &CancellationToken) -> Ended {
        tokio::select! {
            ended = self.one_session(line, stop) => ended,
            () = self.cut_off(stop) => Ended::Stopped,
        }
    }

    // A session gets this long to end well when the agent stops; what is not one yet gets nothing.
    async fn cut_off(&self, stop: &CancellationToken) {
        stop.cancelled().await;
        if self.status.connected() {
            tokio::time::sleep(STOP_DEADLINE).await;
        }
    }

    async fn one_session(&self, line: Option<Line>, stop: &CancellationToken) -> Ended {
        let line = match line {
            Some(line) => line,
            None => match dial(&self.server, &self.credentials).await {
                Ok(line) => line,
                Err(error) => return ended_by(&error),
            },
        };
        self.status.certificate_ends(line.not_after_unix_s);
        if line.not_after_unix_s <= unix_s() {
            // The server decides, by its clock; but a person should know what it will say.
            tracing::error!("the certificate of this node has ended");
        }
        let made_from = line.stamp.clone();
        let verdict = Arc::clone(&line.verdict);
        let ended = match dial::channel(&self.server, line).await {
            Ok(channel) => session::run(self, channel, made_from, stop).await,
            Err(error) => ended_by(&error),
        };
        match (ended, verdict.get()) {
            (Ended::Lost(_), Some(cause)) => Ended::Refused(cause.to_string()),
            (ended, _) => ended,
        }
    }
}

fn ended_by(error: &DialError) -> Ended {
    let text = error.to_string();
    match error.lasts() {
        false => Ended::Lost(text),
        true => Ended::Refused(text),
    }
}

#[cfg(test)]
pub(crate) mod fake_server;
#[cfg(test)]
mod tests;
