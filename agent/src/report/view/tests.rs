//! What joins, leaves and lingers in the view.

use super::*;
use crate::observation::{AttributedProcess, Reason, Source};

fn device(tenants: &[&str], health: Health) -> Device {
    Device {
        health,
        model: "H100".into(),
        gpu_model: "nvidia.com/gpu".into(),
        profile: None,
        mig_uuid: None,
        minor: None,
        partitioned: false,
        memory: None,
        processes: tenants
            .iter()
            .map(|name| AttributedProcess {
                pid: Some(7),
                kind: None,
                start_time: None,
                owner: if name.is_empty() {
                    Owner::Unattributed(Reason::NoRule)
                } else {
                    Owner::Tenant {
                        name: (*name).into(),
                        source: Source::Slice,
                    }
                },
                used_memory_bytes: None,
                sm: Default::default(),
            })
            .collect(),
        vgpu: None,
        ..Device::default()
    }
}

#[test]
fn who_joins_is_told_at_once_and_who_left_lingers_without_a_token() {
    let mut view = DeviceView::new(&device(&["b", "b"], Health::Ok));
    assert_eq!(view.tenants, ["b"]);
    assert!(view.update(&device(&["a", ""], Health::Ok), || false));
    assert_eq!(
        (view.tenants.join(","), view.unattributed),
        ("a,b".into(), true)
    );
    assert!(!view.update(&device(&["a"], Health::Ok), || false));
    assert!(view.update(&device(&["a"], Health::Ok), || true));
    assert_eq!(
        (view.tenants.join(","), view.unattributed),
        ("a".into(), false)
    );
    assert!(!view.update(&device(&["a"], Health::Ok), || panic!("nobody left")));
}

#[test]
fn nobody_leaves_a_device_that_does_not_answer() {
    let mut view = DeviceView::new(&device(&["a"], Health::Ok));
    let mut silent = device(&[], Health::Hung);
    silent.model = String::new();
    assert!(view.update(&silent, || panic!("not asked")));
    assert_eq!(
        (view.tenants.join(","), view.model.as_str()),
        ("a".into(), "H100")
    );
    assert_eq!(view.health, Health::Hung);
}

#[test]
fn more_tenants_than_the_wire_carries_show_as_unattributed() {
    let names: Vec<String> = (0..300).map(|n| format!("t{n:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut view = DeviceView::new(&device(&names, Health::Ok));
    assert_eq!((view.tenants.len(), view.unattributed), (256, true));
    assert!(!view.update(&device(&names, Health::Ok), || true));
    assert!(view.update(&device(&names[..10], Health::Ok), || true));
    assert_eq!((view.tenants.len(), view.unattributed), (10, false));
}

fn vgpu(licence: Licence) -> Device {
    let mut device = device(&[], Health::Ok);
    device.vgpu = Some(Vgpu {
        gi: None,
        placement_id: None,
        guest_driver: None,
        parent: "GPU-1".into(),
        vm: Some("vm-1".into()),
        owner: Owner::Tenant {
            name: "a".into(),
            source: Source::Vm,
        },
        licence,
        licence_expires_at_s: None,
    });
    device
}

#[test]
fn a_licence_is_told_at_once_and_its_loss_when_there_is_a_token() {
    let mut view = DeviceView::new(&vgpu(Licence::Unlicensed));
    assert_eq!(view.tenants, ["a"]);
    let licence = |view: &DeviceView| view.vgpu.as_ref().unwrap().licence;
    assert!(view.update(&vgpu(Licence::Licensed), || panic!("nothing is lost")));
    assert_eq!(licence(&view), Licence::Licensed);
    for lost in [Licence::Unlicensed, Licence::Unknown] {
        assert!(!view.update(&vgpu(lost), || false));
        assert_eq!(licence(&view), Licence::Licensed, "it lingers");
    }
    let mut silent = vgpu(Licence::Unknown);
    silent.health = Health::Lost;
    assert!(view.update(&silent, || panic!("who does not answer says nothing")));
    assert_eq!(licence(&view), Licence::Licensed);
    assert!(view.update(&vgpu(Licence::Unlicensed), || true));
    assert_eq!(licence(&view), Licence::Unlicensed);
    let mut gone = vgpu(Licence::Unknown);
    gone.vgpu.as_mut().unwrap().owner = Owner::Unattributed(Reason::NoRule);
    let mut asked = 0;
    let one = || {
        asked += 1;
        true
    };
    assert!(view.update(&gone, one));
    assert_eq!((asked, view.unattributed, view.tenants.len()), (1, true, 0));
}

#[test]
fn where_a_gpu_sits_is_told_and_outlives_a_restart_and_a_silence() {
    use crate::observation::DeviceKey;
    use crate::report::wire;
    let key = DeviceKey::Gpu("GPU-1".into());
    let mut told = DeviceView::new(&device(&[], Health::Ok));
    let mut placed = device(&[], Health::Ok);
    placed.nvlink_island = Some(4);
    placed.facts = Some(std::sync::Arc::new(crate::gpu::reading::GpuFacts {
        numa_node: Some(1),
        ..Default::default()
    }));
    assert!(told.update(&placed, || panic!("nobody left")));
    assert!(!told.update(&placed, || panic!("nobody left")));
    let row = wire::device_state(&key, &told);
    assert_eq!((row.numa_node, row.nvlink_island), (Some(1), Some(4)));
    let (_, mut remembered) = wire::remembered_view(row).unwrap();
    assert!(remembered.update(&device(&[], Health::Ok), || false));
    let places = (remembered.numa_node, remembered.nvlink_island);
    assert_eq!(places, (Some(1), Some(4)), "not asked yet");
}
