//! The node agent: NVML and the kernel are read, processes attributed to tenants, holder changes reported.

pub mod act;
pub mod attribute;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod devices;
pub mod doctor;
pub mod enforce;
pub mod events;
pub mod exec;
pub mod facts;
#[cfg(test)]
mod fuzz;
pub mod gpu;
pub mod join;
pub mod leased;
pub mod metrics;
pub mod notify;
pub mod observation;
pub mod openers;
pub mod plan;
pub mod policy;
pub mod process;
pub mod registered;
pub mod report;
pub mod run;
pub mod spool;
pub mod state;
pub mod sysfs;
pub mod uplink;
