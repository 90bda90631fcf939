//! Figures of one GPU or instance that are asked at each pass, without the calls that it does not know.

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;

use super::ask::{Asker, Got};
use crate::gpu::raw;
use crate::gpu::reading::{Glow, Memory};

/// Calls that this GPU answered with "not supported"; they are left out for a while.
pub(super) const UTILIZATION: u8 = 1;
pub(super) const POWER: u8 = 1 << 1;
pub(super) const TEMPERATURE: u8 = 1 << 2;
pub(super) const GRAPHICS: u8 = 1 << 3;
pub(super) const MPS: u8 = 1 << 4;
pub(super) const MEMORY_V2: u8 = 1 << 5;
pub(super) const INSTANCE_MEMORY_V2: u8 = 1 << 6;

/// Utilisation, power and temperature.
pub(super) fn glow(asker: &mut Asker<'_>, device: &Device<'_>, lacking: &mut u8) -> Glow {
    let rates = optional(
        asker,
        lacking,
        UTILIZATION,
        "nvmlDeviceGetUtilizationRates",
        || device.utilization_rates(),
    );
    Glow {
        utilization_gpu_percent: rates.as_ref().map(|rates| rates.gpu),
        utilization_memory_percent: rates.map(|rates| rates.memory),
        power_milliwatts: optional(asker, lacking, POWER, "nvmlDeviceGetPowerUsage", || {
            device.power_usage()
        }),
        temperature_celsius: optional(
            asker,
            lacking,
            TEMPERATURE,
            "nvmlDeviceGetTemperature",
            || device.temperature(TemperatureSensor::Gpu),
        ),
    }
}

/// A call that some GPUs do not know.
fn optional<T>(
    asker: &mut Asker<'_>,
    lacking: &mut u8,
    bit: u8,
    name: &'static str,
    call: impl FnOnce() -> Result<T, NvmlError>,
) -> Option<T> {
    if *lacking & bit != 0 {
        return None;
    }
    let got = asker.ask(name, call);
    if matches!(got, Got::Lacking) {
        *lacking |= bit;
    }
    got.value()
}

/// By the newer call, which tells the driver's reserve apart, where there is one.
pub(super) fn memory(
    asker: &mut Asker<'_>,
    device: &Device<'_>,
    lacking: &mut u8,
    newer_bit: u8,
) -> Option<Memory> {
    let newer = optional(
        asker,
        lacking,
        newer_bit,
        "nvmlDeviceGetMemoryInfo_v2",
        || device.memory_info(),
    );
    if let Some(memory) = newer {
        return Some(Memory {
            total: memory.total,
            reserved: Some(memory.reserved),
            free: memory.free,
            used: memory.used,
        });
    }
    if *lacking & newer_bit == 0 {
        return None;
    }
    asker
        .ask("nvmlDeviceGetMemoryInfo", || raw::memory_v1(device))
        .value()
}
