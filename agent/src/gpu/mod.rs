//! NVML behind a disposable worker process.

pub mod reading;
