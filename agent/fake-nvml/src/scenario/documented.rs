//! Every field that a scenario may have is explained in an example file.

use std::collections::BTreeSet;

use super::*;

/// A GPU, a MIG device and a vGPU with every field at another value than the one that is left out of a file. Written without
/// `..`, so that a new field must be added here.
fn full() -> Scenario {
    let text = || Some("x".to_owned());
    let clocks = Some(Clocks {
        graphics: 1,
        sm: 1,
        memory: 1,
        video: 1,
    });
    let mig = Mig {
        gi: 1,
        ci: 1,
        profile: "1c.2g.20gb".to_owned(),
        uuid: "MIG-1".to_owned(),
        slot: Some(1),
        placement: Some([0, 1]),
        memory_total_mib: 1,
        memory_reserved_mib: 1,
        memory_used_mib: Some(1),
        sm_count: 1,
        copy_engines: 1,
        decoders: 1,
        encoders: 1,
        jpegs: 1,
        ofas: 1,
    };
    let vgpu = Vgpu {
        uuid: "1".to_owned(),
        type_name: "x".to_owned(),
        vm: text(),
        gi: Some(1),
        time_sliced: true,
        placement_id: Some(1),
        memory_total_mib: 1,
        memory_used_mib: 1,
        sm_percent: Some(1),
        licence: Some(Licence::Licensed),
        licence_expires: "2027-06-30T12:00:00Z".parse().ok(),
        driver_version: text(),
    };
    let gpu = Gpu {
        uuid: "GPU-1".to_owned(),
        name: "x".to_owned(),
        pci_bus_id: "00000000:18:00.0".to_owned(),
        memory_total_mib: 1,
        minor: Some(1),
        serial: text(),
        board_part_number: text(),
        vbios_version: text(),
        pci_device_id: 1,
        pci_subsystem_id: 1,
        architecture: Some(Architecture::Ada),
        compute_capability: Some([1, 1]),
        numa_node: Some(1),
        memory_reserved_mib: 1,
        memory_used_mib: Some(1),
        bar1_total_mib: Some(1),
        temperature_c: Some(1),
        memory_temperature_c: Some(1),
        power_mw: Some(1),
        power_limit_mw: Some(1),
        energy_mj: Some(1),
        fan_percent: Some(1),
        performance_state: Some(1),
        utilization_gpu: Some(1),
        utilization_memory: Some(1),
        utilization_encoder: Some(1),
        utilization_decoder: Some(1),
        clocks_mhz: clocks,
        max_clocks_mhz: clocks,
        pcie: Some(Pcie {
            generation: 1,
            width: 1,
            max_generation: 1,
            max_width: 1,
            replays: 1,
        }),
        ecc: Some(true),
        ecc_corrected: 1,
        ecc_uncorrected: 1,
        remapped_rows: Some(RemappedRows {
            correctable: 1,
            uncorrectable: 1,
            pending: true,
            failed: true,
        }),
        compute_mode: ComputeMode::Prohibited,
        persistence: true,
        accounting: true,
        virtualization: Virtualization::HostVgpu,
        recovery_action: 1,
        mig_mode: Some(true),
        mig_mode_pending: Some(true),
        mig_slots: Some(1),
        lost: true,
        nvlink: vec![NvLinks {
            remote: "00000000:18:00.0".to_owned(),
            kind: NvLinkEnd::Switch,
            links: 2,
            down: true,
        }],
        nvlink_bandwidth: Some(1),
        guest_licensed: Some(true),
        mig: vec![mig],
        vgpu: vec![vgpu],
    };
    Scenario {
        driver_version: "1".to_owned(),
        nvml_version: "1".to_owned(),
        cuda_version: 1,
        init_return: 1,
        call_cost_us: 1,
        process_element_bytes: 16,
        missing_symbols: vec!["x".to_owned()],
        gpus: vec![gpu],
        excluded: vec![Excluded {
            uuid: "GPU-2".to_owned(),
            pci_bus_id: "x".to_owned(),
        }],
        processes: vec![process()],
        faults: vec![fault()],
        events: vec![Event {
            id: 1,
            gpu: "0".to_owned(),
            xid: Some(1),
            gi: Some(1),
            ci: Some(1),
        }],
    }
}

fn process() -> Process {
    Process {
        pid: 1,
        start_time: Some(1),
        gpu: "0".to_owned(),
        gi: Some(1),
        ci: Some(1),
        memory_mib: Some(1),
        kind: Kind::Mps,
        sm_percent: Some(1),
        tensor_percent: Some(1),
        memory_percent: Some(1),
        sample_age_ms: 1,
        sample_pid: Some(1),
        phantom: true,
    }
}

fn fault() -> Fault {
    Fault {
        function: "*".to_owned(),
        gpu: Some("0".to_owned()),
        action: Action::Delay,
        code: Some(1),
        ms: Some(1),
        from_call: 2,
        times: 1,
        from_unix_ms: Some(1),
        until_unix_ms: Some(1),
    }
}

/// The keys of a table and of all within it, those of vGPUs apart.
fn keys(value: &toml::Value, of_vgpu: bool, found: &mut [BTreeSet<String>; 2]) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                found[usize::from(of_vgpu)].insert(key.clone());
                keys(value, of_vgpu || key == "vgpu", found);
            }
        }
        toml::Value::Array(rows) => rows.iter().for_each(|row| keys(row, of_vgpu, found)),
        _ => {}
    }
}

#[test]
fn the_example_files_explain_every_field() {
    let table: toml::Table = full().render().unwrap().parse().unwrap();
    let mut found = [BTreeSet::new(), BTreeSet::new()];
    keys(&toml::Value::Table(table), false, &mut found);
    let files = [
        include_str!("../../scenarios/a100-mig.toml"),
        include_str!("../../scenarios/l40s-vgpu.toml"),
    ];
    for (fields, file) in found.iter().zip(files) {
        let part = |letter: char| letter.is_alphanumeric() || letter == '_';
        let words: BTreeSet<&str> = file.split(|letter| !part(letter)).collect();
        for field in fields {
            assert!(
                words.contains(field.as_str()),
                "{field} is nowhere explained"
            );
        }
    }
}
