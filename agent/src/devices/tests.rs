//! The shape that programs rely on.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::gpu::reading::{GpuFacts, Health, HiddenGpu, Licence, Memory, ProcessKind, Why};
use crate::observation::{AttributedProcess, Device, DeviceKey, Figure, Owner, Source, Vgpu};

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
        ..Device::default()
    }
}

/// A row that says nothing but this.
fn row(known: serde_json::Value) -> serde_json::Value {
    let mut row = json!({
        "uuid": null, "kind": null, "model": null, "gpu_model": "nvidia.com/gpu", "parent_uuid": null, "gi": null,
        "ci": null, "profile": null, "vm": null, "tenant": null, "licence": null, "licence_expires_at_s": null, "memory_reserved_bytes": null, "guest_driver": null, "placement_id": null, "memory_total_bytes": null,
        "memory_used_bytes": null, "memory_used_quality": "unknown", "utilization_percent": null, "utilization_quality": "unknown",
        "state": "ok", "numa_node": null, "nvlink_island": null,
        "pci_bus_id": null, "gpu": null, "processes": [], "doubts": [],
    });
    let all = row.as_object_mut().unwrap();
    for (name, value) in known.as_object().unwrap() {
        assert!(all.insert(name.clone(), value.clone()).is_some(), "{name}");
    }
    row
}

#[test]
fn the_json_has_every_field_and_unknown_is_null() {
    let mut instance = device("A100");
    instance.profile = Some("1g.10gb".to_owned());
    instance.mig_uuid = Some("MIG-1".to_owned());
    instance.processes = vec![AttributedProcess {
        pid: Some(7),
        kind: Some(ProcessKind::Mps),
        start_time: Some(1),
        owner: Owner::Tenant {
            name: "t".to_owned(),
            source: Source::Slice,
        },
        used_memory_bytes: None,
        sm: Figure::Estimated(40),
    }];
    instance.whole.percent = Some(40);
    instance.nvlink_island = Some(4);
    instance.facts = Some(Arc::new(GpuFacts {
        numa_node: Some(1),
        pci_bus_id: "00000000:18:00.0".to_owned(),
        ..GpuFacts::default()
    }));
    // One look sees no change of a layout, so it does not say that there was none.
    instance.mig_generation = Some(0);
    let mut lost = device("");
    lost.mig_generation = Some(0);
    lost.health = Health::Lost;
    lost.memory = None;
    lost.unlisted = true;
    lost.partitioned = false;
    assert_eq!(table::holders(&lost), "?");
    let mut old = device("T4");
    old.memory = Some(Memory {
        total: 16,
        reserved: None,
        free: 6,
        used: 10,
    });
    let mut virtual_gpu = device("NVIDIA L40S-8Q");
    virtual_gpu.vgpu = Some(Vgpu {
        gi: Some(3),
        placement_id: Some(2),
        guest_driver: Some("550.90.07".to_owned()),
        parent: "GPU-b".to_owned(),
        vm: Some("vm-1".to_owned()),
        owner: Owner::Tenant {
            name: "t".to_owned(),
            source: Source::Vm,
        },
        licence: Licence::Unlicensed,
        licence_expires_at_s: Some(1_814_356_800),
    });
    let hidden = |uuid: Option<&str>, pci: &str, why| HiddenGpu {
        pci_bus_id: pci.to_owned(),
        uuid: uuid.map(str::to_owned),
        why,
    };
    let observation = Observation {
        hidden: vec![
            hidden(Some("GPU-x"), "00000000:9A:00.0", Why::Excluded),
            hidden(None, "00000000:AB:00.0", Why::Passthrough),
        ],
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
    let expected = json!({"driver": null, "devices": [
        row(json!({"uuid": "GPU-a", "kind": "gpu", "state": "lost", "processes": null})),
        row(json!({"uuid": "GPU-b", "kind": "gpu", "model": "T4", "memory_total_bytes": 16})),
        row(json!({"uuid": "MIG-1", "kind": "mig", "model": "A100", "parent_uuid": "GPU-a", "gi": 3, "ci": 0,
            "profile": "1g.10gb", "memory_total_bytes": 80, "memory_used_bytes": 10, "memory_used_quality": "measured", "memory_reserved_bytes": 5,
            "numa_node": 1, "nvlink_island": 4, "pci_bus_id": "00000000:18:00.0",
            "utilization_percent": 40, "utilization_quality": "measured",
            "processes": [{"pid": 7, "tenant": "t", "source": "slice", "reason": null, "kind": "mps", "used_memory_bytes": null, "used_memory_quality": "unknown",
                "sm_percent": 40, "sm_quality": "estimated"}]})),
        row(json!({"uuid": "v-1", "kind": "vgpu", "model": "NVIDIA L40S-8Q", "parent_uuid": "GPU-b",
            "memory_total_bytes": 80, "memory_used_bytes": 10, "memory_used_quality": "measured", "memory_reserved_bytes": 5, "vm": "vm-1", "tenant": "t", "licence": "unlicensed", "licence_expires_at_s": 1_814_356_800, "gi": 3,
            "placement_id": 2, "guest_driver": "550.90.07"})),
        row(json!({"uuid": "GPU-w", "kind": "gpu", "gpu_model": null, "state": "hung", "processes": null, "pci_bus_id": "00000000:89:00.0"})),
        row(json!({"kind": "gpu", "gpu_model": null, "state": "lost", "processes": null})),
        row(json!({"uuid": "GPU-x", "kind": "gpu", "gpu_model": null, "state": "excluded", "processes": null, "pci_bus_id": "00000000:9A:00.0"})),
        row(json!({"kind": "gpu", "gpu_model": null, "state": "passthrough", "processes": null, "pci_bus_id": "00000000:AB:00.0"})),
    ]});
    let gone = |uuid: Option<&str>, pci: Option<&str>, health| Missing {
        uuid: uuid.map(str::to_owned),
        pci_bus_id: pci.map(str::to_owned),
        health,
    };
    let look = Look {
        observation,
        missing: vec![
            gone(Some("GPU-w"), Some("00000000:89:00.0"), Health::Hung),
            gone(None, None, Health::Lost),
        ],
        open_nodes: Opened::default(),
    };
    assert_eq!(serde_json::to_value(document(&look)).unwrap(), expected);
    let mut text = Vec::new();
    table::print(&look, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = text.lines().map(words).collect();
    assert_eq!(
        lines[lines.len() - 4..],
        [
            "GPU-w ? hung ?",
            "GPU unknown ? lost ?",
            "GPU-x ? excluded",
            "00000000:AB:00.0 ? passthrough"
        ]
    );
    assert_eq!(
        (
            table::state(&virtual_gpu).as_str(),
            table::holders(&virtual_gpu).as_str()
        ),
        ("ok, unlicensed", "t(vm):1")
    );
}

#[test]
fn without_nvml_the_reason_is_there() {
    let observation = Observation {
        hidden: Vec::new(),
        at_boottime_ms: 1,
        nvml: NvmlState::Absent("no such file".to_owned()),
        driver_version: None,
        devices: BTreeMap::new(),
    };
    let expected = json!({"driver": null, "devices": [], "error": {"state": "absent", "detail": "no such file"}});
    let look = Look {
        observation,
        missing: Vec::new(),
        open_nodes: Opened::default(),
    };
    assert_eq!(serde_json::to_value(document(&look)).unwrap(), expected);
}
