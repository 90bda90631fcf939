//! NVML's C interface over a scenario file.
//!
//! Built as a shared library this crate stands in for `libnvidia-ml.so.1`: any program that loads NVML by name can be
//! pointed at it and sees the GPUs, MIG instances and processes that the TOML file named by `GPUQUOTA_FAKE_NVML` describes.
//! As a Rust library it offers the scenario's types and the safe edits of such a file, so that tests and demos need no
//! TOML of their own.
//!
//! * [`scenario`]: what a file may say; [`preset`] and [`model`]: ready-made nodes;
//! * [`edit`] and [`file`](mod@file): changing a scenario while programs are looking at it;
//! * [`link`]: putting the library where the loader finds it.

mod clock;
pub mod edit;
mod ffi;
pub mod file;
mod library;
pub mod link;
pub mod model;
pub mod preset;
mod process;
pub mod scenario;

pub use clock::wall_millis;
pub use process::start_time;

/// The environment variable that names the scenario file.
pub const SCENARIO_VARIABLE: &str = "GPUQUOTA_FAKE_NVML";
