//! A closed node, and the same with each way opened.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn grade(findings: &[Finding], id: &str) -> (Grade, String) {
    let finding = findings.iter().find(|finding| finding.id == id).unwrap();
    assert_eq!(
        finding.advice.is_some(),
        finding.grade == Grade::Warn,
        "{id}"
    );
    (finding.grade, finding.found.clone())
}

#[test]
fn rule_18_each_way_round_is_found_and_a_closed_node_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    let write = |path: &str, text: &str, mode: u32| {
        let file = root.at(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    };
    // Closed.
    write(
        "etc/group",
        "root:x:0:\ndocker:x:999:\nsudo:x:27:root\nusers:x:100:eve\nbroken\n",
        0o644,
    );
    write(
        "etc/passwd",
        "root:x:0:0::/:/bin/sh\neve:x:1000:100::/:/bin/sh\n",
        0o644,
    );
    write("run/docker.sock", "", 0o600);
    write("usr/bin/nvidia-modprobe", "", 0o755);
    write("dev/nvidia0", "", 0o660);
    fs::create_dir_all(root.at("dev/nvidia-caps")).unwrap();
    fs::set_permissions(
        root.at("dev/nvidia-caps"),
        fs::Permissions::from_mode(0o777),
    )
    .unwrap();
    write("sys/fs/cgroup/cgroup.controllers", "", 0o444);
    write(
        "etc/slurm/cgroup.conf",
        "# x\nconstraindevices = YES # all\n",
        0o644,
    );
    let closed = examine(&root);
    assert!(
        closed.iter().all(|finding| finding.grade == Grade::Ok),
        "{closed:?}"
    );

    // Each opened.
    write(
        "etc/group",
        "docker:x:999:bob,alice\nsudo:x:27:carol\nwheel:x:28:\n",
        0o644,
    );
    write("etc/passwd", "dora:x:1001:999::/:/bin/sh\n", 0o644);
    write("run/docker.sock", "", 0o660);
    write("usr/bin/nvidia-modprobe", "", 0o4755);
    write("dev/nvidia0", "", 0o666);
    fs::remove_file(root.at("sys/fs/cgroup/cgroup.controllers")).unwrap();
    write(
        "etc/slurm/cgroup.conf",
        "ConstrainDevices=yes\nConstrainDevices=no\n",
        0o644,
    );
    let open = examine(&root);
    assert!(
        open.iter().all(|finding| finding.grade == Grade::Warn),
        "{open:?}"
    );
    assert!(
        grade(&open, "docker_group")
            .1
            .starts_with("alice, bob, dora ")
    );
    assert!(grade(&open, "admins").1.starts_with("carol "));
    assert!(grade(&open, "container_sockets").1.starts_with("a group"));
    write("run/docker.sock", "", 0o666);
    assert!(
        grade(&examine(&root), "container_sockets")
            .1
            .starts_with("everybody")
    );

    let nothing = tempfile::tempdir().unwrap();
    let findings = examine(&Root::new(nothing.path()));
    assert_eq!(grade(&findings, "groups").0, Grade::Unknown);
    assert_eq!(grade(&findings, "device_nodes").0, Grade::Unknown);
}
