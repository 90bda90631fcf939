//! What an XID says about who is to act, and in words. Tables.

/// What follows from an XID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A program on the GPU did something wrong, or was ended; the GPU goes on.
    Application,
    /// The GPU, its memory or its firmware failed; it wants a reset, if not more.
    ResetNeeded,
    /// Anything else, also numbers that this table does not know.
    Other,
}

impl Class {
    /// As in the label `class`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::ResetNeeded => "reset_needed",
            Self::Other => "other",
        }
    }
}

/// By NVIDIA's document "XID Errors" (docs.nvidia.com/deploy/xid-errors), column of causes and recommended actions.
#[must_use]
pub fn classify(xid: u64) -> Class {
    match xid {
        // Graphics engine exception; MMU fault; user channel reset by verification; preemptive cleanup after another.
        13 | 31 | 43 | 45 => Class::Application,
        // Double-bit ECC; PMU halt; page retirement or row remapping failure; NVLink; fallen off the bus; contained and
        // uncontained memory errors; GSP timeout and error.
        48 | 62 | 64 | 74 | 79 | 94 | 95 | 119 | 120 => Class::ResetNeeded,
        _ => Class::Other,
    }
}

/// In a few words, by the same document; 0 is no error.
#[must_use]
pub fn text(xid: u64) -> &'static str {
    match xid {
        0 => "No Error",
        8 | 43 | 46 => "GPU stopped processing",
        13 => "Graphics Engine Exception",
        31 => "GPU memory page fault",
        32 => "Invalid or corrupted push buffer stream",
        38 => "Driver firmware error",
        44 => "Graphics Engine fault during context switch",
        45 => "Preemptive cleanup, due to previous errors",
        48 => "Double Bit ECC Error",
        61 => "Internal micro-controller breakpoint or warning",
        62 => "Internal micro-controller halt",
        63 => "Page retirement or row remapping recorded",
        64 => "Page retirement or row remapping not recorded",
        68 => "NVDEC0 Exception",
        69 => "Graphics Engine class error",
        74 => "NVLink Error",
        78 => "vGPU Start Error",
        79 => "GPU has fallen off the bus",
        92 => "High single-bit ECC error rate",
        94 => "Contained ECC error",
        95 => "Uncontained ECC error",
        109 => "Context Switch Timeout Error",
        119 => "GSP RPC Timeout",
        120 => "GSP Error",
        121 => "C2C Link Error",
        136 => "Link Training Failed",
        137 => "NVLink Privilege Error",
        140 => "Unrecovered ECC Error",
        143 => "GPU Initialization Failure",
        144..=150 => "NVLink 5 Error",
        154 => "GPU Recovery Action Changed",
        _ => "Unknown Error",
    }
}
