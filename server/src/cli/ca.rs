//! Arguments of `ca`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::seconds;

/// In this order: prepare, trust, issue, finish. Each step but the last can be taken back by `rollback`. A running server takes a step up
/// within two seconds; a step that was interrupted is completed by the next `ca` command, or when the server starts.
#[derive(Debug, Subcommand)]
pub enum Ca {
    /// Tell how far it is, which nodes have what, and what comes next
    Show {
        /// The server directory
        #[arg(long)]
        dir: PathBuf,
    },
    /// Make a new authority, which is used for nothing yet
    Prepare {
        #[command(flatten)]
        step: CaStep,
        /// Directory of another server of the same ledger, whose new authority is taken instead
        #[arg(long)]
        from: Option<PathBuf>,
    },
    /// Trust both authorities, and tell every agent to
    Trust(CaStep),
    /// Sign by the new authority, show a certificate of it, and have every agent ask for one
    Issue(CaStep),
    /// Trust the new authority alone and take the old one's key away; there is no way back from it
    Finish(CaStep),
    /// Take the last step back
    Rollback(CaStep),
}

/// Arguments of each step.
#[derive(Debug, Args)]
pub struct CaStep {
    /// The server directory
    #[arg(long)]
    pub dir: PathBuf,
    /// Although nodes would be left behind, which then need a new join token
    #[arg(long)]
    pub force: bool,
    /// Time over which agents spread when they ask for certificates of whoever signs, with s, m, h or d; 10m at first
    #[arg(long, value_parser = seconds)]
    pub renew_within: Option<i64>,
    /// Why, for the record
    #[arg(long)]
    pub reason: Option<String>,
}
