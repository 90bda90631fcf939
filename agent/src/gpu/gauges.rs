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
    /// Field 66: the counter of all NVLink lanes, in the driver's own unit.
    pub nvlink_bandwidth: Option<u64>,
    /// `nvmlDeviceGetGridLicensableFeatures_v4`: whether this machine, which is a guest, has the licence for its vGPU.
    pub guest_licensed: Option<bool>,
}

/// What a GPU or a GPU instance did between two GPM samples; `None` where it does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Activity {
    /// The GPU instance; `None` is the GPU.
    pub gi: Option<u32>,
    /// Metric 1: part of the time in which the graphics or compute engine was busy, 0 to 1.
    pub engine: Option<f64>,
    /// Metric 5: part of the time in which tensor cores were busy, 0 to 1.
    pub tensor: Option<f64>,
    /// Metric 10: part of the memory's bandwidth, 0 to 1.
    pub dram: Option<f64>,
    /// Metric 20: bytes a second to the host.
    pub pcie_tx: Option<f64>,
    /// Metric 21: bytes a second from the host.
    pub pcie_rx: Option<f64>,
}
