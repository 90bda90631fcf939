//! The exported C functions, grouped by what they are about.
//!
//! Each is a line of C signature and a line of meaning; what all of them share is in [`crate::library`], and all
//! pointers are followed in [`boundary`].

mod boundary;
mod events;
mod fields;
mod gpm;
mod gpu_instance;
mod identity;
mod lookup;
mod memory;
mod mig;
mod modes;
mod nvlink;
mod processes;
mod sensors;
mod system;
mod unmodelled;
mod vgpu;
mod vgpu_type;

/// Exports functions with a device handle. The body sees the [`crate::library::Device`] behind it and answers.
macro_rules! device_calls {
    ($(fn $name:ident($device:ident $(, $argument:ident: $kind:ty)* $(,)?) $body:block)*) => {$(
        // SAFETY: the name is NVML's, and this library exists to stand in for NVML.
        #[unsafe(no_mangle)]
        extern "C" fn $name(handle: $crate::ffi::boundary::Handle $(, $argument: $kind)*) -> u32 {
            $crate::library::library().device_call(stringify!($name), handle.number(), |$device| $body)
        }
    )*};
}

/// Exports functions without a device handle. The body sees the scenario.
macro_rules! calls {
    ($(fn $name:ident($scenario:ident $(, $argument:ident: $kind:ty)* $(,)?) $body:block)*) => {$(
        // SAFETY: the name is NVML's, and this library exists to stand in for NVML.
        #[unsafe(no_mangle)]
        extern "C" fn $name($($argument: $kind),*) -> u32 {
            $crate::library::library().call(stringify!($name), |$scenario| $body)
        }
    )*};
}

use calls;
use device_calls;
