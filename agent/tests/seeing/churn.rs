//! Ten thousand short processes while GPUs are cut anew, fall off the bus and come back, and the library is replaced.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use gpuquota_fake_nvml::scenario::{Process, Scenario};

use crate::node::{Node, PATIENCE};
use crate::running::Running;
use crate::skip::skipped;

const ROUNDS: usize = 40;
/// Processes of a round: some real ones, and many that have ended before the agent can look at them.
const EACH: usize = 250;
const REAL: usize = 8;
/// Among the highest pids that a kernel may give (`PID_MAX_LIMIT`, 2^22): nobody lives there.
const NOBODY: u32 = 4_184_000;
const ALICE: u32 = 64_001;
const BOB: u32 = 64_002;
const LAYOUTS: [&[&str]; 2] = [
    &["1g.10gb"; 7],
    &["3g.40gb", "2g.20gb", "1g.10gb", "1g.10gb"],
];

struct Short(Child);

impl Short {
    fn of(uid: u32) -> Self {
        let mut command = Command::new("sleep");
        Self(
            command
                .arg("600")
                .uid(uid)
                .stdin(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }
}

impl Drop for Short {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the agent and its workers hold.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    kib: u64,
    children: usize,
}

fn held(agent: &Running) -> Held {
    let pid = agent.child.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let all = children
        .split_whitespace()
        .map(str::to_owned)
        .chain([pid.to_string()]);
    let kib = |pid: String| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let figure = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        figure.unwrap_or(0)
    };
    Held {
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
        children: children.split_whitespace().count(),
        kib: all.map(kib).sum(),
    }
}

/// A round's processes: alice on one or two whole GPUs, bob on as many instances, and the ended ones everywhere.
fn occupy(scenario: &mut Scenario, real: &[Short], round: usize) {
    scenario.processes.clear();
    let small = scenario.gpus[1]
        .mig
        .iter()
        .filter(|mig| mig.profile == "1g.10gb");
    let places: Vec<_> = small.map(|mig| (mig.gi, mig.ci)).collect();
    let wide = 1 + round % 2;
    for (at, process) in real.iter().enumerate() {
        let pid = process.0.id();
        let process = if at % 2 == 0 {
            Process::new(["0", "4"][at / 2 % wide], pid)
        } else {
            let (gi, ci) = places[at / 2 % wide];
            Process {
                gi: Some(gi),
                ci: Some(ci),
                ..Process::new("1", pid)
            }
        };
        scenario
            .add_process(Process {
                memory_mib: Some(64),
                ..process
            })
            .unwrap();
    }
    let first = NOBODY + u32::try_from(round * EACH).unwrap();
    for (at, pid) in (real.len()..EACH).zip(first..) {
        let gpu = ["0", "3", "4", "5"][at % 4];
        let process = Process {
            phantom: true,
            memory_mib: Some(1),
            ..Process::new(gpu, pid)
        };
        scenario.add_process(process).unwrap();
    }
}

fn tenants(text: &str) -> BTreeSet<&str> {
    text.lines()
        .filter(|line| line.starts_with("gpuquota_tenant_devices{"))
        .collect()
}

/// Processes that are no tenant's.
fn nobodys(text: &str) -> f64 {
    let rows = text
        .lines()
        .filter(|line| line.starts_with("gpuquota_unattributed_processes{"));
    rows.filter_map(|row| row.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

#[test]
fn fault_i_ten_thousand_short_processes_leave_nothing_behind_and_name_nobody_else() {
    if !rustix::process::geteuid().is_root() {
        return skipped(
            "ten thousand short processes",
            "only root can start processes of two users",
        );
    }
    let node = Node::new("a100x8");
    node.edit(|scenario| scenario.slice("1", LAYOUTS[0]));
    let rule =
        |uid: u32, tenant| format!("[[attribution.rule]]\nuid = {uid}\ntenant = \"{tenant}\"\n");
    let mut agent = node.run_agent(&[rule(ALICE, "alice"), rule(BOB, "bob")].concat());
    let mut before = None;
    for round in 0..ROUNDS {
        let real: Vec<Short> = (0..REAL)
            .map(|at| Short::of([ALICE, BOB][at % 2]))
            .collect();
        node.edit(|scenario| {
            match round % 8 {
                3 => scenario.slice("1", LAYOUTS[round / 8 % 2])?,
                5 => scenario.set_lost("2", true)?,
                7 => scenario.set_lost("2", false)?,
                _ => {}
            }
            occupy(scenario, &real, round);
            Ok(())
        });
        if round == ROUNDS / 2 {
            fs::copy(node.library(), node.path().join("new")).unwrap();
            fs::rename(node.path().join("new"), node.library()).unwrap();
        }
        let wide = 1 + round % 2;
        let alice = format!(
            "gpuquota_tenant_devices{{tenant=\"alice\",gpu_model=\"nvidia.com/gpu\",kind=\"gpu\"}} {wide}"
        );
        let bob = format!(
            "gpuquota_tenant_devices{{tenant=\"bob\",gpu_model=\"nvidia.com/mig-1g.10gb\",kind=\"mig\"}} {wide}"
        );
        let lost = usize::from(matches!(round % 8, 5 | 6));
        let gpus = format!("gpuquota_gpus{{state=\"lost\"}} {lost}");
        let text = agent.wait_for(&["gpuquota_up 1", &alice, &bob, &gpus]);
        assert_eq!(tenants(&text), [alice.as_str(), &bob].into());
        // Everything was there once: caches are as large as they are to be.
        if round == 8 {
            before = Some(held(&agent));
        }
    }
    node.edit(|scenario| {
        scenario.processes.clear();
        Ok(())
    });
    let before = before.unwrap();
    let mut after = held(&agent);
    for _ in 0..PATIENCE.as_millis() / 50 {
        let text = agent.scrape();
        after = held(&agent);
        let quiet = tenants(&text).is_empty() && nobodys(&text) == 0.0;
        if quiet && after.descriptors <= before.descriptors && after.children == 1 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let text = agent.scrape();
    assert!(tenants(&text).is_empty() && nobodys(&text) == 0.0, "{text}");
    assert!(
        after.descriptors <= before.descriptors && after.children == 1,
        "{before:?} {after:?}"
    );
    assert!(after.kib < before.kib + 1024, "{before:?} {after:?}");
    assert!(
        text.contains("gpuquota_nvml_library_changes_total 1"),
        "{text}"
    );
    assert!(agent.child.try_wait().unwrap().is_none());
}
