//! Many GPUs that hang, from the start and later: whoever scrapes gets an answer in time, and the others are read on.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use gpuquota_agent::clock::boottime_ms;
use gpuquota_fake_nvml::SCENARIO_VARIABLE;
use gpuquota_fake_nvml::scenario::Action;

use crate::node::{Node, PATIENCE};
use crate::running::Running;

/// Scrapes until these GPUs are counted; none of the answers may take long.
fn counted(agent: &Running, ok: u32, hung: u32) -> String {
    let rows = [
        format!("gpuquota_gpus{{state=\"ok\"}} {ok}"),
        format!("gpuquota_gpus{{state=\"hung\"}} {hung}"),
        "gpuquota_gpus{state=\"lost\"} 0".to_owned(),
        "gpuquota_up 1".to_owned(),
    ];
    let patience_ms = u64::try_from(PATIENCE.as_millis()).unwrap();
    let end_ms = boottime_ms() + patience_ms;
    loop {
        let begun_ms = boottime_ms();
        let text = agent.scrape();
        let took_ms = boottime_ms() - begun_ms;
        assert!(took_ms < 1000, "{took_ms} ms");
        let there = |row: &String| text.lines().any(|line| line == row);
        if rows.iter().all(there) {
            return text;
        }
        assert!(boottime_ms() < end_ms, "{rows:?} in {text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn fault_a_rule_02_three_hang_at_the_start_and_three_later_and_two_stay_fresh() {
    let node = Node::new("h100x8");
    for gpu in ["1", "3", "5"] {
        node.fault("*", Some(gpu), Action::Hang);
    }
    let agent = node.run_agent("");
    counted(&agent, 5, 3);
    for gpu in ["0", "2", "4"] {
        node.fault("*", Some(gpu), Action::Hang);
    }
    let text = counted(&agent, 2, 6);
    let of_a_name = |line: &&str| {
        line.starts_with("gpuquota_gpu_state{uuid=\"GPU-") && line.ends_with("state=\"hung\"} 1")
    };
    assert_eq!(text.lines().filter(of_a_name).count(), 3, "{text}");
    let pid = node.run_on("7", None);
    node.register(pid, "late");
    agent.wait_for(&[
        "gpuquota_tenant_devices{tenant=\"late\",gpu_model=\"nvidia.com/gpu\",kind=\"gpu\"} 1",
        "gpuquota_gpus{state=\"hung\"} 6",
    ]);
    node.heal();
    counted(&agent, 8, 0);
}

/// Long before the deadline of its call: whoever wants the worker gone does not wait for that.
#[test]
fn fault_a_rule_02_a_worker_whose_input_ends_says_on_which_gpu_it_is() {
    let node = Node::new("h100x4");
    node.fault("*", Some("1"), Action::Hang);
    let mut worker = Command::new(env!("CARGO_BIN_EXE_gpuquota-agent"))
        .args(["nvml-worker", "--call-deadline-ms", "60000"])
        .arg("--nvml-library")
        .arg(node.library())
        .env(SCENARIO_VARIABLE, node.scenario())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let begun_ms = boottime_ms();
    worker.stdin.take().unwrap().write_all(b"sample\n").unwrap();
    let mut line = String::new();
    BufReader::new(worker.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert!(boottime_ms() - begun_ms < 20_000);
    let said: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(said["hung"]["target"]["index"], 1, "{line}");
}
