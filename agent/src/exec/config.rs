//! `[exec]`: where processes ask for leases.

use std::path::PathBuf;

use serde::Deserialize;

/// Where the agent listens where the file does not say, and where the command looks for it.
pub const DEFAULT_SOCKET: &str = "/run/gpuquota-agent/exec.sock";

/// The table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExecConfig {
    /// The socket; empty: nobody is heard.
    pub socket: PathBuf,
}

impl Default for ExecConfig {
    fn default() -> Self {
        Self {
            socket: DEFAULT_SOCKET.into(),
        }
    }
}
