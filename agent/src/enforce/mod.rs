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

pub use command::{EnforcerError, EnforcerOptions, enforcer};
pub use probe::{ProbeOptions, probe_open};

/// Where control groups of version 2 are mounted; `None`: nowhere.
#[must_use]
pub fn cgroup_root() -> Option<std::path::PathBuf> {
    group::hierarchy().ok()
}
