//! NVML's return codes and their texts.

use nvml_wrapper_sys::bindings as sys;

/// A return code other than success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) u32);

pub(crate) type Answer<T = ()> = Result<T, Code>;

impl Code {
    pub(crate) const UNINITIALIZED: Self = Self(sys::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED);
    pub(crate) const INVALID_ARGUMENT: Self =
        Self(sys::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
    pub(crate) const NOT_SUPPORTED: Self = Self(sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED);
    pub(crate) const NOT_FOUND: Self = Self(sys::nvmlReturn_enum_NVML_ERROR_NOT_FOUND);
    pub(crate) const INSUFFICIENT_SIZE: Self =
        Self(sys::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE);
    pub(crate) const DRIVER_NOT_LOADED: Self =
        Self(sys::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED);
    pub(crate) const TIMEOUT: Self = Self(sys::nvmlReturn_enum_NVML_ERROR_TIMEOUT);
    pub(crate) const FUNCTION_NOT_FOUND: Self =
        Self(sys::nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND);
    pub(crate) const GPU_IS_LOST: Self = Self(sys::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST);
    pub(crate) const VERSION_MISMATCH: Self =
        Self(sys::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
}

/// What goes back to C.
pub(crate) fn word(answer: Answer) -> u32 {
    match answer {
        Ok(()) => sys::nvmlReturn_enum_NVML_SUCCESS,
        Err(Code(code)) => code,
    }
}

/// The text of a code for `nvmlErrorString`.
pub(crate) fn text(code: u32) -> &'static std::ffi::CStr {
    match code {
        0 => c"The operation was successful",
        1 => c"NVML was not first initialized with nvmlInit()",
        2 => c"A supplied argument is invalid",
        3 => c"The requested operation is not available on target device",
        4 => c"The current user does not have permission for operation",
        5 => c"NVML has already been initialized",
        6 => c"A query to find an object was unsuccessful",
        7 => c"An input argument is not large enough",
        8 => c"A device's external power cables are not properly attached",
        9 => c"NVIDIA driver is not loaded",
        10 => c"User provided timeout passed",
        11 => c"The NVIDIA kernel detected an interrupt issue with a device",
        12 => c"The NVML shared library could not be found or loaded",
        13 => c"Local version of NVML doesn't implement this function",
        14 => c"The infoROM is corrupted",
        15 => c"The GPU has fallen off the bus or is otherwise inaccessible",
        16 => c"The GPU requires a reset before it can be used again",
        17 => c"The GPU control device has been blocked by the operating system",
        18 => c"Driver/library version mismatch",
        19 => c"The GPU is currently in use",
        20 => c"Insufficient memory",
        21 => c"No data",
        22 => c"The requested vGPU operation is not available because ECC is enabled",
        23 => c"Insufficient resources",
        24 => c"The requested frequency is not supported",
        25 => c"The provided version is invalid or unsupported",
        26 => c"The requested function is deprecated",
        27 => c"The system is not ready for the request",
        28 => c"No GPUs were found",
        29 => c"The resource is in a state that does not allow the operation",
        30 => c"The reset type is not supported",
        _ => c"An internal driver error occurred",
    }
}
