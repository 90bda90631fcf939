//! What the agent sees through its real worker process and the fake NVML, with real processes on the GPUs.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod attribution;
mod doctor;
mod driver;
mod events;
mod facts;
mod failures;
mod mig;
mod node;
mod placement;
mod program;
mod quiesce;
mod readings;
mod running;
mod table;
mod trouble;
mod usage;
mod vgpus;
