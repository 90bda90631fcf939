//! NVLinks: the count, which are up, and what they lead to.

use gpuquota_fake_nvml::scenario::NvLinkEnd;
use nvml_wrapper::enum_wrappers::nv_link::IntDeviceType;
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::NVML_FI_DEV_NVLINK_LINK_COUNT;

use crate::stage::play;

#[test]
fn links_lead_to_switches_or_to_other_gpus_or_are_not_there() {
    play(
        "nvlinks::links_lead_to_switches_or_to_other_gpus_or_are_not_there",
        "h100x8",
        |stage| {
            stage.edit(|scenario| scenario.gpus[0].nvlink[1].down = true);
            let nvml = stage.nvml();
            let truth = &stage.now().gpus[0];
            let gpu = nvml.device_by_index(0).unwrap();
            let count = gpu.field_values_for(&[FieldId(NVML_FI_DEV_NVLINK_LINK_COUNT)]);
            let count = count.unwrap().remove(0).unwrap().value.unwrap();
            assert!(matches!(count, SampleValue::U32(18)), "{count:?}");
            assert!(matches!(
                gpu.link_wrapper_for(18).is_active(),
                Err(NvmlError::InvalidArg)
            ));
            let ends: Vec<_> = (0..18)
                .map(|link| {
                    let link = gpu.link_wrapper_for(link);
                    let end = link.remote_pci_info().unwrap().bus_id;
                    (link.is_active().unwrap(), end)
                })
                .collect();
            let told: Vec<_> = truth
                .nvlink
                .iter()
                .flat_map(|to| (0..to.links).map(|_| (!to.down, to.remote.clone())))
                .collect();
            assert_eq!(ends, told);
            assert!(truth.nvlink.iter().all(|to| to.kind == NvLinkEnd::Switch));
            // The wrapper drops what the call answers; whoever needs it must call by himself.
            let kind = gpu.link_wrapper_for(0).remote_device_type(0).unwrap();
            assert!(matches!(kind, IntDeviceType::Unknown), "mended: {kind:?}");

            stage.edit(|scenario| scenario.gpus[0].nvlink.clear());
            assert!(matches!(
                gpu.link_wrapper_for(0).is_active(),
                Err(NvmlError::NotSupported)
            ));
        },
    );
}
