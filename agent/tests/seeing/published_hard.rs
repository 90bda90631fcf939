//! Published NVML programs on the hard nodes: a vGPU host, and a node with ill GPUs.

use std::collections::BTreeSet;
use std::path::PathBuf;

use gpuquota_fake_nvml::scenario::Licence;
use serde_json::Value;

use crate::node::Node;
use crate::published::{
    VARIABLE, as_gpustat_can, as_nvitop_can, ask, by_gpustat, by_python, by_the_agent, list, text,
    told_by_the_agent,
};
use crate::skip::skipped;

fn interpreter(what: &str) -> Option<PathBuf> {
    let python = std::env::var_os(VARIABLE);
    if python.is_none() {
        let why = format!("{VARIABLE} names no Python with them; tests/run makes one");
        skipped(what, why);
    }
    python.map(PathBuf::from)
}

/// GPU and vGPU, type, VM, licence and its end, the guest's driver, memory in bytes.
type Vgpu = (
    [String; 4],
    String,
    Option<i64>,
    Option<String>,
    [Option<u64>; 2],
);

fn vgpu(
    [parent, type_name, vm]: [&Value; 3],
    memory: [&Value; 2],
    row: &Value,
    licence: &Value,
) -> Vgpu {
    (
        [text(parent), text(&row["uuid"]), text(type_name), text(vm)],
        text(licence),
        row["licence_expires_at_s"].as_i64(),
        row["guest_driver"].as_str().map(str::to_owned),
        memory.map(Value::as_u64),
    )
}

fn vgpus_by_the_agent(node: &Node) -> BTreeSet<Vgpu> {
    let told = told_by_the_agent(node);
    let rows = list(&told["devices"]).iter();
    rows.filter(|row| row["kind"] == "vgpu")
        .map(|row| {
            let names = [&row["parent_uuid"], &row["model"], &row["vm"]];
            let memory = [&row["memory_total_bytes"], &row["memory_used_bytes"]];
            vgpu(names, memory, row, &row["licence"])
        })
        .collect()
}

fn vgpus_by_python(told: &Value) -> BTreeSet<Vgpu> {
    let of_gpu = |gpu: &Value| -> Vec<Vgpu> {
        let row = |row: &Value| {
            let names = [&gpu["uuid"], &row["type"], &row["vm"]];
            vgpu(names, [&row["total"], &row["used"]], row, &row["licence"])
        };
        list(&gpu["vgpus"]).iter().map(row).collect()
    };
    list(told).iter().flat_map(of_gpu).collect()
}

/// nvidia-ml-py keeps 32 bits of what a guest uses, so that less than 4 GiB are used here. gpustat and nvitop know no vGPUs.
#[test]
fn rule_20_a_published_program_sees_the_vgpus_that_the_agent_sees() {
    let Some(python) = interpreter("nvidia-ml-py on the vGPU host") else {
        return;
    };
    let node = Node::new("l40s-vgpu");
    node.edit(|scenario| {
        let first = scenario.gpus[0].vgpu[0].uuid.clone();
        scenario.vgpu_mut(&first)?.memory_used_mib = 3000;
        let expires = "2026-12-31T23:59:58Z".parse().ok();
        let cases = [
            ("33", "NVIDIA L40S-24C", Licence::NoDriver, None),
            ("34", "NVIDIA L40S-4Q", Licence::Unknown, None),
            ("35", "NVIDIA L40S-2B", Licence::Licensed, expires),
            ("36", "NVIDIA L40S-2B", Licence::Licensed, None),
        ];
        for (vm, type_name, licence, expires) in cases {
            let uuid = scenario.add_vgpu("1", type_name, vm, None)?;
            scenario.license_vgpu(&uuid, licence, expires)?;
        }
        Ok(())
    });
    let seen = vgpus_by_the_agent(&node);
    assert_eq!(seen.len(), 6, "{seen:#?}");
    let licences = |seen: &BTreeSet<Vgpu>| {
        let all = seen.iter().map(|row| row.1.clone());
        all.collect::<BTreeSet<String>>()
    };
    let every = ["licensed", "unknown", "unlicensed"].map(str::to_owned);
    assert_eq!(licences(&seen), BTreeSet::from(every));
    let told = ask(&python, &node);
    assert_eq!(vgpus_by_python(&told["pynvml"]), seen);

    let gone = node.edit(|scenario| {
        let uuid = scenario.gpus[0].vgpu[1].uuid.clone();
        scenario.remove_vgpu(&uuid)?;
        Ok(uuid)
    });
    let seen = vgpus_by_the_agent(&node);
    assert!(seen.len() == 5 && seen.iter().all(|row| row.0[1] != gone));
    assert_eq!(vgpus_by_python(&ask(&python, &node)["pynvml"]), seen);
}

/// None of the three programs survives a GPU that hangs: they call NVML in their own process. So they are asked when it has stopped,
/// and the agent before and after. A lost GPU they survive, each in its way.
#[test]
fn rule_20_published_programs_see_the_healthy_gpus_of_a_broken_node_as_the_agent_does() {
    let Some(python) = interpreter("nvidia-ml-py, gpustat and nvitop on the broken node") else {
        return;
    };
    let node = Node::new("broken-node");
    for gpu in ["0", "3", "4", "7"] {
        node.run_on(gpu, None);
    }
    let (_, ill) = by_the_agent(&node);
    node.edit(|scenario| Ok(scenario.clear_faults(Some("*"))));
    let (driver, gpus) = by_the_agent(&node);
    assert_eq!((ill.len(), gpus.len()), (6, 7), "one is lost, one hung");
    assert!(
        ill.iter().all(|gpu| gpus.contains(gpu)),
        "{ill:#?}\n{gpus:#?}"
    );
    let told = ask(&python, &node);
    assert_eq!(told["driver"], driver);
    assert_eq!(by_python(&told["pynvml"]), gpus, "nvidia-ml-py");
    let nvitop = as_nvitop_can(&gpus, &told["pynvml"], 0);
    assert_eq!(by_python(&told["nvitop"]), nvitop, "nvitop");
    assert_eq!(by_gpustat(&told["gpustat"]), as_gpustat_can(&gpus, 0));
    let rows = list(&told["gpustat"]["gpus"]);
    assert_eq!(rows.len(), 8, "gpustat has a row for the lost one");
    let screen = text(&told["nvitop_screen"]);
    assert_eq!(screen.matches("GPU is Lost").count(), 1, "{screen}");
    let busy = gpus.iter().filter(|gpu| !gpu.whole.processes.is_empty());
    assert_eq!(busy.count(), 4);
}
