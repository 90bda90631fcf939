//! Figures of a GPU that nothing here decides by and few ask for: read only while somebody scrapes them.

use serde::{Deserialize, Serialize};

/// Optional figures of one GPU; `None` where it does not have one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gauges {
    /// `nvmlDeviceGetEncoderUtilization`, 0..=100; none in MIG mode.
    pub encoder_percent: Option<u32>,
    /// `nvmlDeviceGetDecoderUtilization`, 0..=100; none in MIG mode.
    pub decoder_percent: Option<u32>,
    /// `nvmlDeviceGetClockInfo`, SM, MHz.
    pub sm_clock_mhz: Option<u32>,
    /// `nvmlDeviceGetClockInfo`, memory, MHz.
    pub memory_clock_mhz: Option<u32>,
    /// Field 82, degrees Celsius.
    pub memory_celsius: Option<u64>,
    /// Field 83, since the driver was loaded, millijoules.
    pub energy_millijoules: Option<u64>,
    /// Field 94, since the driver was loaded.
    pub pcie_replays: Option<u64>,
    /// Field 142: rows remapped after correctable errors.
    pub remapped_correctable: Option<u64>,
    /// Field 143: rows remapped after uncorrectable errors.
    pub remapped_uncorrectable: Option<u64>,
    /// Field 145: a row could not be remapped.
    pub remap_failed: Option<bool>,
}
