//! What the agent sees through its real worker process and the fake NVML, with real processes on the GPUs.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod attribution;
mod cgroup;
mod churn;
mod creators;
mod doctor;
mod driver;
mod events;
mod expositions;
mod facts;
mod failures;
mod hangs;
mod leaf;
mod logins;
mod look;
mod mig;
mod missing;
mod namespaces;
mod node;
mod placement;
mod program;
mod published;
mod published_hard;
mod quiesce;
mod readings;
mod running;
mod runtimes;
mod scrapes;
mod skip;
mod table;
mod trouble;
mod usage;
mod vgpus;
