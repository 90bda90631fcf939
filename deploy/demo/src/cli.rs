//! The command line.

use std::ffi::OsString;

use clap::{Parser, Subcommand};

/// Runs the whole of gpuquota on this machine: a server, three nodes with GPUs that a scenario describes, and real
/// processes that come and go on them. Needs no privileges and installs nothing; Ctrl-C ends all of it.
#[derive(Debug, Parser)]
#[command(name = "gpuquota-demo", bin_name = "cargo demo --", version)]
pub(crate) struct Cli {
    /// Play the story once without a terminal, check every step, and exit 0 or 1
    #[arg(long)]
    pub(crate) check: bool,
    /// End after so many rounds of the story instead of at Ctrl-C
    #[arg(long, value_name = "N", conflicts_with = "check")]
    pub(crate) rounds: Option<u32>,
    /// What the demo starts itself as.
    #[command(subcommand)]
    pub(crate) mode: Option<Mode>,
}

/// What the demo starts itself as.
#[derive(Debug, Subcommand)]
pub(crate) enum Mode {
    /// Become another program that ends when the demo does
    #[command(hide = true)]
    Leash {
        /// The demo's process id
        #[arg(long)]
        parent: u32,
        /// Program and arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Do nothing until the demo ends
    #[command(hide = true)]
    Workload,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["demo", "--check", "--rounds", "1"]).is_err());
        let leash = ["demo", "leash", "--parent", "1", "--", "sh", "--check"];
        assert!(Cli::try_parse_from(leash).is_ok());
    }
}
