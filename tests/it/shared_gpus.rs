//! GPUs that several share, on real nodes: a MIG instance by its capability's node, clients of MPS, a virtual machine's vGPU.
//! What opens without hardware stands in for the nodes.

use gpuquota_tests::quota::{GPU, quota};
use gpuquota_tests::site::{Member, Site};
use gpuquota_tests::wait::{SOON, until};
use serde_json::{Value, json};

/// Of the instances 7 and 8 of the first GPU, by number.
const CAPS: [&str; 2] = [
    "/dev/nvidia-caps/nvidia-cap66",
    "/dev/nvidia-caps/nvidia-cap75",
];
const MIG: &str = "nvidia.com/mig-1g.10gb";

// The driver's files of capabilities (MIG user guide), and devices that open for everybody.
const SETUP: &str = "set -e
    mount -t tmpfs tmpfs /proc/driver
    for of in 7:66:237 8:75:234; do
        IFS=: read -r gi cap minor <<END
$of
END
        mkdir -p /proc/driver/nvidia/capabilities/gpu0/mig/gi$gi/ci0 /dev/nvidia-caps
        printf 'DeviceFileMinor: %s\\nDeviceFileMode: 292\\nDeviceFileModify: 1\\n' $cap >/proc/driver/nvidia/capabilities/gpu0/mig/gi$gi/ci0/access
        mknod -m 666 /dev/nvidia-caps/nvidia-cap$cap c 10 $minor
    done
    mknod -m 666 /dev/nvidia2 c 10 232
    mknod -m 666 /dev/nvidia3 c 10 235
    install -m 755 /bin/sleep /usr/bin/nvidia-cuda-mps-server";

async fn mode(site: &Site, mode: &str) {
    site.settings(json!({
        "enforcement": {"mode": mode, "grace_seconds": 0, "term_grace_seconds": 1},
    }))
    .await;
}

#[tokio::test]
async fn case_76_of_a_mig_instance_mps_and_a_vgpu_only_who_may_not_is_denied_or_ended() {
    let nodes = [("gpu01", "a100-mig"), ("gpu02", "l40s-vgpu")];
    let test = "shared GPUs on real systemd";
    let Some(site) = Site::boot(test, &nodes).await else {
        return;
    };
    let [cut, host] = site.members.as_slice() else {
        return;
    };
    let _ = cut.node.succeed(SETUP);
    let vm = host.node.succeed(
        "vm=$(sed -n 's/^vm = //p' /opt/fake/scenario.toml | head -n 1)
        printf '[[attribution.vm]]\\nvm = %s\\ntenant = \"v\"\\n' \"$vm\" >>/etc/gpuquota/agent.toml
        grep -n vm.= /etc/gpuquota/agent.toml",
    );
    site.join().await;
    let admin = site.server.admin();
    for (tenant, model) in [("a", MIG), ("c", GPU)] {
        let body = quota("default", "purchase", model, 1);
        admin.put(tenant, body).await.expect_done();
    }
    a_mig_instance(&site, cut).await;
    clients_of_mps(cut).await;
    a_gpu_that_is_cut(cut).await;
    what_doctor_says(cut);
    // The agent cannot end a virtual machine, says so once, and touches nothing of it; its hypervisor does.
    host.did("v", "restrict", "impossible").await;
    assert_eq!(site.times("v", "term", "done"), 0, "{vm}");
    assert!(
        !host
            .node
            .holds("journalctl -u gpuquota-enforcer | grep -E 'signal|restrict'")
    );
    let _ = host.node.succeed("fake vgpu remove --uuid $(sed -n '/gpu.vgpu/,$ s/^uuid = //p' /opt/fake/scenario.toml | head -n 1 | tr -d '\"')");
    host.knows_not("gpuquota_node_violations{tenant=.v.").await;
}

// Two tenants on two instances of one GPU, whose own node both have open: only the capability of one is denied, and to one.
async fn a_mig_instance(site: &Site, cut: &Member) {
    let on = |tenant: &str, cap: usize, gi: u32| {
        let pid = cut.holder(
            tenant,
            &format!("mig-{tenant}"),
            &["/dev/nvidia0", CAPS[cap]],
            false,
        );
        cut.shown(pid, &format!("--gpu 0 --gi {gi} --ci 0"));
        pid
    };
    let (paying, squatter) = (on("a", 0, 7), on("b", 1, 8));
    mode(site, "restrict").await;
    cut.did("b", "restrict", "done").await;
    let denied = |when: &str| {
        assert!(!cut.opens("b", CAPS[1]), "{when}");
        assert!(
            cut.opens("b", CAPS[0]) && cut.opens("b", "/dev/nvidia0"),
            "{when}: denied too much"
        );
        assert!(
            cut.opens("a", CAPS[0]) && cut.opens("a", CAPS[1]),
            "{when}: a neighbour"
        );
        assert!(
            cut.lives(paying) && cut.lives(squatter),
            "{when}: somebody was ended"
        );
    };
    denied("restricted");
    // Cut anew: the driver lists nobody there, and the instance of this number is still not to be had.
    let slice = "fake slice --gpu 0 --layout 3g.40gb,1g.10gb,1g.10gb,1g.10gb";
    let _ = cut.node.succeed(slice);
    cut.knows_not("gpuquota_tenant_devices{tenant=.b.").await;
    denied("cut anew");
    mode(site, "evict").await;
    for (pid, gi) in [(paying, 7), (squatter, 8)] {
        cut.shown(pid, &format!("--gpu 0 --gi {gi} --ci 0"));
    }
    cut.ended(squatter).await;
    cut.did("b", "term", "done").await;
    assert!(cut.lives(paying) && cut.opens("a", CAPS[0]) && !cut.opens("b", CAPS[1]));
}

// Two clients of one server of MPS; the server and the one that may stay are untouched.
async fn clients_of_mps(cut: &Member) {
    let _ = cut.node.succeed("systemd-run --quiet --unit=mps sh -c 'exec 3<>/dev/nvidia2; exec nvidia-cuda-mps-server 3600'");
    let server = cut
        .node
        .succeed("systemctl show mps --property=MainPID --value");
    let server: u32 = server.trim().parse().unwrap();
    cut.shown(server, "--gpu 2");
    let client = |tenant: &str| {
        let pid = cut.holder(
            tenant,
            &format!("client-{tenant}"),
            &["/dev/nvidia2"],
            false,
        );
        cut.shown(pid, "--gpu 2 --kind mps");
        pid
    };
    let (paying, squatter) = (client("c"), client("d"));
    cut.ended(squatter).await;
    cut.did("d", "restrict", "done").await;
    assert!(!cut.opens("d", "/dev/nvidia2") && cut.opens("c", "/dev/nvidia2"));
    assert!(
        cut.lives(paying) && cut.lives(server),
        "who serves all, or may be there, was ended"
    );
}

// What is denied of a whole GPU is given back when it is cut: without the GPU's own node nobody can use an instance of it.
async fn a_gpu_that_is_cut(cut: &Member) {
    let squatter = cut.work("e", "whole", 3, false);
    cut.ended(squatter).await;
    let denied = cut
        .node
        .succeed("systemctl show tenant-e.slice --property=ActiveState --value");
    assert_eq!(denied, "active\n", "else its next slice is another");
    assert!(!cut.opens("e", "/dev/nvidia3"));
    let _ = cut
        .node
        .succeed("fake slice --gpu 3 --layout 3g.40gb,3g.40gb");
    until(
        "the whole GPU's own node is allowed again",
        SOON,
        async || {
            let opens = cut.opens("e", "/dev/nvidia3");
            opens.then_some(()).ok_or_else(String::new)
        },
    )
    .await;
}

// Each way round: what opens it and what closes it again. `doctor` says the one and the other.
const WAYS: [(&str, &str, &str); 8] = [
    (
        "docker_group",
        "groupadd -f docker && useradd eve && gpasswd -a eve docker",
        "gpasswd -d eve docker",
    ),
    ("admins", "gpasswd -a eve sudo", "gpasswd -d eve sudo"),
    (
        "lingering",
        "mkdir -p /var/lib/systemd/linger && touch /var/lib/systemd/linger/eve",
        "rm /var/lib/systemd/linger/eve",
    ),
    (
        "container_sockets",
        "perl -e 'use IO::Socket::UNIX; IO::Socket::UNIX->new(Local => \"/run/docker.sock\", Listen => 1)'; chmod 666 /run/docker.sock",
        "chmod 600 /run/docker.sock",
    ),
    (
        "nvidia_modprobe",
        "install -m 4755 /bin/true /usr/bin/nvidia-modprobe",
        "chmod u-s /usr/bin/nvidia-modprobe",
    ),
    (
        "device_nodes",
        "chmod 666 /dev/nvidia[0-9]*",
        "chmod 660 /dev/nvidia[0-9]*",
    ),
    (
        "open_descriptors",
        "systemd-run --quiet --unit=kept sh -c 'exec 3<>/dev/nvidia-caps/nvidia-cap75
            mkdir /sys/fs/cgroup/tenant.slice/tenant-b.slice/kept && echo 0 >/sys/fs/cgroup/tenant.slice/tenant-b.slice/kept/cgroup.procs
            exec sleep 3600'
        timeout 10 sh -c 'until grep -q . /sys/fs/cgroup/tenant.slice/tenant-b.slice/kept/cgroup.procs; do sleep 0.02; done'",
        "echo 1 >/sys/fs/cgroup/tenant.slice/tenant-b.slice/kept/cgroup.kill
        timeout 10 sh -c 'until rmdir /sys/fs/cgroup/tenant.slice/tenant-b.slice/kept; do sleep 0.02; done'",
    ),
    (
        "enforcer",
        "systemctl stop gpuquota-enforcer.socket gpuquota-enforcer.service",
        "systemctl start gpuquota-enforcer.socket",
    ),
];

// Rule 18, on a node where each is really so.
fn what_doctor_says(cut: &Member) {
    let grade = |id: &str| {
        // Root reads all files of the node; the privileged half answers the agent's user.
        let run = match id {
            "enforcer" => {
                "runuser -u gpuquota-agent -- gpuquota-agent doctor --json --dir /var/lib/gpuquota-agent"
            }
            "open_descriptors" => "gpuquota-agent doctor --json --dir /var/lib/gpuquota-agent",
            _ => "gpuquota-agent doctor --json",
        };
        let told: Value = serde_json::from_slice(&cut.node.run(run).stdout).unwrap();
        let found = told["findings"].as_array().unwrap().iter();
        let finding = found.clone().find(|finding| finding["id"] == id);
        let finding = finding.unwrap_or(&told);
        let text = finding["grade"].as_str().unwrap().to_owned();
        assert!(finding["id"] == id, "no {id}: {told}");
        text
    };
    for (id, open, close) in WAYS {
        let _ = cut.node.succeed(open);
        assert_eq!(grade(id), "warn", "{id} is open");
        let _ = cut.node.succeed(close);
        assert_eq!(grade(id), "ok", "{id} is closed");
    }
    // It is right: as the last one left it, nobody of the tenants gets in.
    assert!(!cut.opens("a", "/dev/nvidia1"));
}
