//! What the agent sees through its real worker process and the fake NVML, with real processes on the GPUs.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod attribution;
mod cgroup;
mod creators;
mod facts;
mod failures;
mod logins;
mod look;
mod mig;
mod namespaces;
mod node;
mod placement;
mod program;
mod readings;
mod runtimes;
mod scrapes;
mod skip;
mod usage;
mod vgpus;
