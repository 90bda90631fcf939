//! The calls for [`Gauges`]: four, one for all field values, and one more in a virtual machine.

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::Clock;
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper_sys::bindings::field_id as id;

use super::ask::{Asker, Got};
use crate::gpu::gauges::Gauges;
use crate::gpu::raw::device::guest_licensed;

/// Calls that this GPU answered with "not supported".
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lacks(u8);

const ENCODER: u8 = 1;
const DECODER: u8 = 1 << 1;
const SM_CLOCK: u8 = 1 << 2;
const MEMORY_CLOCK: u8 = 1 << 3;
const FIELDS: u8 = 1 << 4;
const LICENCE: u8 = 1 << 5;

/// `guest`: this GPU is a vGPU, seen from within the virtual machine.
pub(super) fn read(
    asker: &mut Asker<'_>,
    device: &Device<'_>,
    lacks: &mut Lacks,
    guest: bool,
) -> Gauges {
    let clock = "nvmlDeviceGetClockInfo";
    let encoder = "nvmlDeviceGetEncoderUtilization";
    let decoder = "nvmlDeviceGetDecoderUtilization";
    let mut gauges = Gauges {
        encoder_percent: lacks
            .ask(asker, ENCODER, encoder, || device.encoder_utilization())
            .map(|info| info.utilization),
        decoder_percent: lacks
            .ask(asker, DECODER, decoder, || device.decoder_utilization())
            .map(|info| info.utilization),
        sm_clock_mhz: lacks.ask(asker, SM_CLOCK, clock, || device.clock_info(Clock::SM)),
        memory_clock_mhz: lacks.ask(asker, MEMORY_CLOCK, clock, || {
            device.clock_info(Clock::Memory)
        }),
        ..Gauges::default()
    };
    let fields = [
        id::NVML_FI_DEV_MEMORY_TEMP,
        id::NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION,
        id::NVML_FI_DEV_PCIE_REPLAY_COUNTER,
        id::NVML_FI_DEV_NVLINK_BANDWIDTH_C0_TOTAL,
    ]
    .map(FieldId);
    let values = lacks.ask(asker, FIELDS, "nvmlDeviceGetFieldValues", || {
        device.field_values_for(&fields)
    });
    let values = values.into_iter().flatten().map(|sample| {
        let value = sample.ok()?.value.ok()?;
        number(&value)
    });
    let values: Vec<Option<u64>> = values.collect();
    if let [celsius, energy, replays, nvlink] = values.as_slice() {
        gauges.memory_celsius = *celsius;
        gauges.energy_millijoules = *energy;
        gauges.pcie_replays = *replays;
        gauges.nvlink_bandwidth = *nvlink;
    }
    if guest {
        let call = "nvmlDeviceGetGridLicensableFeatures_v4";
        gauges.guest_licensed = lacks.ask(asker, LICENCE, call, || guest_licensed(device));
    }
    gauges
}

impl Lacks {
    fn ask<T, E: Into<nvml_wrapper::error::NvmlError>>(
        &mut self,
        asker: &mut Asker<'_>,
        bit: u8,
        name: &'static str,
        call: impl FnOnce() -> Result<T, E>,
    ) -> Option<T> {
        if self.0 & bit != 0 {
            return None;
        }
        let got = asker.ask(name, call);
        if matches!(got, Got::Lacking) {
            self.0 |= bit;
        }
        got.value()
    }
}

/// A count; none of these is negative or has parts.
fn number(value: &SampleValue) -> Option<u64> {
    match value {
        SampleValue::U32(number) => Some(u64::from(*number)),
        SampleValue::U64(number) => Some(*number),
        SampleValue::I64(number) => u64::try_from(*number).ok(),
        SampleValue::F64(_) => None,
    }
}
