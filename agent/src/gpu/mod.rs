//! NVML behind a disposable worker process.

mod backoff;
mod gate;
pub mod gauges;
pub mod library;
mod link;
mod morgue;
mod nvml;
mod profile;
pub mod protocol;
mod quarantine;
mod raw;
pub mod reading;
mod roster;
pub mod sampler;
pub mod worker;
