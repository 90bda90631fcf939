//! Published NVML programs (nvidia-ml-py, gpustat, nvitop) see through the fake library what the agent sees: that keeps the fake
//! honest. Their versions are in `tests/python/requirements.txt`.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use gpuquota_fake_nvml::SCENARIO_VARIABLE;
use gpuquota_fake_nvml::scenario::{Kind, Process};
use serde_json::Value;

use crate::node::Node;
use crate::skip::skipped;

pub(crate) const VARIABLE: &str = "GPUQUOTA_TEST_PYTHON";
const MIB: u64 = 1 << 20;

/// pid, bytes used, GPU instance, compute instance.
pub(crate) type Holder = (u64, Option<u64>, Option<u64>, Option<u64>);

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Device {
    pub(crate) uuid: String,
    pub(crate) place: Option<(u64, u64)>,
    pub(crate) total: Option<u64>,
    pub(crate) used: Option<u64>,
    pub(crate) processes: BTreeSet<Holder>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gpu {
    pub(crate) name: String,
    pub(crate) pci: String,
    pub(crate) whole: Device,
    pub(crate) instances: Vec<Device>,
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

/// `devices --json`.
pub(crate) fn told_by_the_agent(node: &Node) -> Value {
    let output = node
        .agent()
        .args(["devices", "--json", "--nvml-library"])
        .arg(node.library())
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What the agent says of GPUs that answer, with the processes of instances on their GPU too, as NVML has it.
pub(crate) fn by_the_agent(node: &Node) -> (String, Vec<Gpu>) {
    let told = told_by_the_agent(node);
    let device = |row: &Value| {
        let place = row["gi"].as_u64().zip(row["ci"].as_u64());
        let holder = |process: &Value| {
            let pid = process["pid"].as_u64().unwrap();
            let used = process["used_memory_bytes"].as_u64();
            (pid, used, row["gi"].as_u64(), row["ci"].as_u64())
        };
        Device {
            uuid: text(&row["uuid"]),
            place,
            total: row["memory_total_bytes"].as_u64(),
            used: row["memory_used_bytes"].as_u64(),
            processes: list(&row["processes"]).iter().map(holder).collect(),
        }
    };
    let rows = list(&told["devices"]);
    let gpus = rows
        .iter()
        .filter(|row| row["kind"] == "gpu" && row["state"] == "ok");
    let mut gpus: Vec<Gpu> = gpus
        .map(|row| {
            let own = |part: &&Value| part["parent_uuid"] == row["uuid"];
            let mut instances: Vec<Device> = rows.iter().filter(own).map(device).collect();
            instances.sort_by_key(|instance| instance.place);
            let mut whole = device(row);
            for instance in &instances {
                whole.processes.extend(&instance.processes);
            }
            Gpu {
                name: text(&row["model"]),
                pci: text(&row["pci_bus_id"]),
                whole,
                instances,
            }
        })
        .collect();
    gpus.sort_by_key(|gpu| gpu.pci.clone());
    (text(&told["driver"]), gpus)
}

/// What a library of Python says, in the form of the script.
pub(crate) fn by_python(told: &Value) -> Vec<Gpu> {
    let device = |row: &Value| Device {
        uuid: text(&row["uuid"]),
        place: row["gi"].as_u64().zip(row["ci"].as_u64()),
        total: row["memory"]["total"].as_u64(),
        used: row["memory"]["used"].as_u64(),
        processes: list(&row["processes"])
            .iter()
            .map(|one| {
                let number = |name: &str| one[name].as_u64();
                let pid = number("pid").unwrap();
                (pid, number("used"), number("gi"), number("ci"))
            })
            .collect(),
    };
    let gpu = |row: &Value| {
        let mut instances: Vec<Device> = list(&row["instances"]).iter().map(device).collect();
        instances.sort_by_key(|instance| instance.place);
        Gpu {
            name: text(&row["name"]),
            pci: text(&row["pci_bus_id"]),
            whole: device(row),
            instances,
        }
    };
    list(told).iter().map(gpu).collect()
}

/// nvitop ends its list of instances at the first empty slot and does not ask for MPS.
pub(crate) fn as_nvitop_can(gpus: &[Gpu], slots: &Value, mps: u64) -> Vec<Gpu> {
    let gpus = gpus.iter().zip(list(slots)).map(|(gpu, slots)| {
        let mut gpu = gpu.clone();
        let row = (0..).zip(list(&slots["instances"]));
        let row = row.take_while(|(at, instance)| instance["slot"] == *at);
        let shown: Vec<String> = row.map(|(_, instance)| text(&instance["uuid"])).collect();
        gpu.instances
            .retain(|instance| shown.contains(&instance.uuid));
        gpu.whole.processes.retain(|(pid, ..)| *pid != mps);
        gpu
    });
    gpus.collect()
}

/// uuid, name, used and total MiB, processes with MiB: what gpustat has of a GPU.
pub(crate) type Stat = (
    String,
    String,
    Option<u64>,
    Option<u64>,
    BTreeSet<(u64, Option<u64>)>,
);

pub(crate) fn by_gpustat(told: &Value) -> Vec<Stat> {
    let gpu = |row: &Value| {
        let process = |one: &Value| {
            (
                one["pid"].as_u64().unwrap(),
                one["gpu_memory_usage"].as_u64(),
            )
        };
        let processes = list(&row["processes"]).iter().map(process).collect();
        let mib = |name: &str| row[name].as_u64();
        (
            text(&row["uuid"]),
            text(&row["name"]),
            mib("memory.used"),
            mib("memory.total"),
            processes,
        )
    };
    // A lost GPU has no UUID.
    let rows = list(&told["gpus"]).iter();
    rows.filter(|row| row["uuid"].is_string())
        .map(gpu)
        .collect()
}

pub(crate) fn as_gpustat_can(gpus: &[Gpu], mps: u64) -> Vec<Stat> {
    let mib = |bytes: Option<u64>| bytes.map(|bytes| bytes / MIB);
    let gpu = |gpu: &Gpu| {
        let own = gpu.whole.processes.iter().filter(|(pid, ..)| *pid != mps);
        let processes = own.map(|(pid, used, ..)| (*pid, mib(*used))).collect();
        let Device {
            uuid, used, total, ..
        } = gpu.whole.clone();
        (uuid, gpu.name.clone(), mib(used), mib(total), processes)
    };
    gpus.iter().map(gpu).collect()
}

pub(crate) fn ask(interpreter: &Path, node: &Node) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/nvml_programs.py");
    let mut child = Command::new(interpreter)
        .arg(script)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("LANG", "C.UTF-8")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("LD_LIBRARY_PATH", node.library().parent().unwrap())
        .env(SCENARIO_VARIABLE, node.scenario())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"{}").unwrap();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn rule_20_published_programs_see_the_devices_and_processes_that_the_agent_sees() {
    let Some(interpreter) = std::env::var_os(VARIABLE) else {
        let why = format!("{VARIABLE} names no Python with them; tests/run makes one");
        skipped("nvidia-ml-py, gpustat and nvitop on the fake NVML", why);
        return;
    };
    for preset in ["h100x8", "a100-mig", "t4x1"] {
        let node = Node::new(preset);
        let layouts = node.edit(|scenario| {
            let gpus = scenario.gpus.iter();
            Ok(gpus.map(|gpu| gpu.mig.clone()).collect::<Vec<_>>())
        });
        let mut mps = 0;
        for (index, layout) in layouts.iter().enumerate() {
            let add = |process: Process| node.edit(|scenario| scenario.add_process(process));
            let gpu = index.to_string();
            for (mib, instance) in (100_u64..).zip(layout) {
                add(Process {
                    gi: Some(instance.gi),
                    ci: Some(instance.ci),
                    memory_mib: Some(mib),
                    ..Process::new(&gpu, node.workload())
                });
            }
            if !layout.is_empty() || index == 2 {
                continue;
            }
            let compute = node.run_on(&gpu, None);
            add(Process {
                kind: Kind::Graphics,
                memory_mib: Some(77),
                ..Process::new(&gpu, node.workload())
            });
            // Its memory is not known.
            add(Process::new(&gpu, node.workload()));
            if index == 3 {
                mps = node.workload();
                add(Process {
                    kind: Kind::Mps,
                    memory_mib: Some(33),
                    ..Process::new(&gpu, mps)
                });
                // One process on two GPUs.
                add(Process {
                    memory_mib: Some(9),
                    ..Process::new("2", compute)
                });
            }
        }
        let (driver, gpus) = by_the_agent(&node);
        let seen = ask(Path::new(&interpreter), &node);
        assert_eq!(seen["driver"], driver);
        assert_eq!(by_python(&seen["pynvml"]), gpus, "{preset}: nvidia-ml-py");
        for gpu in list(&seen["pynvml"]) {
            let memory = |name: &str| gpu["memory"][name].as_u64().unwrap();
            // The first version of the structure counts the driver's reserve as used.
            assert_eq!(memory("used_v1"), memory("used") + memory("reserved"));
        }
        let mps = u64::from(mps);
        let nvitop = as_nvitop_can(&gpus, &seen["pynvml"], mps);
        assert_eq!(by_python(&seen["nvitop"]), nvitop, "{preset}: nvitop");
        let gpustat = as_gpustat_can(&gpus, mps);
        assert_eq!(by_gpustat(&seen["gpustat"]), gpustat, "{preset}: gpustat");
        let screen = text(&seen["nvitop_screen"]);
        assert!(
            screen.contains(&format!("Driver Version: {driver}")),
            "{screen}"
        );
        for gpu in nvitop {
            let leaves = if gpu.instances.is_empty() {
                vec![gpu.whole]
            } else {
                gpu.instances
            };
            for (pid, ..) in leaves.iter().flat_map(|leaf| &leaf.processes) {
                let row = |line: &str| line.split_whitespace().any(|word| word == pid.to_string());
                assert!(screen.lines().any(row), "{preset}: {pid}\n{screen}");
            }
        }
    }
}
