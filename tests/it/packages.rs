//! The Debian packages on real systemd: what the hardened units allow, and what an upgrade, a removal and a purge leave.

use gpuquota_tests::packaged::{AGENT_DIR, PackagedNode};
use gpuquota_tests::skip::measured;
use gpuquota_tests::wait::SOON;
use serde_json::Value;

const AGENT: &str = "gpuquota-agent";
const GROUP: &str = "/sys/fs/cgroup/system.slice/gpuquota-agent.service";
/// As the unit gives it to the agent, for commands of an operator.
const AS_AGENT: &str = "systemd-run --pipe --wait --quiet --collect --uid=gpuquota-agent \
    -p AmbientCapabilities='CAP_SYS_PTRACE CAP_SYSLOG' -p EnvironmentFile=/run/agent.environment";
/// Exposure by `systemd-analyze security`, in tenths: 0 is locked up, 100 wide open.
const MOST_EXPOSURE: [(&str, u32); 2] = [("gpuquota-agent", 26), ("gpuquota-server", 15)];

// How often systemd was reloaded, which takes devices from containers whose runtime injected them.
fn reloads(packaged: &PackagedNode) -> String {
    let count = "journalctl --sync && journalctl --no-pager --output=cat _PID=1 | grep -c '^Reloading\\.\\.\\.' || true";
    packaged.node.succeed(count)
}

#[tokio::test]
async fn the_agents_hardened_unit_leaves_it_all_that_it_needs_on_real_systemd() {
    let test = "the packages' units on real systemd";
    let Some(packaged) = PackagedNode::install(test).await else {
        return;
    };
    packaged.start().await;
    let node = &packaged.node;
    // State, links and sockets are its own, and nobody else's.
    let state = node.succeed(&format!(
        "stat --format='%a %U' {AGENT_DIR} {AGENT_DIR}/state"
    ));
    assert_eq!(state, "700 gpuquota-agent\n700 gpuquota-agent\n");
    // A process of another user in a tenant's slice: its executable, user and group are read, and the server is told.
    let pid = packaged.work("research");
    let _ = packaged
        .knows("gpuquota_processes{tenant=.research.,source=.slice.} 1")
        .await;
    let _ = packaged
        .knows("gpuquota_kernel_log_state{state=.following.} 1")
        .await;
    let told = "bash -c \"exec 3<>/dev/tcp/127.0.0.1/9402; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3\" \
        | grep '^gpuquota_violations{' | grep squatter | grep research | grep -q ' 1$'";
    let _ = node.becomes(told, SOON).await;
    // Agent and worker are in groups of their own below the one that systemd delegates.
    let agent = packaged.property(AGENT, "MainPID");
    let _ = node.succeed(&format!("grep -qx {agent} {GROUP}/agent/cgroup.procs"));
    let worker = node.succeed(&format!("cat {GROUP}/worker/cgroup.procs"));
    assert_eq!(worker.lines().count(), 1, "{worker}");
    assert_eq!(node.succeed(&format!("cat {GROUP}/cgroup.procs")), "");
    // Commands of an operator beside it.
    let _ = node.succeed(&format!(
        "tr '\\0' '\\n' </proc/{agent}/environ | grep -E '^(GPUQ|LD_)' >/run/agent.environment"
    ));
    let devices = node.succeed(&format!(
        "{AS_AGENT} {AGENT} devices --json --dir {AGENT_DIR}"
    ));
    let devices: Value = serde_json::from_str(&devices).unwrap();
    let text = devices.to_string();
    assert!(text.contains("research") && text.contains(&pid), "{text}");
    let doctor = node.run(&format!(
        "{AS_AGENT} {AGENT} doctor --json --dir {AGENT_DIR}"
    ));
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(
        doctor.contains("\"privileges\"") && !doctor.contains("\"fail\""),
        "{doctor}"
    );
    let _ = node.succeed(&format!("{AGENT} quiesce --dir {AGENT_DIR} --reason test"));
    let _ = packaged
        .knows("gpuquota_nvml_state{state=.quiesced.} 1")
        .await;
    let _ = node.succeed(&format!("{AGENT} resume --dir {AGENT_DIR}"));
    let _ = packaged.knows("gpuquota_nvml_state{state=.ok.} 1").await;
    // An agent that hangs is restarted by the watchdog, and what it charged stays.
    let _ = node.succeed(&format!("kill -STOP {agent}"));
    let restarted = format!("test $(systemctl show {AGENT} --property=NRestarts --value) = 1");
    let _ = node.becomes(&restarted, SOON).await;
    let _ = packaged.knows("gpuquota_uplink_connected 1").await;
    authority_by_root(&packaged);
    // It ends at once and well, with all that it started.
    let _ = node.succeed(&format!("systemctl stop {AGENT}"));
    assert_eq!(packaged.property(AGENT, "Result"), "success");
    assert_eq!(packaged.property(AGENT, "ExecMainStatus"), "0");
    assert!(node.holds(&format!("! pgrep {AGENT} && test ! -e {GROUP}")));
    assert!(node.holds(&format!("kill -0 {pid}")), "work was ended");
    for (unit, most) in MOST_EXPOSURE {
        let said = node.run(&format!(
            "systemd-analyze security --no-pager {unit}.service"
        ));
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let figure = said.lines().last().and_then(|line| line.split(": ").nth(1));
        let figure = figure.and_then(|rest| rest.split(' ').next()).unwrap_or("");
        measured(&format!("systemd-analyze security {unit}.service"), figure);
        let tenths: u32 = figure.replace('.', "").parse().unwrap();
        assert!(tenths <= most, "{said}");
    }
}

// By root on the directory of the server's user, who put links there that only root can follow.
fn authority_by_root(packaged: &PackagedNode) {
    let (node, dir) = (&packaged.node, "/var/lib/gpuquota");
    let ca = |step: &str| format!("gpuquota-server ca {step} --dir {dir}");
    let _ = node.succeed(&format!(
        "umask 077; echo secret >/root/key; mkdir /root/folder; mv {dir}/ca.key {dir}/kept; ln -s /root/key {dir}/ca.key"
    ));
    let refused = node.run(&ca("prepare"));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && !said.contains("secret"),
        "{said}"
    );
    assert!(
        node.holds(&format!("! grep -rq secret {dir}")),
        "root read it for them"
    );
    let _ = node.succeed(&format!(
        "mv {dir}/kept {dir}/ca.key; rm -rf {dir}/ca-rotation"
    ));
    for step in ["prepare", "trust", "show"] {
        let _ = node.succeed(&ca(step));
    }
    let _ = node.succeed(&format!("test -e {dir}/ca-rotation/new-ca.key"));
    let others = node.succeed(&format!("find {dir} ! -user gpuquota ! -name server.toml"));
    assert_eq!(others, "", "not its own any more");
}

#[tokio::test]
async fn packages_upgrade_under_running_work_keep_state_when_removed_and_lose_it_when_purged() {
    let test = "upgrade, removal and purge of the packages";
    let Some(packaged) = PackagedNode::install(test).await else {
        return;
    };
    let node = &packaged.node;
    let reloaded = reloads(&packaged);
    for unit in ["gpuquota-agent", "gpuquota-server"] {
        assert_eq!(packaged.property(unit, "ActiveState"), "inactive");
        assert_eq!(packaged.property(unit, "UnitFileState"), "disabled");
    }
    packaged.start().await;
    let pid = packaged.work("research");
    let research = "gpuquota_processes{tenant=.research.,source=.slice.} 1";
    let _ = packaged.knows(research).await;
    let agent = packaged.property(AGENT, "MainPID");
    let worker = node.succeed(&format!("cat {GROUP}/worker/cgroup.procs"));
    // The same package, then the next with another default configuration: the operator's stays, and nothing restarts.
    let _ = node.succeed("echo '# ours' >>/etc/gpuquota/agent.toml");
    let _ = node.succeed("dpkg --install /opt/gpuquota-agent.deb");
    node.copy_in(&packaged.packages.next(AGENT), "/opt/next.deb");
    let _ = node.succeed("dpkg --force-confdef --install /opt/next.deb");
    assert_eq!(
        node.succeed("tail -n 1 /etc/gpuquota/agent.toml"),
        "# ours\n"
    );
    let _ = node.succeed("test -e /etc/gpuquota/agent.toml.dpkg-dist");
    assert_eq!(packaged.property(AGENT, "MainPID"), agent);
    // Its file is another now; a worker that ends is started all the same.
    let _ = node.succeed(&format!("kill -KILL {}", worker.trim()));
    let other = format!(
        "w=$(cat {GROUP}/worker/cgroup.procs) && test -n \"$w\" && test \"$w\" != {}",
        worker.trim()
    );
    let _ = node.becomes(&other, SOON).await;
    let _ = packaged.knows(research).await;
    assert_eq!(reloads(&packaged), reloaded, "systemd was reloaded");
    // The operator restarts it when it suits.
    let _ = node.succeed(&format!("systemctl restart {AGENT}"));
    let _ = packaged.knows(research).await;
    // A removal ends the agent and keeps what it knows; a purge does not.
    let _ = node.succeed("systemctl --no-reload enable gpuquota-agent && dpkg --remove gpuquota-agent gpuquota-server");
    let kept = "! pgrep gpuquota && test -e /var/lib/gpuquota-agent/state/last-view \
        && test -e /var/lib/gpuquota/ledger.db && test -e /etc/gpuquota/agent.toml \
        && test ! -e /etc/systemd/system/multi-user.target.wants/gpuquota-agent.service";
    let _ = node.succeed(kept);
    let _ = node.succeed("dpkg --purge gpuquota-agent gpuquota-server");
    let _ = node.succeed("test ! -e /var/lib/gpuquota-agent && test ! -e /var/lib/gpuquota && test ! -e /etc/gpuquota");
    assert!(node.holds(&format!("kill -0 {pid}")), "work was ended");
    assert_eq!(reloads(&packaged), reloaded, "systemd was reloaded");
    // What would be seen if it had been.
    let _ = node.succeed("systemctl daemon-reload");
    assert_ne!(reloads(&packaged), reloaded);
}
