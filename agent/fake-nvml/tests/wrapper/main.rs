//! The library as programs meet it: loaded by an unchanged nvml-wrapper, while a scenario changes under it.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helper functions too"
)]

mod assumptions;
mod devices;
mod faults;
mod nvlinks;
mod processes;
mod stage;
mod vgpus;
