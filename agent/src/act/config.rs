//! `[enforcement]`: how far the operator of this node lets the server's policies go.

use std::path::PathBuf;

use serde::Deserialize;

use crate::policy::Mode;

/// Where the privileged half listens where the file does not say.
const DEFAULT_SOCKET: &str = "/run/gpuquota-enforcer/enforcer.sock";

/// What becomes of restrictions when the server was not heard for longer than a policy is valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnSilence {
    /// They stay as they are; nothing new is denied, and nobody is ended.
    #[default]
    Keep,
    /// They are taken away.
    Lift,
}

/// The table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnforcementConfig {
    /// The highest rung on this node, whatever the server says.
    pub most: Mode,
    /// Processes of one tenant that are ended within a minute, at most.
    pub ended_per_minute: usize,
    /// Warnings are written to the terminals of the processes that they are about.
    pub tell_terminals: bool,
    /// What happens once a policy has ended.
    pub on_silence: OnSilence,
    /// Socket of the privileged half.
    pub socket: PathBuf,
}

impl Default for EnforcementConfig {
    fn default() -> Self {
        Self {
            most: Mode::Evict,
            ended_per_minute: 32,
            tell_terminals: true,
            on_silence: OnSilence::default(),
            socket: DEFAULT_SOCKET.into(),
        }
    }
}
