//! What a scrape gets: the right rows, nothing stale, nothing for whoever has no token.

use std::sync::Arc;
use std::time::Duration;

use gpuquota_proto::exposition::Format;

use super::snapshot::{Board, Pass};
use super::text::render;
use crate::events::sentinel::Shown;
use crate::gpu::reading::{
    GpuFacts, Health, HiddenGpu, Licence, Memory, NvmlState, RemappedRows, Why,
};
use crate::gpu::sampler::SamplerStats;
use crate::gpu::unnamed::Unnamed;
use crate::observation::{
    AttributedProcess, Device, DeviceKey, Figure, Observation, Owner, Reason, Source, Vgpu,
};

mod formats;
mod listener;

fn process(pid: u32, owner: Owner, used_memory_bytes: Option<u64>) -> AttributedProcess {
    AttributedProcess {
        pid: Some(pid),
        kind: None,
        start_time: Some(1),
        owner,
        used_memory_bytes,
        sm: Default::default(),
    }
}

fn tenant(name: &str) -> Owner {
    Owner::Tenant {
        name: name.into(),
        source: Source::Slice,
    }
}

fn device(health: Health, processes: Vec<AttributedProcess>) -> Device {
    Device {
        health,
        model: "NVIDIA \"H100\"".into(),
        gpu_model: "nvidia.com/gpu".into(),
        profile: None,
        mig_uuid: None,
        minor: Some(0),
        partitioned: false,
        memory: None,
        processes,
        vgpu: None,
        ..Device::default()
    }
}

fn observation() -> Observation {
    let mut instance = device(Health::Ok, vec![process(13, tenant("b"), None)]);
    instance.gpu_model = "nvidia.com/mig-1g.10gb".into();
    instance.mig_uuid = Some("MIG-1".into());
    instance.profile = Some("1g.10gb".into());
    let mut cut = device(Health::Ok, Vec::new());
    (cut.partitioned, cut.mig_generation) = (true, Some(3));
    cut.facts = Some(Arc::new(GpuFacts {
        pci_bus_id: "00000000:03:00.0".into(),
        serial: Some("165".into()),
        numa_node: Some(1),
        persistence: Some(false),
        remapped_rows: Some(RemappedRows {
            correctable: 0,
            uncorrectable: 2,
            pending: false,
            failed: true,
        }),
        ..GpuFacts::default()
    }));
    let unknown = Owner::Unattributed(Reason::NoRule);
    let mut sampled = process(10, tenant("a"), Some(100));
    sampled.sm = Figure::Measured(30);
    let shared = vec![
        sampled,
        process(11, tenant("a"), Some(20)),
        process(12, unknown, Some(7)),
    ];
    let hidden = |pci: &str, why| HiddenGpu {
        pci_bus_id: pci.into(),
        uuid: None,
        why,
    };
    Observation {
        hidden: vec![
            hidden("00000000:01:00.0", Why::Excluded),
            hidden("00000000:02:00.0", Why::Passthrough),
        ],
        at_boottime_ms: 5000,
        nvml: NvmlState::Ok,
        driver_version: None,
        devices: [
            (DeviceKey::Gpu("GPU-a".into()), device(Health::Ok, shared)),
            (
                DeviceKey::Gpu("GPU-b".into()),
                device(Health::Hung, vec![process(14, tenant("c"), Some(1))]),
            ),
            (DeviceKey::Gpu("GPU-c".into()), cut),
            (DeviceKey::Mig("GPU-c".into(), 1, 0), instance),
        ]
        .into(),
    }
}

fn board(observation: Observation) -> Board {
    board_at(observation, 5000)
}

fn board_at(observation: Observation, at: u64) -> Board {
    let board = Board::new(Duration::from_secs(1), Duration::from_secs(8), None);
    board.post(Pass {
        observation: Some(Arc::new(observation)),
        good_at_boottime_ms: Some(at),
        ended_boottime_ms: at,
        sampler: SamplerStats {
            workers_restarted: 2,
            unidentified: 2,
            ..Default::default()
        },
        unnamed: unnamed(),
        trouble: Shown::default(),
        open_nodes: Arc::default(),
        unresolved: Arc::new([crate::attribute::NamedId::user("ann")].into()),
    });
    board
}

fn unnamed() -> Vec<Unnamed> {
    let lost = |pci: Option<&str>| Unnamed {
        pci_bus_id: pci.map(str::to_owned),
        health: Health::Lost,
    };
    vec![lost(Some("00000000:04:00.0")), lost(None), lost(None)]
}

fn text(board: &Board, now: u64) -> String {
    String::from_utf8(render(&board.view(now), Format::Text).unwrap()).unwrap()
}

#[test]
fn rows_are_those_of_the_observation() {
    let text = text(&board(observation()), 5500);
    for row in [
        "gpuquota_up 1",
        "gpuquota_collect_age_seconds 0.5",
        "gpuquota_worker_restarts_total 2",
        "gpuquota_workers_abandoned 0",
        r#"gpuquota_unresolved_names{kind="user",name="ann"} 1"#,
        "gpuquota_driver_unresponsive 0",
        r#"gpuquota_nvml_state{state="ok"} 1"#,
        r#"gpuquota_nvml_state{state="absent"} 0"#,
        r#"gpuquota_gpus{state="ok"} 2"#,
        r#"gpuquota_mig_generation{uuid="GPU-c"} 3"#,
        r#"gpuquota_gpus{state="hung"} 1"#,
        r#"gpuquota_gpus{state="lost"} 3"#,
        r#"gpuquota_gpus{state="unknown"} 0"#,
        r#"gpuquota_gpus{state="excluded"} 1"#,
        r#"gpuquota_gpus{state="passthrough"} 1"#,
        r#"gpuquota_gpu_state{uuid="GPU-a",pci_bus_id="",state="ok"} 1"#,
        r#"gpuquota_gpu_state{uuid="GPU-b",pci_bus_id="",state="hung"} 1"#,
        r#"gpuquota_gpu_state{uuid="GPU-c",pci_bus_id="00000000:03:00.0",state="ok"} 1"#,
        r#"gpuquota_gpu_state{uuid="",pci_bus_id="00000000:04:00.0",state="lost"} 1"#,
        r#"gpuquota_gpu_state{uuid="",pci_bus_id="",state="lost"} 1"#,
        r#"gpuquota_gpu_state{uuid="",pci_bus_id="00000000:01:00.0",state="excluded"} 1"#,
        r#"gpuquota_gpu_state{uuid="",pci_bus_id="00000000:02:00.0",state="passthrough"} 1"#,
        r#"gpuquota_gpu_info{uuid="GPU-c",pci_bus_id="00000000:03:00.0",serial="165",vbios="",part_number="",driver="",numa="1",nvlink=""} 1"#,
        r#"gpuquota_gpu_persistence{uuid="GPU-c"} 0"#,
        r#"gpuquota_gpu_remapped_rows{uuid="GPU-c",error="uncorrectable"} 2"#,
        r#"gpuquota_gpu_row_remap_failed{uuid="GPU-c"} 1"#,
        r#"gpuquota_tenant_devices{tenant="a",gpu_model="nvidia.com/gpu",kind="gpu"} 1"#,
        r#"gpuquota_tenant_devices{tenant="b",gpu_model="nvidia.com/mig-1g.10gb",kind="mig"} 1"#,
        r#"gpuquota_tenant_memory_bytes{tenant="a",uuid="GPU-a",mig=""} 120"#,
        r#"gpuquota_unattributed_memory_bytes{uuid="GPU-a",mig=""} 7"#,
        r#"gpuquota_unattributed_memory_bytes{uuid="GPU-c",mig="MIG-1"} 0"#,
        r#"gpuquota_tenant_sm_ratio{tenant="a",quality="estimated"} 0.3"#,
        r#"gpuquota_processes{tenant="a",source="slice"} 2"#,
        r#"gpuquota_processes{tenant="",source="unattributed"} 1"#,
        r#"gpuquota_device_info{uuid="GPU-c",mig_uuid="MIG-1",profile="1g.10gb",minor="0",kind="mig",model="NVIDIA \"H100\"",gpu_model="nvidia.com/mig-1g.10gb"} 1"#,
    ] {
        assert!(text.lines().any(|line| line == row), "{row}\n{text}");
    }
    for name in [
        "node_load{minutes=\"1\"}",
        "node_uptime_seconds",
        "node_cpu_cores",
        "node_memory_bytes",
    ] {
        assert!(text.contains(&format!("\ngpuquota_{name} ")), "{name}");
    }
    assert!(!text.contains("gpuquota_gpu_ecc{"), "not known: {text}");
    assert!(!text.contains(r#"sm_ratio{tenant="b""#), "never 0: {text}");
    // Unknown memory is absent, and so is whoever was last seen on a GPU that hangs.
    assert!(
        !text.contains(r#"tenant_memory_bytes{tenant="b""#),
        "{text}"
    );
    assert!(!text.contains(r#"tenant="c""#), "{text}");
    assert!(
        !text.contains("gpuquota_spool_records") && !text.contains("pid="),
        "{text}"
    );
}

#[test]
fn a_vgpu_is_licensed_or_not_and_never_a_guess() {
    let mut seen = observation();
    for (uuid, licence, owner, used) in [
        ("v-1", Licence::Licensed, tenant("a"), Some(9)),
        (
            "v-2",
            Licence::Unlicensed,
            Owner::Unattributed(Reason::NoRule),
            Some(5),
        ),
        ("v-3", Licence::Unknown, tenant("a"), None),
    ] {
        let mut vgpu = device(Health::Ok, Vec::new());
        vgpu.memory = used.map(|used| Memory {
            total: 20,
            reserved: Some(0),
            free: 20 - used,
            used,
        });
        vgpu.model = "L40S-8Q".to_owned();
        vgpu.whole.percent = Some(35).filter(|_| uuid == "v-2");
        vgpu.vgpu = Some(Vgpu {
            gi: None,
            placement_id: None,
            guest_driver: None,
            parent: "GPU-a".into(),
            vm: Some("vm-7".into()),
            owner,
            licence,
            licence_expires_at_s: Some(1_814_356_800).filter(|_| uuid == "v-1"),
        });
        seen.devices.insert(DeviceKey::Vgpu(uuid.into()), vgpu);
    }
    let text = text(&board(seen), 5500);
    for row in [
        r#"gpuquota_vgpu_licensed{uuid="v-1",vm="vm-7",type="L40S-8Q"} 1"#,
        r#"gpuquota_vgpu_licensed{uuid="v-2",vm="vm-7",type="L40S-8Q"} 0"#,
        r#"gpuquota_vgpu_licence_expires_timestamp_seconds{uuid="v-1",vm="vm-7",type="L40S-8Q"} 1814356800"#,
        r#"gpuquota_vgpu_fb_bytes{uuid="v-1",vm="vm-7",type="L40S-8Q"} 9"#,
        r#"gpuquota_vgpu_sm_ratio{uuid="v-2",vm="vm-7",type="L40S-8Q"} 0.35"#,
        r#"gpuquota_tenant_devices{tenant="a",gpu_model="nvidia.com/gpu",kind="vgpu"} 2"#,
        r#"gpuquota_tenant_memory_bytes{tenant="a",uuid="v-1",mig=""} 9"#,
        r#"gpuquota_unattributed_memory_bytes{uuid="v-1",mig=""} 0"#,
        r#"gpuquota_unattributed_memory_bytes{uuid="v-2",mig=""} 5"#,
    ] {
        assert!(text.lines().any(|line| line == row), "{row}\n{text}");
    }
    for absent in [
        "licensed{uuid=\"v-3\"",
        "fb_bytes{uuid=\"v-3\"",
        "sm_ratio{uuid=\"v-1\"",
    ] {
        assert!(!text.contains(absent), "{text}");
    }
    assert!(
        !text.contains(r#"tenant_memory_bytes{tenant="a",uuid="v-3""#),
        "{text}"
    );
}

#[test]
fn every_family_has_help_and_counters_end_in_total() {
    let text = text(&board(observation()), 5500);
    for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
        let mut words = line.split(' ').skip(2);
        let (name, kind) = (words.next().unwrap(), words.next().unwrap());
        assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        assert!(text.contains(&format!("# HELP {name} ")), "{line}");
    }
}

#[test]
fn rule_03_nothing_stale_is_shown() {
    let board = board(observation());
    let fresh = text(&board, 8000);
    assert!(fresh.contains("gpuquota_up 1") && fresh.contains("gpuquota_tenant_devices"));
    let stale = text(&board, 8001);
    assert!(
        stale.contains("gpuquota_up 0") && stale.contains("gpuquota_collect_age_seconds 3.001")
    );
    for family in [
        "tenant_devices",
        "tenant_memory",
        "processes",
        "device_info",
        "unattributed",
        "nvml_state",
        "driver_unresponsive",
    ] {
        assert!(!stale.contains(&format!("gpuquota_{family}")), "{stale}");
    }
    for row in [
        r#"gpuquota_gpus{state="ok"} 0"#,
        r#"gpuquota_gpus{state="hung"} 1"#,
        r#"gpuquota_gpus{state="unknown"} 2"#,
        r#"gpuquota_gpu_state{uuid="GPU-b",pci_bus_id="",state="hung"} 1"#,
        r#"gpuquota_gpu_state{uuid="GPU-c",pci_bus_id="00000000:03:00.0",state="unknown"} 1"#,
    ] {
        assert!(stale.lines().any(|line| line == row), "{row}\n{stale}");
    }
    let empty = Board::new(Duration::from_secs(1), Duration::from_secs(8), None);
    let none = text(&empty, 1);
    assert!(
        none.contains("gpuquota_up 0") && !none.contains("collect_age") && !none.contains("gpus")
    );
}

/// At once, however young the last good reading is.
#[test]
fn rule_03_a_reading_that_failed_is_not_up_and_says_which_gpus_are_unknown() {
    let mut seen = observation();
    seen.nvml = NvmlState::Quiesced("driver 560".into());
    for device in seen.devices.values_mut() {
        device.health = Health::Unknown;
    }
    let text = text(&board(seen), 5001);
    for row in [
        "gpuquota_up 0",
        "gpuquota_collect_age_seconds 0.001",
        r#"gpuquota_nvml_state{state="quiesced"} 1"#,
        r#"gpuquota_gpus{state="unknown"} 3"#,
        r#"gpuquota_gpu_state{uuid="GPU-a",pci_bus_id="",state="unknown"} 1"#,
    ] {
        assert!(text.lines().any(|line| line == row), "{row}\n{text}");
    }
    for family in ["device_info", "mig_generation", "gpu_info", "gpu_doubt"] {
        assert!(!text.contains(&format!("gpuquota_{family}")), "{text}");
    }
}

#[test]
fn no_answer_is_not_no_gpu() {
    let mut seen = observation();
    seen.devices.clear();
    seen.nvml = NvmlState::Unresponsive("stuck".into());
    let text = text(&board(seen), 5100);
    assert!(text.contains(r#"gpuquota_nvml_state{state="unresponsive"} 1"#));
    assert!(text.contains("gpuquota_driver_unresponsive 1") && !text.contains("gpuquota_gpus"));
}
