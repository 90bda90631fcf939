//! What NVIDIA's shipped dashboard asks for, and every row of a node with all kinds of GPUs.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::attribute::PodPlace;
use crate::gpu::gauges::Gauges;
use crate::gpu::reading::{Glow, GpuFacts};
use crate::metrics::snapshot::{Board, Pass};

fn memory(total: u64, reserved: Option<u64>, used: u64) -> Memory {
    let held = reserved.unwrap_or_default() + used;
    Memory {
        total: total << 20,
        reserved: reserved.map(|mib| mib << 20),
        free: (total - held) << 20,
        used: used << 20,
    }
}

fn gpu(index: u32, glow: Glow, gauges: Option<Gauges>) -> Device {
    Device {
        health: Health::Ok,
        model: "NVIDIA H100 80GB HBM3".to_owned(),
        minor: Some(index),
        memory: Some(memory(100, Some(5), 20)),
        readout: Some(Readout {
            index,
            pci_bus_id: format!("00000000:1{index}:00.0"),
            glow,
            gauges,
            activities: Vec::new(),
        }),
        ..Device::default()
    }
}

fn observation() -> Observation {
    let glow = Glow {
        utilization_gpu_percent: Some(97),
        utilization_memory_percent: Some(40),
        power_milliwatts: Some(350_500),
        temperature_celsius: Some(61),
    };
    let gauges = Gauges {
        encoder_percent: Some(0),
        decoder_percent: Some(7),
        sm_clock_mhz: Some(1980),
        memory_clock_mhz: Some(2619),
        memory_celsius: Some(70),
        energy_millijoules: Some(9_000_000_123),
        pcie_replays: Some(3),
        nvlink_bandwidth: Some(77),
        guest_licensed: None,
    };
    let cut = Glow {
        utilization_gpu_percent: None,
        utilization_memory_percent: None,
        ..glow
    };
    let part = |profile: &str, used| Device {
        health: Health::Ok,
        profile: Some(profile.to_owned()),
        memory: Some(memory(40, Some(1), used)),
        ..Device::default()
    };
    let mut whole_part = part("3g.40gb", 4);
    whole_part.mig_uuid = Some("MIG-2".to_owned());
    let mut whole = gpu(0, glow, Some(gauges));
    let did = Activity {
        gi: None,
        engine: Some(0.5),
        tensor: Some(0.25),
        dram: None,
        pcie_tx: Some(1024.0),
        pcie_rx: Some(0.0),
    };
    whole.readout.as_mut().unwrap().activities = vec![did];
    whole.facts = Some(Arc::new(GpuFacts {
        remapped_rows: Some(RemappedRows {
            correctable: 1,
            uncorrectable: 0,
            pending: true,
            failed: false,
        }),
        ..GpuFacts::default()
    }));
    let mut parted = gpu(1, cut, None);
    let of_two = Activity {
        gi: Some(2),
        tensor: Some(1.0),
        ..Activity::default()
    };
    parted.readout.as_mut().unwrap().activities = vec![of_two];
    let mut hung = gpu(2, glow, Some(gauges));
    hung.health = Health::Hung;
    let mut hung_part = part("1g.10gb", 1);
    hung_part.health = Health::Hung;
    let key = |uuid: &str| DeviceKey::Gpu(uuid.to_owned());
    Observation {
        at_boottime_ms: 1000,
        nvml: crate::gpu::reading::NvmlState::Ok,
        driver_version: Some("550.90.07".to_owned()),
        hidden: Vec::new(),
        devices: [
            (key("GPU-z"), whole),
            (key("GPU-a"), parted),
            (
                DeviceKey::Mig("GPU-a".to_owned(), 1, 0),
                part("1c.3g.40gb", 9),
            ),
            (
                DeviceKey::Mig("GPU-a".to_owned(), 1, 1),
                part("2c.3g.40gb", 9),
            ),
            (DeviceKey::Mig("GPU-a".to_owned(), 2, 0), whole_part),
            (key("GPU-c"), hung),
            (DeviceKey::Mig("GPU-c".to_owned(), 1, 0), hung_part),
        ]
        .into(),
    }
}

fn view(now: u64) -> View {
    board().view(now)
}

fn board() -> Board {
    let board = Board::new(Duration::from_secs(1), Duration::from_secs(8), None);
    board.post(Pass {
        observation: Some(Arc::new(observation())),
        good_at_boottime_ms: Some(1000),
        ended_boottime_ms: 1000,
        ..Pass::default()
    });
    board
}

fn text(host_label: HostLabel) -> String {
    let dcgm = Dcgm {
        host: "gpu01".to_owned(),
        host_label,
    };
    String::from_utf8(render(&view(1500), &dcgm).unwrap()).unwrap()
}

/// A row of the GPU with this index, or of the GPU instance with this id and profile on it.
fn row(name: &str, index: u32, instance: Option<(u32, &str)>, value: &str) -> String {
    let uuid = ["GPU-z", "GPU-a"][index as usize];
    let instance = instance.map_or_else(String::new, |(gi, profile)| {
        format!("GPU_I_PROFILE=\"{profile}\",GPU_I_ID=\"{gi}\",")
    });
    format!(
        "DCGM_FI_{name}{{gpu=\"{index}\",UUID=\"{uuid}\",pci_bus_id=\"00000000:1{index}:00.0\",device=\"nvidia{index}\",\
         modelName=\"NVIDIA H100 80GB HBM3\",{instance}Hostname=\"gpu01\",DCGM_FI_DRIVER_VERSION=\"550.90.07\"}} {value}"
    )
}

#[test]
fn rule_20_every_row_is_where_dcgm_exporter_has_it() {
    let text = text(HostLabel::Hostname);
    let rows: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let (one, two) = (Some((1, "3g.40gb")), Some((2, "3g.40gb")));
    let expected = [
        row("DEV_GPU_TEMP", 0, None, "61"),
        row("DEV_GPU_TEMP", 1, None, "61"),
        row("DEV_GPU_TEMP", 1, one, "61"),
        row("DEV_GPU_TEMP", 1, two, "61"),
        row("DEV_MEMORY_TEMP", 0, None, "70"),
        row("DEV_POWER_USAGE", 0, None, "350.5"),
        row("DEV_POWER_USAGE", 1, None, "350.5"),
        row("DEV_TOTAL_ENERGY_CONSUMPTION", 0, None, "9000000123"),
        row("DEV_SM_CLOCK", 0, None, "1980"),
        row("DEV_MEM_CLOCK", 0, None, "2619"),
        row("DEV_GPU_UTIL", 0, None, "97"),
        row("DEV_MEM_COPY_UTIL", 0, None, "40"),
        row("DEV_ENC_UTIL", 0, None, "0"),
        row("DEV_DEC_UTIL", 0, None, "7"),
        row("DEV_FB_USED", 0, None, "20"),
        row("DEV_FB_USED", 1, one, "9"),
        row("DEV_FB_USED", 1, two, "4"),
        row("DEV_FB_FREE", 0, None, "75"),
        row("DEV_FB_FREE", 1, one, "30"),
        row("DEV_FB_FREE", 1, two, "35"),
        row("DEV_FB_RESERVED", 0, None, "5"),
        row("DEV_FB_RESERVED", 1, one, "1"),
        row("DEV_FB_RESERVED", 1, two, "1"),
        row("DEV_PCIE_REPLAY_COUNTER", 0, None, "3"),
        row("DEV_NVLINK_BANDWIDTH_TOTAL", 0, None, "77"),
        row("DEV_UNCORRECTABLE_REMAPPED_ROWS", 0, None, "0"),
        row("DEV_CORRECTABLE_REMAPPED_ROWS", 0, None, "1"),
        row("DEV_ROW_REMAP_FAILURE", 0, None, "0"),
        row("PROF_GR_ENGINE_ACTIVE", 0, None, "0.5"),
        row("PROF_PIPE_TENSOR_ACTIVE", 0, None, "0.25"),
        row("PROF_PIPE_TENSOR_ACTIVE", 1, two, "1"),
        row("PROF_PCIE_TX_BYTES", 0, None, "1024"),
        row("PROF_PCIE_RX_BYTES", 0, None, "0"),
    ];
    assert_eq!(rows, expected);
}

/// The series of NVIDIA's shipped dashboard, and the label that its variables and legends use, as NVIDIA/dcgm-exporter has them at
/// commit d5e5f510a1b6. `tests/it/dashboard.rs` puts its expressions to a Prometheus, word for word.
#[test]
fn rule_20_the_shipped_dashboard_finds_its_series_and_labels() {
    let text = text(HostLabel::Hostname);
    for name in [
        "DEV_GPU_TEMP",
        "DEV_POWER_USAGE",
        "DEV_SM_CLOCK",
        "DEV_GPU_UTIL",
        "DEV_FB_USED",
        "PROF_PIPE_TENSOR_ACTIVE",
    ] {
        let series = format!("DCGM_FI_{name}{{");
        let mut rows = text.lines().filter(|line| line.starts_with(&series));
        let has = |row: &str| row.contains("{gpu=\"0\",");
        assert!(rows.any(has), "{name}\n{text}");
    }
}

#[test]
fn the_label_of_the_host_is_called_as_configured() {
    for (label, expected) in [
        (HostLabel::Hostname, r#",Hostname="gpu01",DCGM"#),
        (HostLabel::Lower, r#",hostname="gpu01",DCGM"#),
        (
            HostLabel::Both,
            r#",Hostname="gpu01",hostname="gpu01",DCGM"#,
        ),
    ] {
        let text = text(label);
        let mut rows = text.lines().filter(|line| !line.starts_with('#'));
        assert!(rows.all(|row| row.contains(expected)), "{text}");
    }
}

#[test]
fn a_device_that_one_container_was_given_names_it_while_that_is_fresh() {
    let place = |pod: &str| PodPlace {
        namespace: "ml".to_owned(),
        pod: pod.to_owned(),
        container: "main".to_owned(),
    };
    let board = board();
    let granted = [("GPU-z", "a"), ("MIG-2", "b"), ("GPU-a", "c")];
    let granted = granted.map(|(uuid, pod)| (uuid.to_owned(), place(pod)));
    board.post_granted(granted.into(), 1000);
    let text =
        |now| String::from_utf8(render(&board.view(now), &Dcgm::default()).unwrap()).unwrap();
    let row = |name: &str, with: &str| {
        let text = text(1500);
        let mut rows = text
            .lines()
            .filter(|row| row.starts_with(name) && row.contains(with));
        rows.next().unwrap().to_owned()
    };
    let labels = |pod: &str| format!("container=\"main\",namespace=\"ml\",pod=\"{pod}\"}}");
    assert!(row("DCGM_FI_DEV_FB_USED", "GPU-z").contains(&labels("a")));
    assert!(row("DCGM_FI_DEV_FB_USED", "GPU_I_ID=\"2\"").contains(&labels("b")));
    assert!(!row("DCGM_FI_DEV_FB_USED", "GPU_I_ID=\"1\"").contains("pod="));
    board.post_granted(Granted::from([]), 0);
    board.post_granted([("GPU-z".to_owned(), place("a"))].into(), 0);
    assert!(board.view(30_000).granted.is_some() && board.view(30_001).granted.is_none());
}

/// Rule 12: no error is said only while somebody listens, and an instance has only what was told of it.
#[test]
fn fault_m_the_last_xid_stands_on_the_gpu_or_on_the_instance_that_the_driver_named() {
    let mut shown = crate::events::sentinel::Shown::default();
    let told = |shown: &Shown| {
        let board = board();
        board.post(Pass {
            trouble: shown.clone(),
            ..board.view(1500).pass
        });
        let text = render(&board.view(1500), &Dcgm::default()).unwrap();
        let text = String::from_utf8(text).unwrap();
        let rows = text
            .lines()
            .filter(|line| line.starts_with("DCGM_FI_DEV_XID"));
        let row = |line: &str| {
            let label = |name: &str| {
                let (_, rest) = line.split_once(&format!(",{name}=\""))?;
                Some(rest.split_once('"')?.0.to_owned())
            };
            let all = ["UUID", "GPU_I_ID", "err_code", "err_msg"]
                .map(|name| label(name).unwrap_or_default());
            format!("{} {}", all.join("|"), line.rsplit_once(' ').unwrap().1)
        };
        rows.map(row).collect::<Vec<_>>()
    };
    let event = |xid, gi: Option<u32>| crate::gpu::event::DriverEvent {
        uuid: "GPU-a".to_owned(),
        what: crate::gpu::event::Happening::Xid(xid),
        gi,
        ci: gi.map(|_| 0),
        count: 1,
    };
    let now = crate::events::ledger::Now {
        boottime_ms: 1000,
        unix_s: 1,
    };
    let before = observation();
    assert_eq!(told(&shown), Vec::<String>::new(), "nobody listens");
    Arc::make_mut(&mut shown.ledger).heard(&event(63, None), Some(&before), now);
    assert_eq!(
        told(&shown),
        ["GPU-a||63|Page retirement or row remapping recorded 63"]
    );
    let ear = |uuid: &str, ear| (uuid.to_owned(), ear);
    let heard = [
        ear("GPU-z", crate::gpu::event::Ear::Registered),
        ear("GPU-a", crate::gpu::event::Ear::Unsupported),
    ];
    shown.ears = Arc::new(heard.into_iter().collect());
    Arc::make_mut(&mut shown.ledger).heard(&event(31, Some(2)), Some(&before), now);
    Arc::make_mut(&mut shown.ledger).heard(&event(999, Some(9)), Some(&before), now);
    assert_eq!(
        told(&shown),
        [
            "GPU-z||0|No Error 0",
            "GPU-a||63|Page retirement or row remapping recorded 63",
            "GPU-a|2|31|GPU memory page fault 31",
        ]
    );
}

/// Rule 3: too old is not shown, and neither is a GPU that hangs.
#[test]
fn rule_03_nothing_stale_is_shown_as_fresh() {
    assert!(!text(HostLabel::Both).contains("GPU-c"));
    assert!(!render(&view(4000), &Dcgm::default()).unwrap().is_empty());
    assert!(render(&view(4001), &Dcgm::default()).unwrap().is_empty());
}
