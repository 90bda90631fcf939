//! What the agent sees through its real worker process and the fake NVML, with real processes on the GPUs.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod attribution;
mod facts;
mod failures;
mod mig;
mod node;
mod placement;
mod program;
mod readings;
mod usage;
mod vgpus;
