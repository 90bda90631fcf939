//! `quiesce` and `resume`: the running agent lets go of the driver, says so, and comes back.

use std::fs;
use std::process::Output;

use gpuquota_agent::clock::boottime_ms;
use gpuquota_agent::gpu::reading::NvmlState;
use gpuquota_fake_nvml::scenario::Action;
use rustix::process::{Pid, Signal, kill_process};

use crate::node::{CALL_DEADLINE, Node, reading, sample_until};
use crate::running::Running;

const QUIESCED: &str = "gpuquota_nvml_state{state=\"quiesced\"} 1";

fn order(node: &Node, words: &[&str]) -> Output {
    let mut command = node.agent();
    command.args(words).arg("--dir").arg(node.agent_dir());
    command.output().unwrap()
}

fn done(node: &Node, words: &[&str]) -> String {
    let output = order(node, words);
    let text = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}{error}");
    text
}

/// Processes that have this library in memory, the agent and its children among them: who has it mapped has the driver open.
fn users_of(library: &std::path::Path) -> Vec<u32> {
    let library = library.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pid = |entry: fs::DirEntry| {
        let maps = fs::read_to_string(entry.path().join("maps")).ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        maps.contains(library).then_some(pid)
    };
    processes.filter_map(pid).collect()
}

fn took_ms(text: &str) -> u64 {
    text.split(' ').nth(2).unwrap().parse().unwrap()
}

fn alive(agent: &mut Running) {
    assert!(agent.child.try_wait().unwrap().is_none());
}

#[test]
fn rule_13_all_of_the_driver_is_closed_in_two_seconds_and_comes_back() {
    let node = Node::new("h100x4");
    let pid = node.run_on("2", None);
    node.register(pid, "team-a");
    let mut agent = node.run_agent("");
    let holds =
        "gpuquota_tenant_devices{tenant=\"team-a\",gpu_model=\"nvidia.com/gpu\",kind=\"gpu\"} 1";
    agent.wait_for(&[holds, "gpuquota_events_state{state=\"listening\"} 1"]);
    assert_eq!(users_of(&node.library()).len(), 1, "its worker");

    let text = done(&node, &["quiesce", "--reason", "driver 560"]);
    assert_eq!(users_of(&node.library()), [] as [u32; 0]);
    assert!(took_ms(&text) < 2000, "{text}");
    let text = agent.wait_for(&[
        QUIESCED,
        "gpuquota_gpus{state=\"unknown\"} 4",
        "gpuquota_up 0",
    ]);
    assert!(!text.contains(holds), "not shown as fresh");
    assert_eq!(
        users_of(&node.library()),
        [] as [u32; 0],
        "and it stays closed"
    );
    let seen = order(
        &node,
        &[
            "devices",
            "--json",
            "--nvml-library",
            node.library().to_str().unwrap(),
        ],
    );
    let seen: serde_json::Value = serde_json::from_slice(&seen.stdout).unwrap();
    assert_eq!(seen["error"]["state"], "quiesced");
    let detail = seen["error"]["detail"].as_str().unwrap();
    assert!(detail.starts_with("driver 560, until 2"), "{detail}");
    done(&node, &["quiesce"]);

    done(&node, &["resume"]);
    agent.wait_for(&[
        "gpuquota_up 1",
        holds,
        "gpuquota_nvml_state{state=\"ok\"} 1",
    ]);
    alive(&mut agent);
}

/// The last good reading is young, and says nothing of now.
#[test]
fn rule_03_rule_13_the_first_scrape_that_says_quiesced_shows_nothing_as_fresh() {
    let node = Node::new("h100x4");
    let agent = node.run_agent_with("", &["--interval", "30s"]);
    agent.wait_for(&["gpuquota_up 1"]);
    done(&node, &["quiesce"]);
    let text = agent.wait_for(&[QUIESCED]);
    let rows = |wanted: &str| text.lines().filter(|row| row.contains(wanted)).count();
    assert_eq!(rows("gpuquota_up 0"), 1, "{text}");
    assert_eq!(rows("gpuquota_device_info{"), 0, "{text}");
    assert_eq!(rows("gpuquota_gpu_state{uuid=\"GPU-"), 4, "{text}");
    assert_eq!(rows(",state=\"unknown\"} 1"), 4, "{text}");
}

/// The pass is stuck in a call that hangs, and a probe in another; whoever wants the driver closed does not wait for them.
#[test]
fn rule_13_a_hang_does_not_keep_the_driver_open() {
    let node = Node::new("h100x4");
    let mut agent = node.run_agent("");
    agent.wait_for(&["gpuquota_up 1"]);
    node.fault("*", Some("1"), Action::Hang);
    agent.wait_for(&["gpuquota_gpus{state=\"hung\"} 1"]);
    node.fault("nvmlDeviceGetCount_v2", None, Action::Hang);
    let text = done(&node, &["quiesce"]);
    assert!(took_ms(&text) < 2000, "{text}");
    assert_eq!(users_of(&node.library()), [] as [u32; 0]);
    node.heal();
    done(&node, &["resume"]);
    agent.wait_for(&["gpuquota_gpus{state=\"ok\"} 4"]);
    alive(&mut agent);
}

#[test]
fn rule_13_it_ends_by_itself_and_outlives_a_restart_of_the_agent() {
    let node = Node::new("t4x1");
    let agent = node.run_agent("");
    agent.wait_for(&["gpuquota_up 1"]);
    done(&node, &["quiesce", "--for", "300ms"]);
    agent.wait_for(&["gpuquota_up 1", "gpuquota_nvml_state{state=\"ok\"} 1"]);

    done(&node, &["quiesce"]);
    kill_process(Pid::from_child(&agent.child), Signal::KILL).unwrap();
    drop(agent);
    assert!(done(&node, &["quiesce"]).contains("no agent runs"));
    let agent = node.run_agent("");
    agent.wait_for(&[QUIESCED]);
    assert_eq!(users_of(&node.library()), [] as [u32; 0]);
    done(&node, &["resume"]);
    agent.wait_for(&["gpuquota_up 1"]);
    // Done, but lost with the next restart: that is said.
    let kept = node.agent_dir().join("state/quiesced");
    fs::create_dir_all(kept.join("in the way")).unwrap();
    let output = order(&node, &["quiesce"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && error.contains("cannot be kept"),
        "{error}"
    );
    // Without its socket: the agent runs, and says that it cannot be asked.
    fs::remove_file(node.agent_dir().join("state/control.sock")).unwrap();
    assert!(!order(&node, &["quiesce"]).status.success());
}

/// A probe of a GPU that hangs would wait longer than whoever wants the driver closed.
#[tokio::test]
async fn rule_13_probes_end_with_the_rest() {
    let node = Node::new("h100x4");
    let deadline = CALL_DEADLINE * 5;
    let mut sampler = node.sampler_waiting("", deadline);
    reading(&mut sampler).await;
    node.fault("*", Some("1"), Action::Hang);
    sample_until(&mut sampler, |_| true).await;
    let before = sampler.stats().workers_started;
    while sampler.stats().workers_started == before {
        sample_until(&mut sampler, |_| true).await;
    }
    let left = sampler.quiesce("test".to_owned(), deadline * 3 / 4).await;
    assert_eq!((left, users_of(&node.library())), (vec![], vec![]));
    let collected = sampler.sample(boottime_ms()).await;
    assert_eq!(collected.nvml, NvmlState::Quiesced("test".to_owned()));
    node.heal();
    sampler.resume();
    sample_until(&mut sampler, |collected| collected.nvml == NvmlState::Ok).await;
    sampler.shutdown().await;
}

/// An agent that is started in the middle of a driver upgrade must not open what is being replaced.
#[test]
fn rule_13_an_order_without_an_agent_waits_for_the_next_one() {
    let node = Node::new("t4x1");
    let text = done(
        &node,
        &["quiesce", "--for", "10m", "--reason", "driver 560"],
    );
    assert!(
        text.contains("no agent runs") && text.contains("driver 560, until 2"),
        "{text}"
    );
    let agent = node.run_agent("");
    agent.wait_for(&[QUIESCED]);
    assert_eq!(users_of(&node.library()), [] as [u32; 0]);
    drop(agent);
    assert!(done(&node, &["resume"]).contains("reads the driver again"));
    assert!(done(&node, &["resume"]).contains("none was told"));
    let agent = node.run_agent("");
    agent.wait_for(&["gpuquota_up 1"]);
    drop(agent);
    // Its end comes by itself, too.
    done(&node, &["quiesce", "--for", "1500ms"]);
    let agent = node.run_agent("");
    agent.wait_for(&["gpuquota_up 1"]);
    drop(agent);
    // What cannot be kept is no success.
    let state = node.agent_dir().join("state");
    fs::remove_dir_all(&state).unwrap();
    fs::write(&state, "in the way").unwrap();
    let output = order(&node, &["quiesce"]);
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("cannot be kept"), "{error}");
}
