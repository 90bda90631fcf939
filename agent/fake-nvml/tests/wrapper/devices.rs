//! GPUs and MIG devices: that each call gives what the scenario says, on the device it was asked about.

use gpuquota_fake_nvml::scenario::Gpu;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::{NVML_FI_DEV_MEMORY_TEMP, NVML_FI_DEV_RETIRED_PENDING};
use nvml_wrapper::{Device, Nvml};

use crate::stage::play;

const MIB: u64 = 1 << 20;

#[test]
fn a_whole_gpu_is_what_the_scenario_says() {
    play(
        "devices::a_whole_gpu_is_what_the_scenario_says",
        "h100x8",
        |stage| {
            let nvml = stage.nvml();
            let scenario = stage.now();
            assert_eq!(nvml.sys_driver_version().unwrap(), scenario.driver_version);
            assert_eq!(nvml.sys_nvml_version().unwrap(), scenario.nvml_version);
            assert_eq!(nvml.sys_cuda_driver_version().unwrap(), 12_040);
            assert_eq!(nvml.device_count().unwrap(), 8);
            assert!(matches!(
                nvml.device_by_index(8),
                Err(NvmlError::InvalidArg)
            ));
            for (index, gpu) in (0..).zip(&scenario.gpus) {
                check_gpu(&nvml.device_by_index(index).unwrap(), index, gpu);
                #[expect(deprecated, reason = "the call exists")]
                for found in [
                    nvml.device_by_uuid(&*gpu.uuid),
                    nvml.device_by_pci_bus_id(&*gpu.pci_bus_id),
                    nvml.device_by_pci_bus_id(&gpu.pci_bus_id[4..]),
                    nvml.device_by_serial(gpu.serial.as_deref().unwrap()),
                ] {
                    assert_eq!(found.unwrap().uuid().unwrap(), gpu.uuid);
                }
            }
            assert!(matches!(
                nvml.device_by_uuid("GPU-x"),
                Err(NvmlError::NotFound)
            ));
        },
    );
}

fn check_gpu(device: &Device<'_>, index: u32, gpu: &Gpu) {
    assert_eq!(device.uuid().unwrap(), gpu.uuid);
    assert_eq!(device.name().unwrap(), gpu.name);
    assert_eq!(device.index().unwrap(), index);
    assert_eq!(device.minor_number().unwrap(), gpu.minor.unwrap());
    let pci = device.pci_info().unwrap();
    assert_eq!(
        (pci.bus_id, pci.pci_device_id),
        (gpu.pci_bus_id.clone(), gpu.pci_device_id)
    );
    let memory = device.memory_info().unwrap();
    assert_eq!(memory.total, gpu.memory_total_mib * MIB);
    assert_eq!(memory.reserved, gpu.memory_reserved_mib * MIB);
    assert_eq!(
        (memory.used, memory.free),
        (0, memory.total - memory.reserved)
    );
    assert_eq!(device.utilization_rates().unwrap().gpu, 0);
    assert_eq!(
        device.temperature(TemperatureSensor::Gpu).unwrap(),
        gpu.temperature_c.unwrap()
    );
    assert_eq!(device.power_usage().unwrap(), gpu.power_mw.unwrap());
    assert_eq!(
        device.clock_info(Clock::Memory).unwrap(),
        gpu.clocks_mhz.unwrap().memory
    );
    assert_eq!(
        device.max_clock_info(Clock::SM).unwrap(),
        gpu.max_clocks_mhz.unwrap().sm
    );
    assert_eq!(device.max_pcie_link_gen().unwrap(), 5);
    assert!(!device.mig_mode().map(|mode| mode.current != 0).unwrap());
    assert!(
        matches!(device.fan_speed(0), Err(NvmlError::NotSupported)),
        "an SXM board has no fan"
    );
    assert!(matches!(
        device.process_utilization_stats(None),
        Err(NvmlError::NotFound)
    ));
    assert!(device.running_compute_processes().unwrap().is_empty());
    let fields = device.field_values_for(&[
        FieldId(NVML_FI_DEV_MEMORY_TEMP),
        FieldId(NVML_FI_DEV_RETIRED_PENDING),
    ]);
    let fields = fields.unwrap();
    assert!(fields[0].as_ref().unwrap().value.is_ok());
    assert!(
        fields[1].as_ref().unwrap().value.is_err(),
        "one unknown field leaves the other alone"
    );
}

#[test]
fn mig_devices_are_found_in_sparse_slots_and_know_their_instances() {
    play(
        "devices::mig_devices_are_found_in_sparse_slots_and_know_their_instances",
        "a100-mig",
        |stage| {
            let nvml = stage.nvml();
            let scenario = stage.now();
            let gpu = &scenario.gpus[1];
            let parent = nvml.device_by_index(1).unwrap();
            assert_eq!(
                parent.mig_device_count().unwrap(),
                7,
                "the number of slots, not of devices"
            );
            assert!(matches!(
                parent.utilization_rates(),
                Err(NvmlError::NotSupported)
            ));
            assert!(matches!(
                parent.process_utilization_stats(None),
                Err(NvmlError::NotSupported)
            ));
            let slots: Vec<u32> = (0..7)
                .filter(|slot| match parent.mig_device_by_index(*slot) {
                    Ok(_) => true,
                    Err(error) => {
                        assert!(matches!(error, NvmlError::NotFound));
                        false
                    }
                })
                .collect();
            assert_eq!(slots, [0, 2, 3]);
            for (slot, mig) in gpu.slotted_mig() {
                for device in [
                    parent.mig_device_by_index(slot).unwrap(),
                    nvml.device_by_uuid(&*mig.uuid).unwrap(),
                ] {
                    assert!(device.mig_is_mig_device_handle().unwrap());
                    assert_eq!(device.uuid().unwrap(), mig.uuid);
                    assert_eq!(device.index().unwrap(), slot);
                    assert_eq!(
                        device.name().unwrap(),
                        format!("{} MIG {}", gpu.name, mig.profile)
                    );
                    assert_eq!(
                        device.mig_parent_device().unwrap().uuid().unwrap(),
                        gpu.uuid
                    );
                    assert_eq!(instance_of(&nvml, &device), (mig.gi, mig.ci));
                    assert_eq!(
                        device.memory_info().unwrap().total,
                        mig.memory_total_mib * MIB
                    );
                    let attributes = device.attributes().unwrap();
                    assert_eq!(attributes.multiprocessor_count, mig.sm_count);
                    assert_eq!(attributes.memory_size_mb, mig.memory_total_mib);
                    assert_eq!(
                        Some(attributes.gpu_instance_slice_count),
                        mig.slices().map(|slices| slices[0])
                    );
                    assert!(matches!(
                        device.minor_number(),
                        Err(NvmlError::NotSupported)
                    ));
                }
            }
            assert!(!parent.mig_is_mig_device_handle().unwrap());
            assert!(matches!(parent.attributes(), Err(NvmlError::NotSupported)));
            let whole = nvml.device_by_index(2).unwrap();
            assert_eq!(whole.mig_device_count().unwrap(), 0);
            assert_eq!(whole.mig_mode().unwrap().current, 0);
            assert!(matches!(
                whole.mig_device_by_index(0),
                Err(NvmlError::NotFound)
            ));
        },
    );
}

/// What the wrapper lacks.
fn instance_of(nvml: &Nvml, device: &Device<'_>) -> (u32, u32) {
    let (mut gi, mut ci) = (0, 0);
    let library = nvml.lib();
    #[expect(unsafe_code, reason = "raw NVML calls")]
    // SAFETY: the handle is the wrapper's, and the ids have a place to go to.
    unsafe {
        assert_eq!(
            library.nvmlDeviceGetGpuInstanceId.as_ref().unwrap()(device.handle(), &mut gi),
            0
        );
        assert_eq!(
            library.nvmlDeviceGetComputeInstanceId.as_ref().unwrap()(device.handle(), &mut ci),
            0
        );
    }
    (gi, ci)
}

#[test]
fn cutting_a_gpu_anew_shows_at_once_and_spoils_the_old_handles() {
    play(
        "devices::cutting_a_gpu_anew_shows_at_once_and_spoils_the_old_handles",
        "a100-mig",
        |stage| {
            let nvml = stage.nvml();
            let parent = nvml.device_by_index(0).unwrap();
            let old = parent.mig_device_by_index(1).unwrap();
            let kept = parent.mig_device_by_index(0).unwrap();
            stage.edit(|scenario| scenario.slice("0", &["3g.40gb", "2g.20gb"]).unwrap());
            assert!(matches!(old.uuid(), Err(NvmlError::InvalidArg)));
            assert!(
                kept.uuid().is_ok(),
                "an identical instance has the identical UUID"
            );
            let new = parent.mig_device_by_index(1).unwrap();
            assert!(new.name().unwrap().ends_with("2g.20gb"));
            stage.edit(|scenario| scenario.slice("0", &[]).unwrap());
            assert!(matches!(new.uuid(), Err(NvmlError::InvalidArg)));
            assert_eq!(parent.mig_device_count().unwrap(), 0);
            assert!(parent.utilization_rates().is_ok());
        },
    );
}

#[test]
#[expect(
    unsafe_code,
    reason = "raw NVML calls with arguments that a wrapper never passes"
)]
fn wrong_arguments_get_the_code_for_them_and_never_a_crash() {
    play(
        "devices::wrong_arguments_get_the_code_for_them_and_never_a_crash",
        "t4x1",
        |stage| {
            let nvml = stage.nvml();
            let gpu = nvml.device_by_index(0).unwrap();
            let (library, null) = (nvml.lib(), std::ptr::null_mut());
            let mut memory = nvml_wrapper_sys::bindings::nvmlMemory_v2_t {
                version: 0,
                total: 7,
                reserved: 0,
                free: 0,
                used: 0,
            };
            let mut name = [1; 10];
            // SAFETY: what is not NULL has room for what is said of it; bad handles are what is tried here.
            unsafe {
                let handle = gpu.handle();
                let memory_info = library.nvmlDeviceGetMemoryInfo_v2.as_ref().unwrap();
                assert_eq!(
                    (memory_info(handle, &mut memory), memory.total),
                    (25, 7),
                    "a word that is not the version"
                );
                assert_eq!(memory_info(handle, std::ptr::null_mut()), 2);
                let get_name = library.nvmlDeviceGetName.as_ref().unwrap();
                assert_eq!(
                    (get_name(handle, name.as_mut_ptr(), 8), name[0]),
                    (7, 1),
                    "no room for all of \"Tesla T4\""
                );
                assert_eq!(
                    (get_name(handle, name.as_mut_ptr(), 9), name[8], name[9]),
                    (0, 0, 1)
                );
                for bad in [
                    null,
                    handle.wrapping_byte_add(1),
                    handle.wrapping_byte_add(0x4000),
                ] {
                    assert_eq!(get_name(bad, name.as_mut_ptr(), 10), 2);
                }
                assert_eq!(
                    library.nvmlDeviceGetHandleByUUID.as_ref().unwrap()(std::ptr::null(), &mut {
                        handle
                    }),
                    2
                );
                assert_eq!(
                    library.nvmlDeviceGetHandleByIndex_v2.as_ref().unwrap()(
                        0,
                        std::ptr::null_mut()
                    ),
                    2
                );
                let list = library
                    .nvmlDeviceGetComputeRunningProcesses_v3
                    .as_ref()
                    .unwrap();
                assert_eq!(list(handle, std::ptr::null_mut(), std::ptr::null_mut()), 2);
                let unmodelled = library
                    .nvmlDeviceGetTopologyCommonAncestor
                    .as_ref()
                    .unwrap();
                assert_eq!(unmodelled(handle, handle, std::ptr::null_mut()), 3);
            }
        },
    );
}

/// GPU instances as objects, which only privileged callers see: the profile says `+me` where names of others are the same.
#[test]
fn profiles_have_names_and_ids_and_older_callers_the_sizes() {
    play(
        "devices::profiles_have_names_and_ids_and_older_callers_the_sizes",
        "a100-mig",
        |stage| {
            let nvml = stage.nvml();
            let gpu = nvml.device_by_index(0).unwrap();
            let info = gpu.profile_info(7).unwrap();
            assert_eq!((info.id, info.slice_count, info.instance_count), (20, 1, 1));
            assert!(matches!(gpu.profile_info(17), Err(NvmlError::InvalidArg)));
            assert!(matches!(gpu.profile_info(10), Err(NvmlError::NotSupported)));
        },
    );
}
