//! What an XID says about who is to act. A table.

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
