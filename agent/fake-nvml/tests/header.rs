//! The library against the published header: struct layouts, version words, constants, and that every function is there.
//!
//! The header belongs to NVIDIA and is not kept here. `GPUQUOTA_NVML_HEADER` names a copy, for example the one in the
//! Python package `nvidia-nvml-dev-cu12`; without it the test says loudly that it was skipped.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helper functions too"
)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use gpuquota_fake_nvml::link;
use nvml_wrapper_sys::bindings as sys;

const HEADER_VARIABLE: &str = "GPUQUOTA_NVML_HEADER";

/// C expressions, each with the value that Rust believes it has.
type Beliefs = BTreeMap<String, u64>;

macro_rules! structs {
    ($beliefs:ident; $($c:ident as $rust:ident { $($field:ident),* })*) => {$(
        believe($beliefs, format!("sizeof({})", stringify!($c)), size_of::<sys::$rust>());
        $(
            let expression = format!("offsetof({}, {})", stringify!($c), stringify!($field));
            believe($beliefs, expression, offset_of!(sys::$rust, $field));
        )*
    )*};
}

macro_rules! constants {
    ($beliefs:ident; $($c:ident = $value:expr;)*) => {$(
        $beliefs.insert(stringify!($c).to_owned(), u64::from($value));
    )*};
}

fn believe(beliefs: &mut Beliefs, expression: String, value: usize) {
    beliefs.insert(expression, u64::try_from(value).unwrap());
}

fn layouts(beliefs: &mut Beliefs) {
    structs! { beliefs;
        nvmlPciInfo_t as nvmlPciInfo_t { busIdLegacy, domain, bus, device, pciDeviceId, pciSubSystemId, busId }
        nvmlGpmMetric_t as nvmlGpmMetric_t { metricId, nvmlReturn, value, metricInfo }
        nvmlGpmMetricsGet_t as nvmlGpmMetricsGet_t { version, numMetrics, sample1, sample2, metrics }
        nvmlGpmSupport_t as nvmlGpmSupport_t { version, isSupportedDevice }
        nvmlExcludedDeviceInfo_t as nvmlExcludedDeviceInfo_t { pciInfo, uuid }
        nvmlUtilization_t as nvmlUtilization_t { gpu, memory }
        nvmlTemperature_t as nvmlTemperature_v1_t { version, sensorType, temperature }
        nvmlMemory_t as nvmlMemory_t { total, free, used }
        nvmlMemory_v2_t as nvmlMemory_v2_t { version, total, reserved, free, used }
        nvmlBAR1Memory_t as nvmlBAR1Memory_t { bar1Total, bar1Free, bar1Used }
        nvmlProcessInfo_v1_t as nvmlProcessInfo_v1_t { pid, usedGpuMemory }
        nvmlProcessInfo_t as nvmlProcessInfo_v2_t { pid, usedGpuMemory, gpuInstanceId, computeInstanceId }
        nvmlProcessDetail_v1_t as nvmlProcessDetail_v1_t {
            pid, usedGpuMemory, gpuInstanceId, computeInstanceId, usedGpuCcProtectedMemory
        }
        nvmlProcessUtilizationSample_t as nvmlProcessUtilizationSample_t {
            pid, timeStamp, smUtil, memUtil, encUtil, decUtil
        }
        nvmlVgpuInstanceUtilizationSample_t as nvmlVgpuInstanceUtilizationSample_t {
            vgpuInstance, timeStamp, smUtil, memUtil, encUtil, decUtil
        }
        nvmlGridLicensableFeature_t as nvmlGridLicensableFeature_t {
            featureCode, featureState, productName, featureEnabled, licenseExpiry
        }
        nvmlGridLicensableFeatures_t as nvmlGridLicensableFeatures_t {
            isGridLicenseSupported, licensableFeaturesCount, gridLicensableFeatures
        }
        nvmlEventData_t as nvmlEventData_t { device, eventType, eventData, gpuInstanceId, computeInstanceId }
        nvmlFieldValue_t as nvmlFieldValue_t {
            fieldId, scopeId, timestamp, latencyUsec, valueType, nvmlReturn, value
        }
        nvmlValue_t as nvmlValue_t { uiVal, ullVal }
        nvmlDeviceAttributes_t as nvmlDeviceAttributes_t {
            multiprocessorCount, sharedCopyEngineCount, sharedDecoderCount, sharedEncoderCount, sharedJpegCount,
            sharedOfaCount, gpuInstanceSliceCount, computeInstanceSliceCount, memorySizeMB
        }
        nvmlGpuInstanceProfileInfo_t as nvmlGpuInstanceProfileInfo_t {
            id, isP2pSupported, sliceCount, instanceCount, multiprocessorCount, copyEngineCount, decoderCount,
            encoderCount, jpegCount, ofaCount, memorySizeMB
        }
        nvmlGpuInstanceProfileInfo_v2_t as nvmlGpuInstanceProfileInfo_v2_t {
            version, id, isP2pSupported, sliceCount, instanceCount, multiprocessorCount, memorySizeMB, name
        }
        nvmlGpuInstanceProfileInfo_v3_t as nvmlGpuInstanceProfileInfo_v3_t {
            version, id, sliceCount, instanceCount, multiprocessorCount, memorySizeMB, name, capabilities
        }
        nvmlGpuInstanceInfo_t as nvmlGpuInstanceInfo_t { device, id, profileId, placement }
        nvmlGpuInstancePlacement_t as nvmlGpuInstancePlacement_t { start, size }
        nvmlVgpuLicenseExpiry_t as nvmlVgpuLicenseExpiry_t { year, month, day, hour, min, sec, status }
        nvmlVgpuLicenseInfo_t as nvmlVgpuLicenseInfo_t { isLicensed, licenseExpiry, currentState }
        nvmlVgpuPlacementId_t as nvmlVgpuPlacementId_t { version, placementId }
        nvmlActiveVgpuInstanceInfo_t as nvmlActiveVgpuInstanceInfo_t { version, vgpuCount, vgpuInstances }
        nvmlVgpuInstance_t as nvmlVgpuInstance_t { }
        nvmlVgpuTypeId_t as nvmlVgpuTypeId_t { }
        nvmlVgpuVmIdType_t as nvmlVgpuVmIdType_t { }
    }
    believe(
        beliefs,
        "sizeof(nvmlDevice_t)".to_owned(),
        size_of::<usize>(),
    );
    // What the library demands in the first word; the wrapper's tests show that it does.
    believe(
        beliefs,
        "nvmlMemory_v2".to_owned(),
        size_of::<sys::nvmlMemory_v2_t>() | 2 << 24,
    );
    believe(
        beliefs,
        "nvmlGpuInstanceProfileInfo_v2".to_owned(),
        size_of::<sys::nvmlGpuInstanceProfileInfo_v2_t>() | 2 << 24,
    );
    believe(
        beliefs,
        "nvmlVgpuPlacementId_v1".to_owned(),
        size_of::<sys::nvmlVgpuPlacementId_t>() | 1 << 24,
    );
    believe(
        beliefs,
        "nvmlActiveVgpuInstanceInfo_v1".to_owned(),
        size_of::<sys::nvmlActiveVgpuInstanceInfo_t>() | 1 << 24,
    );
    believe(
        beliefs,
        "nvmlTemperature_v1".to_owned(),
        size_of::<sys::nvmlTemperature_v1_t>() | (1 << 24),
    );
}

fn values(beliefs: &mut Beliefs) {
    constants! { beliefs;
        NVML_ERROR_UNINITIALIZED = sys::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED;
        NVML_ERROR_INVALID_ARGUMENT = sys::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
        NVML_ERROR_NOT_SUPPORTED = sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;
        NVML_ERROR_NOT_FOUND = sys::nvmlReturn_enum_NVML_ERROR_NOT_FOUND;
        NVML_ERROR_INSUFFICIENT_SIZE = sys::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;
        NVML_ERROR_DRIVER_NOT_LOADED = sys::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED;
        NVML_ERROR_TIMEOUT = sys::nvmlReturn_enum_NVML_ERROR_TIMEOUT;
        NVML_ERROR_FUNCTION_NOT_FOUND = sys::nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND;
        NVML_ERROR_GPU_IS_LOST = sys::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST;
        NVML_ERROR_ARGUMENT_VERSION_MISMATCH = sys::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
        NVML_DEVICE_ARCH_TURING = sys::NVML_DEVICE_ARCH_TURING;
        NVML_DEVICE_ARCH_HOPPER = sys::NVML_DEVICE_ARCH_HOPPER;
        NVML_BRAND_TESLA = sys::nvmlBrandType_enum_NVML_BRAND_TESLA;
        NVML_BRAND_NVIDIA = sys::nvmlBrandType_enum_NVML_BRAND_NVIDIA;
        NVML_CLOCK_SM = sys::nvmlClockType_enum_NVML_CLOCK_SM;
        NVML_CLOCK_MEM = sys::nvmlClockType_enum_NVML_CLOCK_MEM;
        NVML_COMPUTEMODE_EXCLUSIVE_PROCESS = sys::nvmlComputeMode_enum_NVML_COMPUTEMODE_EXCLUSIVE_PROCESS;
        NVML_GPU_VIRTUALIZATION_MODE_HOST_VGPU =
            sys::nvmlGpuVirtualizationMode_NVML_GPU_VIRTUALIZATION_MODE_HOST_VGPU;
        NVML_HOST_VGPU_MODE_SRIOV = sys::nvmlHostVgpuMode_enum_NVML_HOST_VGPU_MODE_SRIOV;
        NVML_VGPU_VM_ID_DOMAIN_ID = sys::nvmlVgpuVmIdType_NVML_VGPU_VM_ID_DOMAIN_ID;
        NVML_VGPU_VM_ID_UUID = sys::nvmlVgpuVmIdType_NVML_VGPU_VM_ID_UUID;
        NVML_GRID_LICENSE_STATE_UNINITIALIZED = sys::NVML_GRID_LICENSE_STATE_UNINITIALIZED;
        NVML_GRID_LICENSE_STATE_UNLICENSED = sys::NVML_GRID_LICENSE_STATE_UNLICENSED;
        NVML_GRID_LICENSE_STATE_LICENSED = sys::NVML_GRID_LICENSE_STATE_LICENSED;
        NVML_GRID_LICENSE_EXPIRY_NOT_AVAILABLE = sys::NVML_GRID_LICENSE_EXPIRY_NOT_AVAILABLE;
        NVML_GRID_LICENSE_EXPIRY_VALID = sys::NVML_GRID_LICENSE_EXPIRY_VALID;
        NVML_GRID_LICENSE_BUFFER_SIZE = sys::NVML_GRID_LICENSE_BUFFER_SIZE;
        NVML_VALUE_TYPE_UNSIGNED_LONG_LONG = sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
        NVML_INVALID_VGPU_PLACEMENT_ID = sys::NVML_INVALID_VGPU_PLACEMENT_ID;
        NVML_GPM_METRICS_GET_VERSION = 1_u32;
        NVML_GPM_SUPPORT_VERSION = 1_u32;
        NVML_GPM_METRIC_SM_UTIL = sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_SM_UTIL;
        NVML_GPM_METRIC_DRAM_BW_UTIL = sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_DRAM_BW_UTIL;
        NVML_GPU_INSTANCE_PROFILE_COUNT = sys::NVML_GPU_INSTANCE_PROFILE_COUNT;
        NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV1 = sys::NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV1;
        NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV2 = sys::NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV2;
        NVML_NVLINK_DEVICE_TYPE_GPU = sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU;
        NVML_NVLINK_DEVICE_TYPE_SWITCH = sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH;
        NVML_FI_DEV_NVLINK_LINK_COUNT = sys::field_id::NVML_FI_DEV_NVLINK_LINK_COUNT;
        NVML_FI_DEV_MEMORY_TEMP = sys::field_id::NVML_FI_DEV_MEMORY_TEMP;
        NVML_FI_DEV_POWER_INSTANT = sys::field_id::NVML_FI_DEV_POWER_INSTANT;
        NVML_FI_DEV_GET_GPU_RECOVERY_ACTION = sys::field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION;
        nvmlEventTypeXidCriticalError = sys::nvmlEventTypeXidCriticalError;
        nvmlEventMigConfigChange = sys::nvmlEventMigConfigChange;
    }
}

/// What the C compiler says about the same expressions.
fn ask_the_compiler(header: &Path, beliefs: &Beliefs) -> Beliefs {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("ask.c"), folder.path().join("ask"));
    let mut code = format!(
        "#include <stddef.h>\n#include <stdio.h>\n#include \"{}\"\n",
        header.display()
    );
    code += "int main(void) {\n";
    for expression in beliefs.keys() {
        writeln!(
            code,
            "printf(\"%s=%llu\\n\", \"{expression}\", (unsigned long long)({expression}));"
        )
        .unwrap();
    }
    code += "return 0; }\n";
    fs::write(&source, code).unwrap();
    let compiled = Command::new("cc")
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .output()
        .unwrap();
    assert!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    let output = Command::new(&program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        let (expression, value) = line.rsplit_once('=').unwrap();
        (expression.to_owned(), value.parse().unwrap())
    };
    text.lines().map(line).collect()
}

/// The names that the header declares.
fn functions(header: &str) -> Vec<&str> {
    header
        .lines()
        .filter_map(|line| line.split_once("DECLDIR ")?.1.split_once('('))
        .filter_map(|(before, _)| before.trim().rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("nvml"))
        .collect()
}

#[test]
fn the_library_agrees_with_the_published_header() {
    let Some(header) = env::var_os(HEADER_VARIABLE).map(PathBuf::from) else {
        eprintln!(
            "SKIPPED: {HEADER_VARIABLE} names no copy of nvml.h, so nothing was compared with it"
        );
        return;
    };
    let mut beliefs = Beliefs::new();
    layouts(&mut beliefs);
    values(&mut beliefs);
    assert_eq!(ask_the_compiler(&header, &beliefs), beliefs);

    let text = fs::read_to_string(&header).unwrap();
    let declared = functions(&text);
    assert!(
        declared.len() > 300,
        "only {} functions found in the header",
        declared.len()
    );
    #[expect(unsafe_code, reason = "loads the library to look for symbols")]
    // SAFETY: the library runs nothing when it is loaded, and no symbol is called.
    let missing: Vec<&str> = unsafe {
        let library = libloading::Library::new(link::built_library().unwrap()).unwrap();
        declared
            .into_iter()
            .filter(|name| library.get::<fn()>(name.as_bytes()).is_err())
            .collect()
    };
    assert!(missing.is_empty(), "{missing:?}");
}
