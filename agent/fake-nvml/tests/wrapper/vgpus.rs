//! vGPU instances on a host: who holds them, what they are, and what their guests say of their licence.

use gpuquota_fake_nvml::scenario::{Action, Fault, Licence, Scenario};
use nvml_wrapper::enum_wrappers::device::GpuVirtualizationMode;
use nvml_wrapper::enum_wrappers::vgpu::{VgpuLicenseState, VmId};
use nvml_wrapper::error::NvmlError;

use crate::stage::play;

const MIB: u64 = 1 << 20;

#[test]
fn a_vgpu_is_what_the_scenario_says_while_its_vm_runs() {
    play(
        "vgpus::a_vgpu_is_what_the_scenario_says_while_its_vm_runs",
        "l40s-vgpu",
        |stage| {
            let nvml = stage.nvml();
            stage.edit(|scenario| {
                scenario.gpus[0].vgpu[0].memory_used_mib = 700;
                scenario.gpus[0].vgpu[1].vm = Some("17".to_owned());
                scenario.gpus[0].vgpu[1].driver_version = None;
            });
            let truth = stage.now().gpus[0].vgpu.clone();
            let gpu = nvml.device_by_index(0).unwrap();
            assert_eq!(
                gpu.virtualization_mode().unwrap(),
                GpuVirtualizationMode::HostVgpu
            );
            assert!(gpu.vgpu_host_mode().is_ok());
            assert_eq!(gpu.memory_info().unwrap().used, 2 * 8192 * MIB);
            let vgpus = gpu.active_vgpus().unwrap();
            assert_eq!(vgpus.len(), 2);
            for (vgpu, truth) in vgpus.iter().zip(&truth) {
                assert_eq!(vgpu.uuid().unwrap(), truth.uuid);
                assert_eq!(vgpu.fb_usage().unwrap(), truth.memory_used_mib * MIB);
                assert!(matches!(vgpu.mdev_uuid(), Err(NvmlError::NotSupported)));
                let of = vgpu.instance_type().unwrap();
                assert_eq!(of.name().unwrap(), truth.type_name);
                assert_eq!(of.framebuffer_size().unwrap(), 8192 * MIB);
                assert_eq!(of.class_name().unwrap(), "Quadro");
                assert!(of.license().unwrap().contains("Virtual-WS"));
                assert_eq!(of.device_id().unwrap().0, 0x26b9_10de);
            }
            let uuid = truth[0].vm.clone().unwrap();
            assert!(matches!(vgpus[0].vm_id().unwrap(), VmId::Uuid(vm) if vm == uuid));
            assert!(matches!(vgpus[1].vm_id().unwrap(), VmId::Domain(vm) if vm == "17"));
            assert_eq!(
                vgpus[0].driver_version().unwrap(),
                stage.now().driver_version
            );
            assert_eq!(vgpus[1].driver_version().unwrap(), "Not Available");

            // One size at a time: the idle GPU takes any, the other only more of the same.
            let idle = nvml.device_by_index(1).unwrap();
            assert!(idle.active_vgpus().unwrap().is_empty());
            let supported = gpu.vgpu_supported_types().unwrap().len();
            assert_eq!(idle.vgpu_creatable_types().unwrap().len(), supported);
            let creatable = gpu.vgpu_creatable_types().unwrap();
            assert_eq!(creatable.len(), 1);
            assert_eq!(creatable[0].name().unwrap(), "NVIDIA L40S-8Q");
            assert_eq!(creatable[0].max_instances().unwrap(), 6);

            stage.edit(|scenario| scenario.remove_vgpu(&truth[0].uuid).unwrap());
            assert!(matches!(vgpus[0].uuid(), Err(NvmlError::NotFound)));
            assert!(matches!(vgpus[0].vm_id(), Err(NvmlError::NotFound)));
            assert_eq!(vgpus[1].uuid().unwrap(), truth[1].uuid);
            stage.edit(|scenario| scenario.set_lost("0", true).unwrap());
            assert!(matches!(vgpus[1].uuid(), Err(NvmlError::GpuLost)));
        },
    );
}

/// Class (l): no date, no licence, no driver in the guest, an old driver.
#[test]
fn a_licence_is_told_as_the_guest_has_it() {
    play(
        "vgpus::a_licence_is_told_as_the_guest_has_it",
        "l40s-vgpu",
        |stage| {
            let nvml = stage.nvml();
            let gpu = nvml.device_by_index(0).unwrap();
            let vgpu = &gpu.active_vgpus().unwrap()[0];
            let told = vgpu.license_info_v2().unwrap();
            let expiry = &told.expiry;
            assert_eq!(
                (told.is_licensed, told.state),
                (true, VgpuLicenseState::Licensed)
            );
            assert_eq!(
                (expiry.year, expiry.month, expiry.day, expiry.hour),
                (2027, 6, 30, 12)
            );
            assert_eq!(expiry.status, 2);
            let uuid = vgpu.uuid().unwrap();
            let set = |licence| {
                let change = |scenario: &mut Scenario| scenario.license_vgpu(&uuid, licence, None);
                stage.edit(|scenario| change(scenario).unwrap());
            };
            for (licence, licensed, state) in [
                (Licence::Licensed, true, VgpuLicenseState::Licensed),
                (Licence::Unlicensed, false, VgpuLicenseState::Unlicensed),
                (Licence::Unknown, false, VgpuLicenseState::Uninitialized),
            ] {
                set(licence);
                let told = vgpu.license_info_v2().unwrap();
                assert_eq!((told.is_licensed, told.state), (licensed, state));
                assert_eq!(told.expiry.status, 0, "no date");
            }
            set(Licence::NoDriver);
            assert!(matches!(
                vgpu.license_info_v2(),
                Err(NvmlError::DriverNotLoaded)
            ));
            set(Licence::Licensed);
            stage.edit(|scenario| {
                scenario
                    .missing_symbols
                    .push("nvmlVgpuInstanceGetLicenseInfo_v2".to_owned());
                let fault = Fault {
                    gpu: Some(uuid.clone()),
                    code: Some(6),
                    ..Fault::new("nvmlVgpuInstanceGetFbUsage", Action::Return)
                };
                scenario.add_fault(fault).unwrap();
            });
            assert!(matches!(
                vgpu.license_info_v2(),
                Err(NvmlError::FunctionNotFound)
            ));
            assert!(matches!(vgpu.fb_usage(), Err(NvmlError::NotFound)));
            let other = &gpu.active_vgpus().unwrap()[1];
            assert_eq!(other.fb_usage().unwrap(), 0, "the fault is another vGPU's");
        },
    );
}

/// Two calls of the wrapper never set the struct's version: whoever needs the answer must call by himself. Should this fail,
/// the wrapper was mended and the agent's own call can go.
#[test]
fn the_wrappers_placement_is_refused_for_want_of_a_version() {
    play(
        "vgpus::the_wrappers_placement_is_refused_for_want_of_a_version",
        "l40s-vgpu",
        |stage| {
            let nvml = stage.nvml();
            let gpu = nvml.device_by_index(0).unwrap();
            let vgpu = gpu.active_vgpus().unwrap().remove(0);
            let refused = vgpu.placement_id().unwrap_err();
            assert!(
                matches!(refused, NvmlError::UnexpectedVariant(25)),
                "{refused}"
            );
            assert_eq!(vgpu.gpu_instance_id().unwrap(), u32::MAX);
        },
    );
}
