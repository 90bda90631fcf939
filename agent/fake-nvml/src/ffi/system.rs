//! Start, end, versions and error texts.
#![expect(unsafe_code, reason = "exports C symbols")]

use std::ffi::{c_char, c_int, c_uint};

use crate::library::{Code, error_text, library};
use crate::process;

use super::boundary::{Out, OutText};
use super::calls;

macro_rules! starts {
    ($(fn $name:ident($($argument:ident: $kind:ty)?))*) => {$(
        // SAFETY: the name is NVML's, and this library exists to stand in for NVML.
        #[unsafe(no_mangle)]
        extern "C" fn $name($($argument: $kind)?) -> u32 {
            library().init(stringify!($name))
        }
    )*};
}

starts! {
    fn nvmlInit()
    fn nvmlInit_v2()
    fn nvmlInitWithFlags(_flags: c_uint)
}

// SAFETY: the name is NVML's, and this library exists to stand in for NVML.
#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> u32 {
    library().shutdown("nvmlShutdown")
}

// SAFETY: the name is NVML's, and this library exists to stand in for NVML.
#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(code: u32) -> *const c_char {
    error_text(code).as_ptr()
}

calls! {
    fn nvmlSystemGetDriverVersion(scenario, version: OutText, length: c_uint) {
        version.put(length, &scenario.driver_version)
    }

    fn nvmlSystemGetNVMLVersion(scenario, version: OutText, length: c_uint) {
        version.put(length, &scenario.nvml_version)
    }

    fn nvmlSystemGetCudaDriverVersion(scenario, version: Out<c_int>) {
        version.put(scenario.cuda_version)
    }

    fn nvmlSystemGetCudaDriverVersion_v2(scenario, version: Out<c_int>) {
        version.put(scenario.cuda_version)
    }

    fn nvmlSystemGetProcessName(_scenario, pid: c_uint, name: OutText, length: c_uint) {
        name.put(length, &process::name(pid).ok_or(Code::NOT_FOUND)?)
    }
}
