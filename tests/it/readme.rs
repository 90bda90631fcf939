//! The README's lines to try by hand, run as they are printed, on other ports.

use std::process::Command;

use gpuquota_tests::program::{free_port, output, program};
use gpuquota_tests::repository::root;

// Before the first line: stop at the first failure, end what was started, and let curl tell of refusals.
const BEGIN: &str = r#"
set -euo pipefail
trap 'kill $(jobs -p); wait' EXIT
curl() { command curl --silent --show-error --fail-with-body --noproxy "*" "$@"; echo; }
"#;
const WAIT: &str = r#"
for _ in $(seq 400); do curl "127.0.0.1:8080/healthz" 2> /dev/null && break; sleep 0.05; done
"#;

// The shell blocks behind two headings, without what needs a checkout or a GPU.
fn script() -> String {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut script = BEGIN.to_owned();
    for heading in [
        "## From nothing to a tenant",
        "## A lease",
        "## Five dialects, one ledger",
    ] {
        let (_, behind) = text.split_once(heading).unwrap();
        let (_, block) = behind.split_once("```sh\n").unwrap();
        let (block, _) = block.split_once("```").unwrap();
        let left_out = ["cargo build", "alias ", "gpuquota-agent "];
        let is_left_out = |line: &&str| left_out.iter().any(|word| line.starts_with(word));
        for line in block.lines().filter(|line| !is_left_out(line)) {
            script += line;
            script.push('\n');
            if line.starts_with("gpuquota-server init") {
                script += "sed -i \"$PORTS\" s/server.toml\n";
            } else if line.starts_with("gpuquota-server serve") {
                script += WAIT;
            }
        }
    }
    script
}

#[test]
fn what_the_readme_says_to_try_works_as_printed() {
    let home = tempfile::tempdir().unwrap();
    let [rest, agents, metrics] = [(); 3].map(|()| free_port());
    let ports = [(8080, rest), (8443, agents), (9402, metrics)];
    let ports: Vec<String> = ports
        .iter()
        .map(|(from, to)| format!("s/:{from}/:{to}/"))
        .collect();
    let script = script().replace(":8080", &format!(":{rest}"));
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(home.path());
    let programs = program("gpuquota-server");
    let path = std::env::var("PATH").unwrap();
    command.env(
        "PATH",
        format!("{}:{path}", programs.parent().unwrap().display()),
    );
    command.env("PORTS", ports.join(";"));
    let said = output(&mut command);
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(
        said.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&said.stderr)
    );
    for expected in [
        "{\"code\":0}\n",
        r#""tenant_name":"research""#,
        r#"{"type":"gpu_instances","quota":4,"used":0}"#,
        r#"{"dry_run":true,"lease":{"tenant":"research","#,
        r#""state":"ended""#,
        r#"{"type":"users","quota":3000,"used":29}"#,
        r#"{"used":0,"resource":"c4","hard_limit":5}"#,
        r#""gpuNumber":2,"#,
        r#""used_licenses":75,"#,
    ] {
        assert!(text.contains(expected), "no {expected} in {text}");
    }
    assert!(home.path().join("a/agent.toml").is_file());
}
