//! Nodes with real systemd: what the tests on them stand on.

use gpuquota_tests::real_node::RealNode;

#[tokio::test]
async fn two_nodes_have_own_names_networks_device_rules_and_groups_that_die_at_once() {
    let test = "real nodes";
    let Some(first) = RealNode::boot(test, "gpu01").await else {
        return;
    };
    let second = RealNode::boot(test, "gpu02").await.unwrap();
    assert_ne!(first.address(), second.address());
    for (node, name) in [(&first, "gpu01"), (&second, "gpu02")] {
        assert_eq!(node.succeed("uname -n").trim(), name);
        let types = node.succeed("stat --file-system --format=%T /sys/fs/cgroup");
        assert_eq!(types.trim(), "cgroup2fs");
        // A command that fails fails here too.
        assert_eq!(node.run("exit 7").status.code(), Some(7));
        // Each is reached by its address and reaches the host.
        let listener = std::net::TcpListener::bind((node.host(), 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let _ = node.succeed(&format!("bash -c 'echo </dev/tcp/{}/{port}'", node.host()));
    }
    // fuse stands in for a GPU: a device node that opens without hardware.
    let open = "mknod -m 666 /dev/fake0 c 10 229 && \
        systemd-run --pipe --wait --quiet -p DevicePolicy=closed DEVICE sh -c ': <>/dev/fake0'; r=$?; rm /dev/fake0; exit $r";
    let allowed = open.replace("DEVICE", "-p DeviceAllow='/dev/fake0 rw'");
    assert!(first.holds(&allowed), "an allowed device opens");
    let denied = open.replace("DEVICE", "");
    assert!(!first.holds(&denied), "a device that is not allowed opens");
    // The whole of a service ends by one write, its children too.
    let _ = first.succeed("systemd-run --quiet --unit=work sh -c 'setsid sleep 3600 & wait'");
    let _ = first.succeed("echo 1 >/sys/fs/cgroup/system.slice/work.service/cgroup.kill");
    let gone = "! pgrep -x sleep";
    let _ = first.becomes(gone, gpuquota_tests::wait::SOON).await;
}
