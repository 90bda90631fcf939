//! The privileged half of the agent: it signals a verified process, denies device nodes to a control group, and nothing else.

mod bpf;
mod checks;
pub mod client;
mod command;
mod config;
mod denials;
mod denylist;
mod group;
mod inherited;
mod nodes;
mod probe;
mod protected;
pub mod protocol;
mod scope;
pub mod server;
mod signal;
mod threads;

pub use command::{EnforcerError, EnforcerOptions, enforcer};
pub use probe::{ProbeOptions, probe_open};
