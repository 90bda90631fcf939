//! Asking about one GPU: what an error means for the datum, for the GPU and for NVML as a whole.

use nvml_wrapper::error::NvmlError;

use super::{Unavailable, code};
use crate::gpu::gate::Gate;

/// `NVML_ERROR_GPU_NOT_FOUND`, which the wrapper does not know.
const GPU_NOT_FOUND: u32 = 28;

/// What an NVML error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// This GPU does not know the call, or we may not make it. Not a fault.
    Lacking,
    /// The handle is of something that is no more.
    Stale,
    /// The GPU is gone or needs a reset.
    Lost,
    /// NVML or the driver as a whole.
    Library,
    /// This datum is not known now.
    Fault,
}

fn meaning(error: &NvmlError) -> Meaning {
    use NvmlError as E;
    match error {
        // 25 is NVML_ERROR_ARGUMENT_VERSION_MISMATCH: the driver is older than the structure.
        E::NotSupported
        | E::NoPermission
        | E::FunctionNotFound
        | E::FailedToLoadSymbol(_)
        | E::NoData
        | E::UnexpectedVariant(25) => Meaning::Lacking,
        E::InvalidArg | E::NotFound => Meaning::Stale,
        E::GpuLost | E::ResetRequired | E::UnexpectedVariant(GPU_NOT_FOUND) => Meaning::Lost,
        E::Uninitialized | E::DriverNotLoaded | E::LibRmVersionMismatch | E::LibraryNotFound => {
            Meaning::Library
        }
        _ => Meaning::Fault,
    }
}

/// What one call gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Got<T> {
    /// The datum.
    Value(T),
    /// This GPU does not have it; asking again soon is idle.
    Lacking,
    /// Not known now.
    Unknown,
}

impl<T> Got<T> {
    pub(super) fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Lacking | Self::Unknown => None,
        }
    }
}

/// The calls about one GPU in one pass. After a fatal error nothing more is asked.
#[derive(Debug)]
pub(super) struct Asker<'g> {
    gate: &'g Gate,
    pub(super) lost: bool,
    /// A handle was of something that is no more: look again which GPUs and instances there are.
    pub(super) stale: bool,
    pub(super) unavailable: Option<Unavailable>,
    /// Newest return code that is a fault.
    pub(super) code: Option<u32>,
    instances: bool,
}

impl<'g> Asker<'g> {
    pub(super) fn new(gate: &'g Gate) -> Self {
        Self {
            gate,
            lost: false,
            stale: false,
            unavailable: None,
            code: None,
            instances: false,
        }
    }

    /// Calls on handles of MIG instances: "no such GPU" (28) then says that the instance is no more.
    pub(super) fn on_instances<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        self.instances = true;
        let outcome = act(self);
        self.instances = false;
        outcome
    }

    pub(super) fn over(&self) -> bool {
        self.lost || self.unavailable.is_some()
    }

    /// Makes the call unless it has become pointless.
    pub(super) fn ask<T, E: Into<NvmlError>>(
        &mut self,
        name: &'static str,
        call: impl FnOnce() -> Result<T, E>,
    ) -> Got<T> {
        if self.over() {
            return Got::Unknown;
        }
        let error = match self.gate.call(name, call) {
            Ok(value) => return Got::Value(value),
            Err(error) => error.into(),
        };
        let meaning = match meaning(&error) {
            Meaning::Lost if self.instances && code(&error) == Some(GPU_NOT_FOUND) => {
                Meaning::Stale
            }
            meaning => meaning,
        };
        if meaning == Meaning::Lacking {
            return Got::Lacking;
        }
        self.code = code(&error).or(self.code);
        match meaning {
            Meaning::Lacking | Meaning::Fault => {}
            Meaning::Stale => self.stale = true,
            Meaning::Lost => self.lost = true,
            Meaning::Library => self.unavailable = Some(Unavailable::new(name, &error)),
        }
        Got::Unknown
    }
}
