//! A closed node, and the same with each way opened.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn grade(findings: &[Finding], id: &str) -> (Grade, String) {
    let finding = findings.iter().find(|finding| finding.id == id).unwrap();
    assert_eq!(finding.advice.is_some(), finding.grade != Grade::Ok, "{id}");
    (finding.grade, finding.found.clone())
}

fn look(root: &Root) -> Vec<Finding> {
    let accounts = Accounts::read(root);
    let ways = Ways::read(root, &accounts);
    examine(root, &accounts, &ways, Some(false))
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
    let accept = "accept-nvidia-visible-devices-envvar-when-unprivileged";
    let runtime = "etc/nvidia-container-runtime/config.toml";
    write(runtime, &format!("{accept} = false\n"), 0o644);
    write("etc/pam.d/sshd", "@include common-account\n", 0o644);
    write(
        "etc/pam.d/common-account",
        "account required pam_slurm_adopt.so\n",
        0o644,
    );
    let closed = look(&root);
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
    write("run/docker.sock", "", 0o666);
    write(
        "etc/docker/daemon.json",
        r#"{"hosts": ["tcp://0.0.0.0:2375"]}"#,
        0o644,
    );
    write("var/lib/systemd/linger/carol", "", 0o644);
    write("usr/bin/nvidia-modprobe", "", 0o4755);
    write("dev/nvidia0", "", 0o666);
    fs::remove_file(root.at("sys/fs/cgroup/cgroup.controllers")).unwrap();
    write(
        "etc/slurm/cgroup.conf",
        "ConstrainDevices=yes\nConstrainDevices=no\n",
        0o644,
    );
    write(
        runtime,
        &format!("#{accept} = false\n[nvidia-container-cli]\n"),
        0o644,
    );
    write(
        "etc/pam.d/common-account",
        "# account required pam_slurm_adopt.so\n",
        0o644,
    );
    let open = look(&root);
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
    assert!(
        grade(&open, "container_sockets")
            .1
            .contains("docker.sock: everybody")
    );
    assert!(grade(&open, "lingering").1.starts_with("carol "));
    assert!(
        grade(&open, "cuda_visible_devices")
            .1
            .contains("hint that every program may override, and no device rule")
    );
    assert_eq!(visible_devices(&root, Some(true)).grade, Grade::Ok);
    assert_eq!(visible_devices(&root, None).grade, Grade::Unknown);
    // Whom a group and the folder above let through, by name.
    if rustix::process::geteuid().is_root() {
        write("run/docker.sock", "", 0o660);
        std::os::unix::fs::chown(root.at("run/docker.sock"), None, Some(28)).unwrap();
        let (warn, text) = grade(&look(&root), "container_sockets");
        assert!(
            warn == Grade::Warn && text.contains("a group (wheel)"),
            "{text}"
        );
        fs::set_permissions(root.at("run"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(grade(&look(&root), "container_sockets").0, Grade::Ok);
    }

    let nothing = tempfile::tempdir().unwrap();
    let findings = look(&Root::new(nothing.path()));
    for id in ["docker_group", "admins", "device_nodes"] {
        assert_eq!(grade(&findings, id).0, Grade::Unknown, "{id}");
    }
    // A directory may name more than the files do.
    let told = "root:x:0:0::/:/bin/sh\n";
    write("etc/passwd", told, 0o644);
    write("etc/group", "docker:x:999:\n", 0o644);
    write("etc/nsswitch.conf", "group: files ldap\n", 0o644);
    let (unknown, text) = grade(&look(&root), "docker_group");
    assert!(unknown == Grade::Unknown && text.contains("ldap"), "{text}");
}
