//! Field values: many small facts in one call, each with its own return code.
#![expect(unsafe_code, reason = "exports C symbols")]

use std::ffi::c_int;

use nvml_wrapper_sys::bindings as sys;
use sys::field_id as id;

use crate::clock;
use crate::library::{Answer, Code, Device};

use super::boundary::Out;
use super::device_calls;
use super::memory::ecc_errors;

enum Value {
    Unsigned(u32),
    Long(u64),
}

device_calls! {
    fn nvmlDeviceGetFieldValues(device, count: c_int, values: Out<sys::nvmlFieldValue_t>) {
        device.whole()?;
        let timestamp = i64::try_from(clock::wall_micros()).unwrap_or(i64::MAX);
        values.each(count, |field| {
            field.timestamp = timestamp;
            field.latencyUsec = 0;
            field.nvmlReturn = sys::nvmlReturn_enum_NVML_SUCCESS;
            match value(device, field.fieldId) {
                Ok(Value::Unsigned(number)) => {
                    field.valueType = sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
                    field.value = sys::nvmlValue_t { uiVal: number };
                }
                Ok(Value::Long(number)) => {
                    field.valueType = sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
                    field.value = sys::nvmlValue_t { ullVal: number };
                }
                Err(Code(code)) => field.nvmlReturn = code,
            }
        })
    }
}

fn value(device: &Device<'_>, field: u32) -> Answer<Value> {
    let corrected = sys::nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_CORRECTED;
    let uncorrected = sys::nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED;
    let gpu = device.gpu;
    let known = |value: Option<u32>| value.map(Value::Unsigned).ok_or(Code::NOT_SUPPORTED);
    match field {
        id::NVML_FI_DEV_ECC_CURRENT | id::NVML_FI_DEV_ECC_PENDING => known(gpu.ecc.map(u32::from)),
        id::NVML_FI_DEV_ECC_SBE_VOL_TOTAL | id::NVML_FI_DEV_ECC_SBE_AGG_TOTAL => {
            ecc_errors(device, corrected).map(Value::Long)
        }
        id::NVML_FI_DEV_ECC_DBE_VOL_TOTAL | id::NVML_FI_DEV_ECC_DBE_AGG_TOTAL => {
            ecc_errors(device, uncorrected).map(Value::Long)
        }
        id::NVML_FI_DEV_NVLINK_LINK_COUNT if !gpu.nvlink.is_empty() => Ok(Value::Unsigned(
            gpu.nvlink.iter().map(|links| links.links).sum(),
        )),
        id::NVML_FI_DEV_NVLINK_BANDWIDTH_C0_TOTAL => gpu
            .nvlink_bandwidth
            .map(Value::Long)
            .ok_or(Code::NOT_SUPPORTED),
        id::NVML_FI_DEV_MEMORY_TEMP => known(gpu.memory_temperature_c),
        id::NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION => {
            gpu.energy_mj.map(Value::Long).ok_or(Code::NOT_SUPPORTED)
        }
        id::NVML_FI_DEV_PCIE_REPLAY_COUNTER => known(gpu.pcie.map(|pcie| pcie.replays)),
        id::NVML_FI_DEV_POWER_AVERAGE | id::NVML_FI_DEV_POWER_INSTANT => known(gpu.power_mw),
        id::NVML_FI_DEV_POWER_CURRENT_LIMIT | id::NVML_FI_DEV_POWER_DEFAULT_LIMIT => {
            known(gpu.power_limit_mw)
        }
        id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION => Ok(Value::Unsigned(gpu.recovery_action)),
        _ => Err(Code::NOT_SUPPORTED),
    }
}
