//! NVML through nvml-wrapper, inside the worker process. No other folder knows the crate.

mod activity;
mod ask;
mod facts;
mod figures;
mod gauges;
mod licence;
mod listener;
mod mig;
mod processes;
mod reader;
mod slot;
mod usage;
mod vgpu;
mod vgpu_usage;

use std::ffi::OsStr;
use std::path::Path;

use nvml_wrapper::error::NvmlError;

pub(super) use listener::{Orders, WAIT_MS, close, listen};
pub(super) use nvml_wrapper::Nvml as Library;
pub(super) use reader::{Reader, Scope};

use super::gate::Gate;
use super::reading::NvmlState;

/// What the loader looks for when no path is given.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// Loads and initialises the library. It stays loaded until the process ends, because two threads use it and one of them may
/// be stuck in it.
pub(super) fn open(library: Option<&Path>, gate: &Gate) -> Result<&'static Library, Unavailable> {
    let path = library.map_or(OsStr::new(LIBRARY), Path::as_os_str);
    gate.call("nvmlInit_v2", || Library::builder().lib_path(path).init())
        .map(|library| &*Box::leak(Box::new(library)))
        .map_err(|error| Unavailable::new("nvmlInit_v2", &error))
}

/// NVML as a whole does not answer.
#[derive(Debug)]
pub(super) struct Unavailable {
    pub(super) state: NvmlState,
    pub(super) code: Option<u32>,
}

impl Unavailable {
    fn new(call: &str, error: &NvmlError) -> Self {
        let detail = format!("{call}: {error}");
        let state = match error {
            NvmlError::LibloadingError(_) if not_there(&detail) => NvmlState::Absent(detail),
            NvmlError::LibraryNotFound => NvmlState::Absent(detail),
            NvmlError::DriverNotLoaded => NvmlState::DriverNotLoaded(detail),
            NvmlError::LibRmVersionMismatch => NvmlState::Mismatch(detail),
            _ => NvmlState::Broken(detail),
        };
        Self {
            state,
            code: code(error),
        }
    }
}

/// The dynamic loader's words for a file that does not exist; a file that is no library reads differently (dlerror(3)).
fn not_there(detail: &str) -> bool {
    detail.contains("cannot open shared object file: No such file")
}

/// NVML's number for an error that came from NVML.
fn code(error: &NvmlError) -> Option<u32> {
    use NvmlError as E;
    Some(match error {
        E::Uninitialized => 1,
        E::InvalidArg => 2,
        E::NotSupported => 3,
        E::NoPermission => 4,
        E::NotFound => 6,
        E::InsufficientSize(_) => 7,
        E::InsufficientPower => 8,
        E::DriverNotLoaded => 9,
        E::Timeout => 10,
        E::IrqIssue => 11,
        E::LibraryNotFound => 12,
        E::FunctionNotFound => 13,
        E::CorruptedInfoROM => 14,
        E::GpuLost => 15,
        E::ResetRequired => 16,
        E::OperatingSystem => 17,
        E::LibRmVersionMismatch => 18,
        E::InUse => 19,
        E::InsufficientMemory => 20,
        E::NoData => 21,
        E::VgpuEccNotSupported => 22,
        E::UnexpectedVariant(code) => *code,
        E::Unknown => 999,
        _ => return None,
    })
}
