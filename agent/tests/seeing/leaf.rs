//! The worker's own control group, where the agent's is delegated to it.

use std::fs;
use std::path::Path;
use std::process::Command;

use gpuquota_fake_nvml::SCENARIO_VARIABLE;

use crate::cgroup::Cgroup;
use crate::node::Node;
use crate::running::Running;

/// Starts the agent inside a group, as a service manager does.
fn started_in(group: &Path, node: &Node) -> Running {
    let mut by = Command::new("sh");
    by.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""])
        .arg(group)
        .arg(env!("CARGO_BIN_EXE_gpuquota-agent"))
        .env(SCENARIO_VARIABLE, node.scenario())
        .env("RUST_LOG", "info")
        .env_remove("LD_LIBRARY_PATH");
    node.start_agent(by, "", &[])
}

fn group_of(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("0::"));
    line.unwrap().to_owned()
}

/// The groups of the agent and of its worker.
fn groups(agent: &Running) -> (String, String) {
    agent.wait_for(&["gpuquota_up 1"]);
    let pid = agent.child.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let worker = children.split_whitespace().next().unwrap().parse().unwrap();
    (group_of(pid), group_of(worker))
}

#[test]
fn rule_01_the_worker_has_a_group_of_its_own_where_the_agents_is_delegated() {
    let name = format!("/gpuquotaleaf{}.slice/agent.service", std::process::id());
    let Some(group) = Cgroup::new(&name) else {
        return;
    };
    let node = Node::new("t4x1");
    let agent = started_in(group.folder(), &node);
    assert_eq!(
        groups(&agent),
        (name.clone(), name.clone()),
        "not given away"
    );
    drop(agent);
    if !group.delegate() {
        return;
    }
    let agent = started_in(group.folder(), &node);
    let of = |leaf| format!("{name}/{leaf}");
    assert_eq!(groups(&agent), (of("agent"), of("worker")));
    let shared = fs::read_to_string(group.folder().join("cgroup.subtree_control")).unwrap();
    assert_eq!(shared, "", "a manager that puts the next agent here can");
    // Another worker, too.
    let (pid, before) = (agent.child.id(), groups(&agent).1);
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let worker: u32 = children.trim().parse().unwrap();
    rustix::process::kill_process(crate::node::pid(worker), rustix::process::Signal::KILL).unwrap();
    agent.wait_for(&["gpuquota_up 1", "gpuquota_worker_restarts_total 1"]);
    assert_eq!(groups(&agent).1, before);
}

/// With systemd's `DelegateSubgroup=agent`: the manager puts the agent into `agent` itself.
#[test]
fn rule_01_the_workers_memory_is_limited_where_the_manager_starts_the_agent_below() {
    let name = format!("/gpuquotalimit{}.slice/agent.service", std::process::id());
    let Some(group) = Cgroup::new(&name) else {
        return;
    };
    if !group.delegate() {
        return;
    }
    let below = group.folder().join("agent");
    fs::create_dir(&below).unwrap();
    let limited = group.offer("memory");
    let node = Node::new("t4x1");
    let agent = started_in(&below, &node);
    let of = |leaf| format!("{name}/{leaf}");
    assert_eq!(groups(&agent), (of("agent"), of("worker")));
    if limited {
        let limit = fs::read_to_string(group.folder().join("worker/memory.max")).unwrap();
        assert_eq!(limit.trim(), (112 << 20).to_string());
    }
}
