//! The command `doctor` on a node of files, with the fake NVML behind it.

use std::fs;

use serde_json::Value;

use crate::node::Node;

fn doctor(node: &Node, root: &std::path::Path, more: &[&str]) -> (Option<i32>, String) {
    let mut command = node.agent();
    command
        .args(["doctor", "--nvml-library"])
        .arg(node.library());
    command.arg("--root").arg(root).args(more);
    let output = command.output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

fn grade(told: &Value, id: &str) -> String {
    let findings = told["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["id"] == id);
    finding.unwrap_or_else(|| panic!("no {id} in {told}"))["grade"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn rule_18_doctor_grades_the_node_for_people_and_programs() {
    let node = Node::new("a100-mig");
    let root = tempfile::tempdir().unwrap();
    let proc = root.path().join("proc");
    fs::create_dir_all(proc.join("self/ns")).unwrap();
    fs::create_dir_all(proc.join("driver/nvidia")).unwrap();
    let version = |version: &str| {
        let text = format!("NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Fri\n");
        fs::write(proc.join("driver/nvidia/version"), text).unwrap();
    };
    version("550.90.07");
    std::os::unix::fs::symlink("pid:[4026531836]", proc.join("self/ns/pid")).unwrap();

    let (code, text) = doctor(&node, root.path(), &["--json"]);
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, told["grade"].as_str()), (Some(1), Some("warn")));
    for id in ["nvml", "driver_version", "gpus", "pid_namespace"] {
        assert_eq!(grade(&told, id), "ok", "{id}");
    }
    assert_eq!(grade(&told, "mig_capabilities"), "warn");
    let (_, list) = doctor(&node, root.path(), &[]);
    assert!(
        list.contains("nvidia-modprobe -f makes the nodes"),
        "{list}"
    );

    version("560.35.03");
    node.edit(|scenario| scenario.set_lost("1", true));
    let dir = node.agent_dir();
    fs::write(dir.join("agent.toml"), "").unwrap();
    fs::create_dir(dir.join("state")).unwrap();
    let dir = dir.to_str().unwrap();
    let (code, text) = doctor(&node, root.path(), &["--json", "--dir", dir]);
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, Some(2));
    assert_eq!(
        (grade(&told, "driver_version"), grade(&told, "gpus")),
        ("fail".into(), "warn".into())
    );
    assert_eq!(grade(&told, "state"), "warn", "others may look in");

    fs::write(std::path::Path::new(dir).join("agent.toml"), "nonsense = 1").unwrap();
    let (code, text) = doctor(&node, root.path(), &["--json", "--dir", dir]);
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, grade(&told, "config")), (Some(2), "fail".into()));
    assert_eq!(grade(&told, "nvml"), "ok");

    // The order to leave the driver alone counts although the configuration is broken.
    fs::write(std::path::Path::new(dir).join("agent.toml"), "").unwrap();
    let status = node.agent().args(["quiesce", "--dir", dir]).status();
    assert!(status.unwrap().success());
    fs::write(std::path::Path::new(dir).join("agent.toml"), "nonsense = 1").unwrap();
    let (_, text) = doctor(&node, root.path(), &["--json", "--dir", dir]);
    let told: Value = serde_json::from_str(&text).unwrap();
    for id in ["nvml", "driver_version", "gpus", "mig_capabilities"] {
        assert_eq!(grade(&told, id), "unknown", "{id}");
    }
    assert!(text.contains("on request, until 2"), "{text}");

    // Each tenant has a grade.
    let rules = "[[attribution.rule]]\nuid_range = [1000, 2000]\ntenant = \"team-a\"\n";
    fs::write(std::path::Path::new(dir).join("agent.toml"), rules).unwrap();
    let (_, text) = doctor(&node, root.path(), &["--json", "--dir", dir]);
    let told: Value = serde_json::from_str(&text).unwrap();
    let findings = told["findings"].as_array().unwrap();
    let team = findings
        .iter()
        .find(|finding| finding["tenant"] == "team-a");
    assert_eq!(team.unwrap()["about"], "tenant");
    let silent = findings
        .iter()
        .filter(|finding| finding["grade"] != "ok" && finding["advice"].is_null());
    assert_eq!(
        silent.count(),
        0,
        "what is not good says what to do: {told}"
    );
}

/// A server that does not listen, and one that does; nothing is sent to it.
#[test]
fn doctor_dials_the_server_and_looks_at_the_certificate() {
    let node = Node::new("t4x1");
    let dir = node.agent_dir();
    let issued = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    let uri = gpuquota_proto::identity::node_uri("node1");
    params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let certificate = params.self_signed(&issued).unwrap().pem();
    fs::write(dir.join("agent.crt"), &certificate).unwrap();
    fs::write(dir.join("ca.crt"), &certificate).unwrap();
    let key = dir.join("agent.key");
    fs::write(&key, issued.serialize_pem()).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&key, mode).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    fs::write(
        dir.join("agent.toml"),
        format!("server = \"https://{address}\""),
    )
    .unwrap();
    let ask = || {
        let (code, text) = doctor(
            &node,
            std::path::Path::new("/"),
            &["--json", "--dir", dir.to_str().unwrap()],
        );
        assert_eq!(code, Some(2));
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let told = ask();
    assert_eq!(
        (grade(&told, "certificate"), grade(&told, "server")),
        ("fail".into(), "ok".into())
    );
    drop(listener);
    assert_eq!(grade(&ask(), "server"), "fail");
}
