//! The node agent: NVML and the kernel are read, processes attributed to tenants, holder changes reported.

pub mod attribute;
pub mod clock;
pub mod facts;
pub mod gpu;
pub mod observation;
pub mod process;
pub mod registered;
pub mod report;
pub mod spool;
pub mod uplink;
