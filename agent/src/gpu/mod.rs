//! NVML behind a disposable worker process.

mod backoff;
mod epoch;
mod gate;
pub mod gauges;
pub mod library;
mod link;
mod morgue;
mod nvlink;
mod nvml;
mod place;
mod profile;
pub mod protocol;
mod quarantine;
mod raw;
pub mod reading;
mod roster;
pub mod sampler;
mod usage;
pub mod worker;
