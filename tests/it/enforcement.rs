//! From a quota to the end of a squatter, on real systemd: server, agent and privileged half from their packages.

use gpuquota_tests::packaged::{FAKE, PackagedNode};
use gpuquota_tests::quota::purchase;
use gpuquota_tests::real_node::RealNode;
use gpuquota_tests::skip::{measured, slow};
use gpuquota_tests::wait::SOON;

const GPU: &str = "/dev/nvidia0";
/// What the squatter's terminal shows.
const SHOWN: &str = "/tmp/shown";
/// A client in bash: method, path, body.
const REST: &str = r#"
token=$(gpuquota-server token --dir /var/lib/gpuquota --role admin)
exec 3<>/dev/tcp/127.0.0.1/8080
printf '%s %s HTTP/1.1\r\nHost: gpuquota\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %s\r\nConnection: close\r\n\r\n%s' \
    "$1" "$2" "$token" "${#3}" "$3" >&3
cat <&3 >/run/reply
head -n 1 /run/reply | grep -q ' 20[0-9] ' || { cat /run/reply >&2; exit 1; }
tail -n 1 /run/reply
"#;

struct Site {
    packaged: PackagedNode,
}

impl Site {
    async fn start(test: &str) -> Option<Self> {
        let packaged = PackagedNode::install(test).await?;
        let node = &packaged.node;
        node.write("/opt/rest.sh", REST);
        let _ = node.succeed(&format!("mknod -m 666 {GPU} c 10 229"));
        let _ = node.succeed("mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf");
        packaged.start().await;
        // What it is told to do when the agent is there already, it does as well.
        let _ = node.succeed("systemctl start gpuquota-enforcer.socket");
        Some(Self { packaged })
    }

    fn node(&self) -> &RealNode {
        &self.packaged.node
    }

    fn rest(&self, method: &str, path: &str, body: &str) -> String {
        self.node()
            .succeed(&format!("bash /opt/rest.sh {method} '{path}' '{body}'"))
    }

    /// A process of a tenant that has the GPU open, and that the driver lists there.
    fn work(&self, tenant: &str, unit: &str) -> u32 {
        let _ = self.node().succeed(&format!(
            "systemd-run --quiet --slice=tenant-{tenant}.slice --uid=nobody --unit={unit} sh -c 'exec sleep 3600 <>{GPU}'"
        ));
        self.lists(self.packaged.property(unit, "MainPID"))
    }

    /// The same on a terminal, of which all that is shown is kept.
    async fn work_on_terminal(&self, tenant: &str, unit: &str) -> u32 {
        let _ = self.node().succeed(&format!(
            "systemd-run --quiet --slice=tenant-{tenant}.slice --uid=nobody --unit={unit} \
             script --quiet --flush --command 'exec sleep 3600 <>{GPU}' {SHOWN}"
        ));
        let shell = self.packaged.property(unit, "MainPID");
        let child = format!("pgrep --parent {shell} sleep");
        let pid = self.node().becomes(&child, SOON).await;
        self.lists(pid.trim().to_owned())
    }

    fn lists(&self, pid: String) -> u32 {
        let _ = self.node().succeed(&format!(
            "GPUQUOTA_FAKE_NVML={FAKE}/scenario.toml {FAKE}/gpuquota-fake-nvml add-process --gpu 0 --pid {pid}"
        ));
        pid.parse().unwrap()
    }

    fn opens(&self, tenant: &str) -> bool {
        self.node().holds(&format!(
            "systemd-run --quiet --wait --collect --slice=tenant-{tenant}.slice --uid=nobody sh -c ': <>{GPU}'"
        ))
    }

    async fn becomes(&self, command: &str) {
        let _ = self.node().becomes(command, SOON).await;
    }

    fn quota(&self, tenant: &str, limit: u64) {
        let body = purchase("default", limit).to_string();
        let _ = self.rest("PUT", &format!("/api/v1/quotas/{tenant}"), &body);
    }

    fn mode(&self, mode: &str) {
        let body = format!(
            r#"{{"enforcing":{{"enforcement":{{"mode":"{mode}","grace_seconds":0,"term_grace_seconds":1}}}}}}"#
        );
        let _ = self.rest("PUT", "/api/v1/settings", &body);
    }
}

#[tokio::test]
async fn rule_16_a_squatter_is_denied_and_ended_its_neighbour_lives_and_a_raised_limit_gives_it_back()
 {
    let Some(site) = Site::start("the ladder to its end, on real systemd").await else {
        return;
    };
    site.quota("a", 1);
    let paying = site.work("a", "paying");
    let squatter = site.work_on_terminal("b", "squatting").await;
    let found = "gpuquota_node_violations{tenant=.b.,class=.squatter.} 1";
    let _ = site.packaged.knows(found).await;
    // Nobody said that anything is to be done.
    assert!(site.opens("b") && site.node().holds(&format!("kill -0 {squatter}")));
    site.mode("warn");
    let _ = site
        .packaged
        .knows("gpuquota_actions_total{tenant=.b.,action=.warn.,result=.done.} 1")
        .await;
    assert!(site.opens("b"));
    site.becomes(&format!("grep -q 'b uses GPU-.* without right' {SHOWN}"))
        .await;
    site.mode("evict");
    site.becomes(&format!("! kill -0 {squatter}")).await;
    assert!(!site.opens("b"), "its next open is allowed");
    assert!(site.opens("a") && site.node().holds(&format!("kill -0 {paying}")));
    for line in [
        "gpuquota_actions_total{tenant=.b.,action=.restrict.,result=.done.} 1",
        "gpuquota_actions_total{tenant=.b.,action=.term.,result=.done.} 1",
        "gpuquota_restricted_groups 1",
    ] {
        let _ = site.packaged.knows(line).await;
    }
    // The journal has each of them, before and after.
    site.becomes(
        "gpuquota-server journal export --dir /var/lib/gpuquota >/run/journal; \
         grep -q steps_begun /run/journal && grep -q step_ended /run/journal && grep -q verified /run/journal",
    )
    .await;
    // What it may hold it may open, and nobody has to wait for it.
    site.quota("b", 1);
    let _ = site.packaged.knows("gpuquota_restricted_groups 0").await;
    assert!(site.opens("b"));
}

/// Two users and rules for them; the second tries to open the GPU all the time, in the unit in which the first has it open.
const HUB: &str = r#"
set -e
useradd ann
useradd ben
for user in ann ben; do
    printf '\n[[attribution.rule]]\nuser = "%s"\ntenant = "%s"\n' $user $user >>/etc/gpuquota/agent.toml
done
systemctl restart gpuquota-agent
cat >/opt/hub.sh <<'END'
setpriv --reuid=ben --regid=ben --clear-groups sh -c 'while sleep 0.05; do (: <>GPU) 2>/dev/null && echo opened || echo denied; done' >/run/ben &
setpriv --reuid=ann --regid=ann --clear-groups sh -c 'exec sleep 3600 <>GPU' &
wait
END
systemd-run --quiet --unit=hub sh /opt/hub.sh
systemd-run --quiet --unit=own --uid=ann sh -c 'exec sleep 3600 <>GPU'
"#;

#[tokio::test]
async fn what_one_user_of_a_service_may_not_hold_is_not_denied_to_the_others_who_are_in_it() {
    let Some(site) = Site::start("a service of many users, on real systemd").await else {
        return;
    };
    let _ = site.node().succeed(&HUB.replace("GPU", GPU));
    let of = |group: &str| format!("grep -l . /sys/fs/cgroup/system.slice/{group}/cgroup.procs");
    let _ = site.node().becomes(&of("hub.service"), SOON).await;
    let in_hub =
        "pgrep --uid ann sleep | grep -vx $(systemctl show own --property=MainPID --value)";
    let squatter = site.node().becomes(in_hub, SOON).await;
    let squatters = [
        site.lists(squatter.trim().to_owned()),
        site.lists(site.packaged.property("own", "MainPID")),
    ];
    site.mode("evict");
    for pid in squatters {
        site.becomes(&format!("! kill -0 {pid}")).await;
    }
    for line in [
        "gpuquota_actions_total{tenant=.ann.,action=.restrict.,result=.impossible.} 1",
        "gpuquota_actions_total{tenant=.ann.,action=.restrict.,result=.done.} 1",
        "gpuquota_restricted_groups 1",
    ] {
        let _ = site.packaged.knows(line).await;
    }
    let tried = "wc -l </run/ben";
    let before: u64 = site.node().succeed(tried).trim().parse().unwrap();
    let more = format!("test $({tried}) -gt {}", before + 10);
    site.becomes(&more).await;
    assert!(
        !site.node().holds("grep -q denied /run/ben"),
        "a neighbour was denied it"
    );
    assert!(site.node().holds("grep -q opened /run/ben"));
}

/// One squatter after the other, each of a tenant of its own; how long each lived once the driver showed it, milliseconds.
const ONE_BY_ONE: &str = r#"
for i in $(seq ROUNDS); do
    systemd-run --quiet --slice=tenant-s$i.slice --uid=nobody --unit=s$i sh -c 'exec sleep 3600 <>GPU'
    pid=$(systemctl show s$i --property=MainPID --value)
    GPUQUOTA_FAKE_NVML=FAKE/scenario.toml FAKE/gpuquota-fake-nvml add-process --gpu 0 --pid $pid
    begin=$(date +%s%N)
    while kill -0 $pid 2>/dev/null; do
        sleep 0.005
        [ $(($(date +%s%N) - begin)) -lt 20000000000 ] || exit 1
    done
    echo $((($(date +%s%N) - begin) / 1000000))
    ! systemd-run --quiet --wait --collect --slice=tenant-s$i.slice --uid=nobody sh -c ': <>GPU' || exit 2
done
"#;

#[tokio::test]
async fn a_squatter_is_denied_and_ended_soon_after_the_driver_shows_it() {
    let Some(site) = Site::start("how soon a squatter is ended, on real systemd").await else {
        return;
    };
    site.mode("evict");
    let _ = site
        .packaged
        .knows("gpuquota_enforcement_possible{mode=.evict.} 1")
        .await;
    let rounds = if slow() { 200 } else { 12 };
    let script = ONE_BY_ONE
        .replace("ROUNDS", &rounds.to_string())
        .replace("GPU'", &format!("{GPU}'"))
        .replace("FAKE/", &format!("{FAKE}/"));
    site.node().write("/opt/one-by-one.sh", &script);
    let said = site.node().succeed("bash /opt/one-by-one.sh");
    let mut lived: Vec<u64> = said.lines().map(|line| line.parse().unwrap()).collect();
    lived.sort_unstable();
    assert_eq!(lived.len(), rounds, "{said}");
    let at = |percent: usize| lived[(lived.len() * percent / 100).min(lived.len() - 1)];
    measured(
        "from when the driver shows a squatter (read once a second) to its end, its slice denied before",
        format!("p50 {} ms, p99 {} ms of {rounds}", at(50), at(99)),
    );
}
