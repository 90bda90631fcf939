//! NVML behind a disposable worker process.

mod backoff;
mod bulletin;
mod deafness;
mod epoch;
mod errand;
pub mod event;
mod gate;
pub mod gauges;
pub mod leaf;
pub mod library;
mod link;
mod morgue;
mod nvlink;
mod nvml;
pub mod pci;
mod place;
mod profile;
pub mod protocol;
mod quarantine;
mod raw;
pub mod reading;
mod renewal;
mod roster;
pub mod sampler;
pub mod upgrade;
mod usage;
pub mod worker;
