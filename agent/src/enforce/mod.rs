//! The privileged half of the agent: it signals a verified process, denies device nodes to a control group, encloses a process that is about
//! to become a tenant's command, and nothing else.

mod bpf;
mod checks;
pub mod client;
mod command;
mod config;
mod denials;
mod denylist;
mod enclose;
mod group;
mod inherited;
mod nodes;
mod probe;
mod protected;
pub mod protocol;
mod records;
mod scope;
mod scope_start;
pub mod server;
mod signal;
mod threads;

use std::path::Path;

use crate::process::procfs::PROC;

pub use command::{EnforcerError, EnforcerOptions, enforcer};
pub use probe::{ProbeOptions, probe_open};

/// Whether a process has one of these nodes of GPUs or MIG capabilities open, in any of its threads; `None`: this user is not shown.
#[must_use]
pub fn has_open(pid: u32, nodes: &[String]) -> Option<bool> {
    let process = Path::new(PROC).join(pid.to_string());
    let numbers = nodes.iter().filter_map(|node| nodes::number_of(node).ok());
    let numbers: Vec<denylist::Number> = numbers.collect();
    // Who is no more has nothing open.
    threads::has_open(&process, &numbers).or_else(|| (!process.exists()).then_some(false))
}

/// Where control groups of version 2 are mounted; `None`: nowhere.
#[must_use]
pub fn cgroup_root() -> Option<std::path::PathBuf> {
    group::hierarchy().ok()
}
