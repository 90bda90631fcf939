//! The privileged half from its package on real systemd: programs on control groups that the kernel obeys, signals to processes that
//! live. A node of fuse stands in for a GPU's: it opens without hardware.

use gpuquota_tests::packaged::{ENFORCER, PackagedNode};
use gpuquota_tests::skip::measured;
use gpuquota_tests::wait::SOON;
use serde_json::{Value, json};

const NODE: &str = "/dev/nvidia0";
const THEIRS: &str = "/user.slice/user-4711.slice";
/// Exposure by `systemd-analyze security`, in tenths: 0 is locked up, 100 wide open.
const MOST_EXPOSURE: u32 = 23;
const SETUP: &str = "set -e
    mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
    mount -o remount,bind,rw /proc/sys || true
    mknod -m 666 /dev/nvidia0 c 10 229
    mknod -m 666 /dev/nvidia1 c 10 200
    systemctl start gpuquota-enforcer.socket";

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

    fn say(&self, who: &str, line: &str) -> String {
        self.0.say(who, line)
    }

    fn order(&self, order: &Value) -> Value {
        self.0.order(order)
    }

    fn is(&self, order: &Value, expected: &str) {
        let reply = self.order(order);
        assert_eq!(reply["is"], expected, "{order}: {reply}");
    }

    fn opens(&self, slice: &str) -> bool {
        self.holds(&format!(
            "systemd-run --quiet --wait --collect --slice={slice} --uid=nobody sh -c ': <>{NODE}'"
        ))
    }

    // A process with the node open, as a unit in a slice; its pid.
    fn holder(&self, unit: &str, slice: &str, user: &str, program: &str) -> u32 {
        let start = format!(
            "systemd-run --quiet --unit={unit} --slice={slice} --uid={user} sh -c 'exec 3<>{NODE}; exec {program} 3600'"
        );
        let _ = self.run(&start);
        let pid = self.0.property(unit, "MainPID");
        let ready = format!("readlink /proc/{pid}/exe | grep -q '{program}$'");
        let _ = self.run(&format!("until {ready}; do sleep 0.02; done"));
        pid.parse().unwrap()
    }

    // The order to end it, as who sees it now would give it.
    fn signal(&self, pid: u32, how: &str) -> Value {
        let start = self.run(&format!("cut -d' ' -f22 /proc/{pid}/stat"));
        let group = self.run(&format!("sed -n 's/^0:://p' /proc/{pid}/cgroup"));
        let boot_id = self.run("cat /proc/sys/kernel/random/boot_id");
        let start: u64 = start.parse().unwrap();
        json!({"do": "signal", "who": {"pid": pid, "start_time": start, "boot_id": boot_id},
            "signal": how, "group": group, "nodes": [NODE], "version": 7})
    }
}

fn restrict(group: &str, nodes: &[&str]) -> Value {
    json!({"do": "restrict", "group": group, "nodes": nodes, "version": 7})
}

#[tokio::test]
async fn rule_17_and_case_75_what_is_restricted_stays_denied_through_restarts_reloads_and_upgrades()
{
    let Some(node) = Node::new("restrictions on real systemd").await else {
        return;
    };
    let able = node.order(&json!({"do": "can"}));
    let all =
        json!({"is": "able", "signal": true, "restrict": true, "enclose": true, "lacking": []});
    assert_eq!(able, all);
    assert!(node.opens("user-4711.slice") && node.opens("user-4712.slice"));
    let squatter = node.holder("squatter", "user-4711.slice", "nobody", "sleep");
    node.is(&restrict(THEIRS, &[NODE, "/dev/nvidia1"]), "done");
    // A smaller list takes the place of the larger one.
    node.is(&restrict(THEIRS, &[NODE]), "done");
    let denied = json!({"is": "restricted", "groups": [{"group": THEIRS, "nodes": [NODE]}]});
    let still = |after: &str| {
        assert!(!node.opens("user-4711.slice"), "opens after {after}");
        assert!(node.opens("user-4712.slice"), "a neighbour, after {after}");
        let listed = node.order(&json!({"do": "restrictions"}));
        assert_eq!(listed, denied, "after {after}");
        assert!(node.holds(&format!("kill -0 {squatter}")), "work was ended");
    };
    still("the order");
    let _ = node.run("systemctl restart gpuquota-enforcer.service");
    still("a restart");
    let _ = node.run("systemctl kill --signal=KILL gpuquota-enforcer.service");
    still("a kill");
    let _ = node.run("systemctl daemon-reload");
    still("a reload");
    node.0
        .node
        .copy_in(&node.0.packages.next("gpuquota-agent"), "/opt/next.deb");
    let _ = node.run("dpkg --force-confdef --install /opt/next.deb");
    still("an upgrade");
    node.is(&json!({"do": "lift", "group": THEIRS}), "done");
    assert!(node.opens("user-4711.slice"));
    // What a removal finds denied, it sets free.
    node.is(&restrict(THEIRS, &[NODE]), "done");
    assert!(!node.opens("user-4711.slice"));
    let exposure = "systemd-analyze security --no-pager gpuquota-enforcer.service | tail -n 1";
    let said = node.run(exposure);
    let figure = said.split(": ").nth(1).and_then(|it| it.split(' ').next());
    let figure = figure.unwrap_or("");
    measured("systemd-analyze security gpuquota-enforcer.service", figure);
    let tenths: u32 = figure.replace('.', "").parse().unwrap();
    assert!(tenths <= MOST_EXPOSURE, "{said}");
    let _ = node.run("dpkg --remove gpuquota-agent");
    assert!(node.opens("user-4711.slice"));
    assert!(node.holds(&format!(
        "test ! -e {ENFORCER} && test -z \"$(ls /sys/fs/bpf/gpuquota)\""
    )));
}

#[tokio::test]
async fn case_66_and_69_what_nobody_may_ask_for_is_refused_and_nobody_else_is_heard() {
    let Some(node) = Node::new("refusals of the privileged half").await else {
        return;
    };
    // A member of the group is let in and not heard; others are not let in.
    let can = json!({"do": "can"}).to_string();
    let member = node.say("--reuid=nobody --regid=gpuquota-agent", &can);
    assert!(member.contains("refused"), "{member}");
    assert!(!node.holds(&format!(
        "setpriv --reuid=nobody --regid=nogroup --clear-groups perl -e 'use IO::Socket::UNIX; IO::Socket::UNIX->new(\"{ENFORCER}\") or exit 1'"
    )));
    let squatter = node.holder("squatter", "user-4711.slice", "nobody", "sleep");
    let good = node.signal(squatter, "kill");
    let other = |name: &str, value: Value| {
        let mut order = good.clone();
        order["who"][name] = value;
        order
    };
    node.is(&other("pid", json!(0)), "refused");
    node.is(&node.signal(1, "kill"), "refused");
    let enforcer = node.0.property("gpuquota-enforcer", "MainPID");
    node.is(&node.signal(enforcer.parse().unwrap(), "kill"), "refused");
    node.is(&other("start_time", json!(1)), "gone");
    node.is(&other("boot_id", json!("another")), "gone");
    let mut elsewhere = good.clone();
    elsewhere["group"] = json!("/user.slice/user-4712.slice");
    node.is(&elsewhere, "gone");
    let mut unused = good.clone();
    unused["nodes"] = json!(["/dev/nvidia1"]);
    node.is(&unused, "gone");
    for nodes in [json!([]), json!(["/dev/null"])] {
        unused["nodes"] = nodes;
        node.is(&unused, "refused");
    }
    // The control of MPS serves everybody; the name alone, in a tenant's own file, protects nobody.
    let name = "nvidia-cuda-mps-control";
    let _ = node.run(&format!("install -m 755 /bin/sleep /usr/bin/{name}"));
    let daemon = node.holder("mps", "system.slice", "root", name);
    node.is(&node.signal(daemon, "kill"), "refused");
    for group in ["/", "/user.slice", "/system.slice", "/user.slice/../x"] {
        node.is(&restrict(group, &[NODE]), "refused");
    }
    let own = "/system.slice/gpuquota-enforcer.service";
    node.is(&restrict(own, &[NODE]), "refused");
    node.is(&restrict(THEIRS, &["/dev/null"]), "refused");
    let docker = "/system.slice/docker-0.scope";
    node.is(&restrict(docker, &[NODE]), "impossible");
    node.is(&restrict("/nobody.slice", &[NODE]), "gone");
    for scope in ["dbus.service", "gpuquota-agent.service", "user@0.scope"] {
        let kill = json!({"do": "kill_scope", "scope": scope, "version": 7});
        node.is(&kill, "refused");
    }
    for alive in [squatter, daemon] {
        assert!(node.holds(&format!("kill -0 {alive}")), "{alive} ended");
    }
    assert_eq!(
        node.order(&json!({"do": "restrictions"}))["groups"],
        json!([])
    );
}

#[tokio::test]
async fn case_68_who_has_the_number_of_a_squatter_that_ended_lives() {
    let Some(node) = Node::new("signals on real systemd").await else {
        return;
    };
    let squatter = node.holder("squatter", "user-4711.slice", "nobody", "sleep");
    let order = node.signal(squatter, "kill");
    let _ = node.run("systemctl stop squatter");
    // The next owner of the number has the same node open, in a group of the same path.
    let again = format!(
        "exec 3<>{NODE}; while :; do echo {} >/proc/sys/kernel/ns_last_pid; sleep 3600 & \
         [ $! = {squatter} ] && wait; kill $!; done",
        squatter - 1
    );
    let _ = node.run(&format!(
        "systemd-run --quiet --unit=squatter --slice=user-4711.slice sh -c '{again}'"
    ));
    let there = format!("test -e /proc/{squatter} && grep -q squatter /proc/{squatter}/cgroup");
    let _ = node.0.node.becomes(&there, SOON).await;
    let _ = node.run(&format!(
        "until readlink /proc/{squatter}/exe | grep -q sleep; do sleep 0.02; done"
    ));
    let reply = node.order(&order);
    let another = json!({"is": "gone", "detail": "another process has its number by now"});
    assert_eq!(reply, another);
    assert!(node.holds(&format!("kill -0 {squatter}")));
    // Who is meant ends; its neighbour with the same node open does not.
    let meant = node.holder("meant", "user-4711.slice", "nobody", "sleep");
    let neighbour = node.holder("neighbour", "user-4712.slice", "nobody", "sleep");
    node.is(&node.signal(meant, "term"), "done");
    let ended = |pid: u32| format!("! kill -0 {pid} 2>/dev/null");
    let _ = node.0.node.becomes(&ended(meant), SOON).await;
    // One that does not listen to SIGTERM is killed.
    let deaf = format!("trap \"\" TERM; exec 3<>{NODE}; exec sleep 3600");
    let _ = node.run(&format!(
        "systemd-run --quiet --unit=deaf --slice=user-4711.slice sh -c '{deaf}'"
    ));
    let deaf: u32 = node.0.property("deaf", "MainPID").parse().unwrap();
    let _ = node.run(&format!(
        "until readlink /proc/{deaf}/exe | grep -q sleep; do sleep 0.02; done"
    ));
    node.is(&node.signal(deaf, "term"), "done");
    assert!(node.holds(&format!("kill -0 {deaf}")));
    node.is(&node.signal(deaf, "kill"), "done");
    let _ = node.0.node.becomes(&ended(deaf), SOON).await;
    // A scope of the agent's making, with all that it started.
    let _ = node.run("systemd-run --quiet --unit=job systemd-run --quiet --scope --unit=gpuquota-job-1 --slice=tenant-a.slice \
        sh -c 'setsid sleep 3601 & exec sleep 3602'");
    let runs = "pgrep -f 'sleep 3601'";
    let _ = node.0.node.becomes(runs, SOON).await;
    let kill = json!({"do": "kill_scope", "scope": "gpuquota-job-1.scope", "version": 7});
    node.is(&kill, "done");
    let _ = node
        .0
        .node
        .becomes("! pgrep -x -f 'sleep 360[12]'", SOON)
        .await;
    assert!(node.holds(&format!("kill -0 {neighbour}")));
}
