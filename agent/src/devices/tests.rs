//! The shape that programs rely on.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::gpu::reading::Memory;
use crate::observation::{Source, Vgpu};

fn device(model: &str) -> Device {
    Device {
        health: Health::Ok,
        model: model.to_owned(),
        gpu_model: "nvidia.com/gpu".to_owned(),
        profile: None,
        mig_uuid: None,
        minor: None,
        partitioned: false,
        memory: Some(Memory {
            total: 80,
            reserved: Some(5),
            free: 65,
            used: 10,
        }),
        processes: Vec::new(),
        vgpu: None,
    }
}

#[test]
fn the_json_has_every_field_and_unknown_is_null() {
    let mut instance = device("A100");
    instance.profile = Some("1g.10gb".to_owned());
    instance.mig_uuid = Some("MIG-1".to_owned());
    instance.processes = vec![AttributedProcess {
        pid: 7,
        start_time: Some(1),
        owner: Owner::Tenant {
            name: "t".to_owned(),
            source: Source::Slice,
        },
        used_memory_bytes: None,
    }];
    let mut lost = device("");
    lost.health = Health::Lost;
    lost.memory = None;
    let mut old = device("T4");
    old.memory = Some(Memory {
        total: 16,
        reserved: None,
        free: 6,
        used: 10,
    });
    let mut virtual_gpu = device("NVIDIA L40S-8Q");
    virtual_gpu.vgpu = Some(Vgpu {
        parent: "GPU-b".to_owned(),
        vm: Some("vm-1".to_owned()),
        owner: Owner::Tenant {
            name: "t".to_owned(),
            source: Source::Vm,
        },
        licence: Licence::Unlicensed,
        licence_expires_at_s: None,
    });
    let observation = Observation {
        at_boottime_ms: 1,
        nvml: NvmlState::Ok,
        driver_version: None,
        devices: BTreeMap::from([
            (DeviceKey::Gpu("GPU-a".to_owned()), lost),
            (DeviceKey::Gpu("GPU-b".to_owned()), old),
            (DeviceKey::Mig("GPU-a".to_owned(), 3, 0), instance),
            (DeviceKey::Vgpu("v-1".to_owned()), virtual_gpu.clone()),
        ]),
    };
    let none = json!(null);
    let expected = json!({"driver": null, "devices": [
        {"uuid": "GPU-a", "kind": "gpu", "model": none, "gpu_model": "nvidia.com/gpu", "parent_uuid": none,
         "gi": none, "ci": none, "profile": none, "memory_total_bytes": none, "memory_used_bytes": none,
         "state": "lost", "vm": none, "tenant": none, "licence": none, "processes": []},
        {"uuid": "GPU-b", "kind": "gpu", "model": "T4", "gpu_model": "nvidia.com/gpu", "parent_uuid": none,
         "gi": none, "ci": none, "profile": none, "memory_total_bytes": 16, "memory_used_bytes": none,
         "state": "ok", "vm": none, "tenant": none, "licence": none, "processes": []},
        {"uuid": "MIG-1", "kind": "mig", "model": "A100", "gpu_model": "nvidia.com/gpu", "parent_uuid": "GPU-a",
         "gi": 3, "ci": 0, "profile": "1g.10gb", "memory_total_bytes": 80, "memory_used_bytes": 10,
         "state": "ok", "vm": none, "tenant": none, "licence": none, "processes": [{"pid": 7, "tenant": "t", "used_memory_bytes": none}]},
        {"uuid": "v-1", "kind": "vgpu", "model": "NVIDIA L40S-8Q", "gpu_model": "nvidia.com/gpu", "parent_uuid": "GPU-b",
         "gi": none, "ci": none, "profile": none, "memory_total_bytes": 80, "memory_used_bytes": 10,
         "state": "ok", "vm": "vm-1", "tenant": "t", "licence": "unlicensed", "processes": []},
    ]});
    assert_eq!(
        serde_json::to_value(document(&observation, &[])).unwrap(),
        expected
    );
    assert_eq!(
        (state(&virtual_gpu).as_str(), holders(&virtual_gpu).as_str()),
        ("ok, unlicensed", "t:1")
    );
}

#[test]
fn without_nvml_the_reason_is_there() {
    let observation = Observation {
        at_boottime_ms: 1,
        nvml: NvmlState::Absent("no such file".to_owned()),
        driver_version: None,
        devices: BTreeMap::new(),
    };
    let expected = json!({"driver": null, "devices": [], "error": {"state": "absent", "detail": "no such file"}});
    assert_eq!(
        serde_json::to_value(document(&observation, &[])).unwrap(),
        expected
    );
}
