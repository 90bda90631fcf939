//! What glows: utilisation, temperature, power, clocks, fans, the PCIe link.
#![expect(unsafe_code, reason = "exports C symbols")]

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as sys;

use crate::library::{Answer, Code, Device};
use crate::scenario::{Clocks, Pcie};

use super::boundary::{Out, version_word};
use super::device_calls;

/// The window over which the encoder's and decoder's load is said to be measured.
const SAMPLING_PERIOD_US: c_uint = 167_000;

/// The version word of `nvmlTemperature_v1_t`.
const TEMPERATURE_V1: u32 = version_word::<sys::nvmlTemperature_v1_t>(1);

device_calls! {
    fn nvmlDeviceGetUtilizationRates(device, rates: Out<sys::nvmlUtilization_t>) {
        let gpu = device.uncut()?;
        rates.put(sys::nvmlUtilization_t {
            gpu: gpu.utilization_gpu.ok_or(Code::NOT_SUPPORTED)?,
            memory: gpu.utilization_memory.unwrap_or(0),
        })
    }

    fn nvmlDeviceGetEncoderUtilization(device, percent: Out<c_uint>, period: Out<c_uint>) {
        period.check()?;
        percent.put(device.uncut()?.utilization_encoder.ok_or(Code::NOT_SUPPORTED)?)?;
        period.put(SAMPLING_PERIOD_US)
    }

    fn nvmlDeviceGetDecoderUtilization(device, percent: Out<c_uint>, period: Out<c_uint>) {
        period.check()?;
        percent.put(device.uncut()?.utilization_decoder.ok_or(Code::NOT_SUPPORTED)?)?;
        period.put(SAMPLING_PERIOD_US)
    }

    fn nvmlDeviceGetTemperature(device, sensor: c_uint, celsius: Out<c_uint>) {
        if sensor != sys::nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU {
            return Err(Code::INVALID_ARGUMENT);
        }
        celsius.put(device.whole()?.temperature_c.ok_or(Code::NOT_SUPPORTED)?)
    }

    fn nvmlDeviceGetTemperatureV(device, temperature: Out<sys::nvmlTemperature_v1_t>) {
        let asked = temperature.get()?;
        if asked.version != TEMPERATURE_V1 {
            return Err(Code::VERSION_MISMATCH);
        }
        if asked.sensorType != sys::nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU {
            return Err(Code::INVALID_ARGUMENT);
        }
        let celsius = device.whole()?.temperature_c.ok_or(Code::NOT_SUPPORTED)?;
        let celsius = i32::try_from(celsius).map_err(|_| Code::INVALID_ARGUMENT)?;
        temperature.put(sys::nvmlTemperature_v1_t { temperature: celsius, ..asked })
    }

    fn nvmlDeviceGetPowerUsage(device, milliwatts: Out<c_uint>) {
        milliwatts.put(device.whole()?.power_mw.ok_or(Code::NOT_SUPPORTED)?)
    }

    fn nvmlDeviceGetPowerManagementLimit(device, milliwatts: Out<c_uint>) {
        milliwatts.put(device.whole()?.power_limit_mw.ok_or(Code::NOT_SUPPORTED)?)
    }

    fn nvmlDeviceGetEnforcedPowerLimit(device, milliwatts: Out<c_uint>) {
        milliwatts.put(device.whole()?.power_limit_mw.ok_or(Code::NOT_SUPPORTED)?)
    }

    fn nvmlDeviceGetPowerManagementDefaultLimit(device, milliwatts: Out<c_uint>) {
        milliwatts.put(device.whole()?.power_limit_mw.ok_or(Code::NOT_SUPPORTED)?)
    }

    fn nvmlDeviceGetTotalEnergyConsumption(device, millijoules: Out<c_ulonglong>) {
        millijoules.put(device.whole()?.energy_mj.ok_or(Code::NOT_SUPPORTED)?)
    }

    fn nvmlDeviceGetClockInfo(device, kind: c_uint, megahertz: Out<c_uint>) {
        megahertz.put(clock(device.whole()?.clocks_mhz, kind)?)
    }

    fn nvmlDeviceGetMaxClockInfo(device, kind: c_uint, megahertz: Out<c_uint>) {
        megahertz.put(clock(device.whole()?.max_clocks_mhz, kind)?)
    }

    fn nvmlDeviceGetFanSpeed(device, percent: Out<c_uint>) {
        percent.put(device.whole()?.fan_percent.ok_or(Code::NOT_SUPPORTED)?)
    }

    fn nvmlDeviceGetFanSpeed_v2(device, fan: c_uint, percent: Out<c_uint>) {
        let speed = device.whole()?.fan_percent.ok_or(Code::NOT_SUPPORTED)?;
        if fan > 0 { Err(Code::INVALID_ARGUMENT) } else { percent.put(speed) }
    }

    fn nvmlDeviceGetNumFans(device, count: Out<c_uint>) {
        count.put(u32::from(device.whole()?.fan_percent.is_some()))
    }

    fn nvmlDeviceGetPerformanceState(device, state: Out<c_uint>) {
        state.put(device.whole()?.performance_state.ok_or(Code::NOT_SUPPORTED)?)
    }

    fn nvmlDeviceGetPcieReplayCounter(device, count: Out<c_uint>) {
        count.put(pcie(device)?.replays)
    }

    fn nvmlDeviceGetCurrPcieLinkGeneration(device, generation: Out<c_uint>) {
        generation.put(pcie(device)?.generation)
    }

    fn nvmlDeviceGetCurrPcieLinkWidth(device, width: Out<c_uint>) {
        width.put(pcie(device)?.width)
    }

    fn nvmlDeviceGetMaxPcieLinkGeneration(device, generation: Out<c_uint>) {
        generation.put(pcie(device)?.max_generation)
    }

    fn nvmlDeviceGetMaxPcieLinkWidth(device, width: Out<c_uint>) {
        width.put(pcie(device)?.max_width)
    }
}

fn clock(clocks: Option<Clocks>, kind: c_uint) -> Answer<c_uint> {
    let clocks = clocks.ok_or(Code::NOT_SUPPORTED)?;
    match kind {
        sys::nvmlClockType_enum_NVML_CLOCK_GRAPHICS => Ok(clocks.graphics),
        sys::nvmlClockType_enum_NVML_CLOCK_SM => Ok(clocks.sm),
        sys::nvmlClockType_enum_NVML_CLOCK_MEM => Ok(clocks.memory),
        sys::nvmlClockType_enum_NVML_CLOCK_VIDEO => Ok(clocks.video),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}

fn pcie(device: &Device<'_>) -> Answer<Pcie> {
    device.whole()?.pcie.ok_or(Code::NOT_SUPPORTED)
}
