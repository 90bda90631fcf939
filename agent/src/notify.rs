//! What the service manager hears: ready, alive, how things are. Without one nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::gpu::reading::NvmlState;
use crate::report::wire::nvml_text;

/// The channel to the service manager.
#[derive(Debug, Default)]
pub struct Manager {
    ready: bool,
    said: Option<Status>,
}

/// What the status line is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Status {
    nvml: &'static str,
    devices: usize,
    connected: Option<bool>,
}

impl Manager {
    /// How often the manager wants a sign of life; `None` when it does not.
    #[must_use]
    pub fn watchdog_interval() -> Option<Duration> {
        sd_notify::watchdog_enabled()
            .filter(|timeout| !timeout.is_zero())
            .map(|timeout| timeout / 3)
    }

    /// A pass of the loop is done: the first one makes the agent ready. `connected` is `None` without a server.
    pub fn passed(&mut self, nvml: &NvmlState, devices: usize, connected: Option<bool>) {
        let (nvml, _) = nvml_text(nvml);
        let status = Status {
            nvml,
            devices,
            connected,
        };
        if self.said.as_ref() == Some(&status) {
            return;
        }
        let text = status.text();
        if self.ready {
            send(&[NotifyState::Status(&text)]);
        } else {
            send(&[NotifyState::Ready, NotifyState::Status(&text)]);
            self.ready = true;
        }
        self.said = Some(status);
    }

    /// What it waits for is there.
    pub fn up() {
        send(&[NotifyState::Ready]);
    }

    /// The loop goes round.
    pub fn alive() {
        send(&[NotifyState::Watchdog]);
    }

    /// The agent stops on purpose.
    pub fn stopping(&self) {
        send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }
}

impl Status {
    fn text(&self) -> String {
        let Self { nvml, devices, .. } = self;
        let server = match self.connected {
            None => "no server",
            Some(true) => "server connected",
            Some(false) => "server away",
        };
        format!("nvml {nvml}, {devices} devices, {server}")
    }
}

// Nobody there to hear it is the usual case outside a service.
fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "service manager not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pass_makes_it_ready_and_the_line_says_how_things_are() {
        let mut manager = Manager::default();
        manager.passed(&NvmlState::Absent("x".into()), 0, Some(false));
        assert!(manager.ready);
        let text = manager.said.as_ref().map(Status::text);
        assert_eq!(text.as_deref(), Some("nvml absent, 0 devices, server away"));
    }
}
