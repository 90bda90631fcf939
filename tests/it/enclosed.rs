//! A process of our own program on real systemd, put into a group of its own that has the GPUs of its lease and no others. Nodes of the
//! kernel's own devices stand in for GPUs': they open without hardware.

use gpuquota_tests::packaged::PackagedNode;
use gpuquota_tests::wait::SOON;
use serde_json::{Value, json};

const OWN: &str = "/dev/nvidia0";
const OTHER: &str = "/dev/nvidia1";
const SCOPE: &str = "/user.slice/user-4711.slice/gpuquota-lease-7.scope";
const SETUP: &str = "set -e
    mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
    mknod -m 666 /dev/nvidia0 c 10 229
    mknod -m 666 /dev/nvidia1 c 1 5
    mkfifo -m 666 /run/never
    systemctl start gpuquota-enforcer.socket";
/// A process of our program that reads a token that nobody writes.
const WAITS: &str = "gpuquota-agent join --server https://127.0.0.1:1 --token - \
    --ca-hash sha256:0000000000000000000000000000000000000000000000000000000000000000 --dir";

struct Node(PackagedNode);

impl Node {
    async fn new(test: &str) -> Option<Self> {
        let packaged = PackagedNode::install(test).await?;
        let _ = packaged.node.succeed(SETUP);
        Some(Self(packaged))
    }

    fn run(&self, command: &str) -> String {
        self.0.node.succeed(command).trim().to_owned()
    }

    fn holds(&self, command: &str) -> bool {
        self.0.node.holds(command)
    }

    async fn becomes(&self, command: &str) -> String {
        let said = self.0.node.becomes(command, SOON).await;
        said.trim().to_owned()
    }

    fn order(&self, order: &Value) -> Value {
        self.0.order(order)
    }

    fn is(&self, order: &Value, expected: &str) {
        let reply = self.order(order);
        assert_eq!(reply["is"], expected, "{order}: {reply}");
    }

    fn start(&self, unit: &str, script: &str) {
        let _ = self.run(&format!(
            "systemd-run --quiet --unit={unit} --slice=tenant-a.slice --uid=nobody sh -c '{script}'"
        ));
    }

    // The one that waits, by the folder that it was given.
    async fn waiting(&self, name: &str) -> u32 {
        let look = format!(
            "for p in $(pgrep -x gpuquota-agent); do grep -q /tmp/{name} /proc/$p/cmdline && echo $p && exit; done; exit 1"
        );
        self.becomes(&look).await.parse().unwrap()
    }

    // Beside another process of its login, so that it is moved.
    async fn beside(&self, name: &str) -> u32 {
        let script = format!("sleep 3600 &\n{WAITS} /tmp/{name} 0<>/run/never\nwait\n");
        self.0.node.write(&format!("/opt/{name}"), &script);
        let _ = self.run(&format!(
            "systemd-run --quiet --unit=logs-in-{name} systemd-run --quiet --scope --unit=session-{name} \
             --slice=user-4711.slice --uid=nobody sh /opt/{name}"
        ));
        self.waiting(name).await
    }

    fn enclose(&self, pid: u32, lease: u64) -> Value {
        let start = self.run(&format!("cut -d' ' -f22 /proc/{pid}/stat"));
        let boot_id = self.run("cat /proc/sys/kernel/random/boot_id");
        let start: u64 = start.parse().unwrap();
        json!({"do": "enclose", "who": {"pid": pid, "start_time": start, "boot_id": boot_id},
            "lease": lease, "allow": [OWN], "version": 7})
    }

    fn group(&self, pid: u32) -> String {
        self.run(&format!("sed -n 's/^0:://p' /proc/{pid}/cgroup"))
    }

    // Whether a shell that root puts into a group can open a node.
    fn opens(&self, group: &str, device: &str) -> bool {
        let enter = format!("echo 0 >/sys/fs/cgroup{group}/cgroup.procs");
        assert!(self.holds(&enter), "nobody can go into {group}");
        self.holds(&format!("{enter} && : <>{device}"))
    }

    fn kept(&self) -> (String, String) {
        let names = |folder: &str| self.run(&format!("test ! -d {folder} || ls {folder}"));
        (
            names("/run/gpuquota-enforcer/denied"),
            names("/sys/fs/bpf/gpuquota"),
        )
    }
}

#[tokio::test]
async fn rule_17_work_under_a_lease_has_its_own_gpus_alone_until_it_ends() {
    let Some(node) = Node::new("a process enclosed on real systemd").await else {
        return;
    };
    let able = node.order(&json!({"do": "can"}));
    assert_eq!(able["enclose"], true, "{able}");
    let pid = node.beside("work").await;
    let _ = node.run(
        "systemd-run --quiet --unit=neighbour --slice=user-4711.slice --uid=nobody sleep 3600",
    );
    let neighbour = node.0.property("neighbour", "MainPID").parse().unwrap();
    let beside = node.group(neighbour);
    let order = node.enclose(pid, 7);
    assert_eq!(
        node.order(&order),
        json!({"is": "enclosed", "group": SCOPE})
    );
    assert_eq!(node.group(pid), SCOPE);
    let still = |after: &str| {
        assert!(node.opens(SCOPE, OWN), "its own, after {after}");
        assert!(!node.opens(SCOPE, OTHER), "another's, after {after}");
        assert!(node.opens(&beside, OTHER), "a neighbour, after {after}");
        assert_eq!(node.group(neighbour), beside);
        let listed = node.order(&json!({"do": "restrictions"}));
        assert_eq!(listed["groups"], json!([]), "after {after}");
    };
    still("the order");
    node.is(&node.enclose(pid, 8), "refused");
    let lift = json!({"do": "lift", "group": SCOPE});
    node.is(&lift, "gone");
    let restrict = json!({"do": "restrict", "group": SCOPE, "nodes": [OWN], "version": 7});
    node.is(&restrict, "done");
    assert!(!node.opens(SCOPE, OWN) && !node.opens(SCOPE, OTHER));
    node.is(&lift, "done");
    still("a restriction that was lifted");
    let _ = node.run("systemctl restart gpuquota-enforcer.service");
    still("a restart");
    let _ = node.run("systemctl daemon-reload");
    still("a reload");
    let (records, pins) = node.kept();
    assert_eq!(records, format!("{pins}.json"));
    let _ = node.run(&format!("kill -KILL {pid}"));
    let _ = node
        .becomes(&format!("test ! -e /sys/fs/cgroup{SCOPE}"))
        .await;
    node.is(&json!({"do": "restrictions"}), "restricted");
    assert_eq!(node.kept(), (String::new(), String::new()));
    // What a removal finds, it takes away.
    let pid = node.beside("again").await;
    node.is(&node.enclose(pid, 7), "enclosed");
    assert!(!node.opens(SCOPE, OTHER));
    let _ = node.run("dpkg --remove gpuquota-agent");
    assert!(node.opens(SCOPE, OTHER));
}

#[tokio::test]
async fn rule_17_a_service_keeps_its_process_and_who_does_not_wait_is_not_enclosed() {
    let Some(node) = Node::new("who is not enclosed").await else {
        return;
    };
    node.start("served", &format!("exec {WAITS} /tmp/served 0<>/run/never"));
    let pid = node.waiting("served").await;
    let service = "/tenant.slice/tenant-a.slice/served.service";
    let good = node.enclose(pid, 7);
    let other = |name: &str, value: Value| {
        let mut order = good.clone();
        order["who"][name] = value;
        order
    };
    node.is(&other("start_time", json!(1)), "gone");
    node.is(&other("boot_id", json!("another")), "gone");
    node.is(&other("pid", json!(0)), "refused");
    for allow in [json!([]), json!(["/dev/null"]), json!([OWN, "/dev/sda"])] {
        let mut order = good.clone();
        order["allow"] = allow;
        node.is(&order, "refused");
    }
    let mut absent = good.clone();
    absent["allow"] = json!([OWN, "/dev/nvidia9"]);
    node.is(&absent, "failed");
    node.start("stranger", "exec sleep 3600");
    let stranger = node.0.property("stranger", "MainPID").parse().unwrap();
    node.is(&node.enclose(stranger, 7), "refused");
    // The same program, but a file of the tenant's.
    let copy = "install -m 755 -o nobody /usr/bin/gpuquota-agent /opt/gpuquota-agent";
    let _ = node.run(copy);
    node.start(
        "copied",
        &format!("exec /opt/{WAITS} /tmp/copied 0<>/run/never"),
    );
    let copied = node.waiting("copied").await;
    node.is(&node.enclose(copied, 7), "refused");
    assert!(node.opens(service, OTHER));
    assert_eq!(node.kept().0, "", "something was denied");
    let enclosed = json!({"is": "enclosed", "group": service});
    assert_eq!(node.order(&good), enclosed);
    assert_eq!(node.group(pid), service);
    assert_eq!(node.0.property("served", "MainPID"), pid.to_string());
    assert!(node.opens(service, OWN) && !node.opens(service, OTHER));
    // Another lease takes the place of the first.
    let mut next = good.clone();
    next["allow"] = json!([OTHER]);
    assert_eq!(node.order(&next), enclosed);
    assert!(node.opens(service, OTHER) && !node.opens(service, OWN));
    assert_eq!(node.kept().0.lines().count(), 1);
}
