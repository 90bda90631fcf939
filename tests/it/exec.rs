//! Commands under leases on a real node: who may ask for whom, which GPUs a command gets and which not, and when its lease ends.

use gpuquota_tests::quota::{GPU, purchase, quota};
use gpuquota_tests::rest::Rest;
use gpuquota_tests::site::{Member, Site};
use gpuquota_tests::wait::{SOON, until};
use serde_json::{Value, json};

const LEASES: &str = "/api/v1/leases";
const MIG: &str = "nvidia.com/mig-1g.10gb";

// The driver's files of capabilities (MIG user guide), with nodes that open for everybody.
const CUT: &str = "set -e
    mount -t tmpfs tmpfs /proc/driver
    for of in 0:66:65:237:234 1:75:74:232:235; do
        IFS=: read -r gpu ci_cap gi_cap ci_minor gi_minor <<END
$of
END
        place=/proc/driver/nvidia/capabilities/gpu$gpu/mig/gi7
        mkdir -p $place/ci0 /dev/nvidia-caps
        printf 'DeviceFileMinor: %s\\n' $ci_cap >$place/ci0/access
        printf 'DeviceFileMinor: %s\\n' $gi_cap >$place/access
        mknod -m 666 /dev/nvidia-caps/nvidia-cap$ci_cap c 10 $ci_minor
        mknod -m 666 /dev/nvidia-caps/nvidia-cap$gi_cap c 10 $gi_minor
    done";

/// What is typed there.
const SHELL: &str =
    "gpuquota-agent exec --gpus 1 --wait 30s -- sh /opt/waiting shell\necho $? >/tmp/code-shell\n";

/// Whoever logs in as this user is tenant a.
const LOGIN: &str = "printf '[[attribution.rule]]\\nslice = \"user-4711.slice\"\\ntenant = \"a\"\\n' >>/etc/gpuquota/agent.toml";

/// A command that runs until it is ended, with what it was given in a file.
const WAITING: &str = "env >/tmp/env-$1\nexec sleep 3600\n";

struct Told {
    code: i32,
    text: String,
}

// `exec` as nobody in a slice, in a unit that is waited for.
fn exec(member: &Member, slice: &str, args: &str) -> Told {
    let unit = format!(
        "systemd-run --quiet --wait --pipe --collect --slice={slice} --uid=nobody gpuquota-agent exec {args}"
    );
    let output = member.node.run(&unit);
    Told {
        code: output.status.code().unwrap_or(-1),
        text: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn run(member: &Member, command: &str) -> String {
    member.node.succeed(command).trim().to_owned()
}

// What a command that runs says of its environment.
async fn environment(member: &Member, of: &str, name: &str) -> String {
    let find = format!("sed -n 's/^{name}=//p' /tmp/env-{of} | grep .");
    member.node.becomes(&find, SOON).await.trim().to_owned()
}

async fn state(admin: &Rest, lease: &str, expected: &str) -> Value {
    until(&format!("lease {lease} is {expected}"), SOON, async || {
        let seen = admin.get(&format!("{LEASES}/{lease}")).await.json();
        match seen["state"] == expected {
            true => Ok(seen),
            false => Err(seen.to_string()),
        }
    })
    .await
}

async fn active(admin: &Rest) -> usize {
    let leases = admin.get(&format!("{LEASES}?state=active")).await.json();
    leases["leases"].as_array().map_or(0, Vec::len)
}

// Whether what is put into a control group opens a node.
fn opens_in(member: &Member, group: &str, node: &str) -> bool {
    member.node.holds(&format!(
        "sh -c 'echo 0 >/sys/fs/cgroup{group}/cgroup.procs && : <>{node}'"
    ))
}

fn group_of(member: &Member, pid: &str) -> String {
    run(member, &format!("sed -n 's/^0:://p' /proc/{pid}/cgroup"))
}

// The node of a GPU, and that of the other one of the first two.
fn nodes(uuid: &Value, member: &Member) -> (String, String) {
    let uuid = uuid.as_str().unwrap();
    let find =
        format!("grep '^uuid = \"GPU' /opt/fake/scenario.toml | grep -n {uuid} | cut -d: -f1");
    let at: usize = run(member, &find).parse().unwrap();
    let name = |index: usize| format!("/dev/nvidia{index}");
    (name(at - 1), name(2 - at))
}

#[tokio::test]
async fn a_command_starts_with_its_gpus_alone_and_its_lease_lives_as_long_as_it_does() {
    let sites = [("gpu01", "h100x2"), ("gpu02", "a100-mig")];
    let Some(site) = Site::boot("commands under leases on real systemd", &sites).await else {
        return;
    };
    let [node, cut] = site.members.as_slice() else {
        return;
    };
    let _ = cut.node.succeed(CUT);
    for member in [node, cut] {
        member.node.write("/opt/waiting", WAITING);
        member.node.write("/opt/shell", SHELL);
        let _ = member.node.succeed(LOGIN);
    }
    site.join().await;
    let admin = site.server.admin();
    for (tenant, model) in [("a", GPU), ("m", MIG)] {
        let body = quota("default", "purchase", model, 1);
        admin.put(tenant, body).await.expect_done();
    }
    who_may_not_start(&site, node).await;
    the_main_process_of_a_service(&site, node).await;
    one_of_several_processes(&site, node).await;
    by_a_token(&site, node).await;
    an_instance(&site, cut).await;
}

async fn who_may_not_start(site: &Site, node: &Member) {
    let admin = site.server.admin();
    let refused = [
        ("tenant-b.slice", "--gpus 1 -- true", 75, "quota"),
        (
            "tenant-a.slice",
            "--tenant b --gpus 1 -- true",
            77,
            "tenant a's",
        ),
        (
            "elsewhere.slice",
            "--tenant a --gpus 1 -- true",
            77,
            "no tenant",
        ),
        (
            "tenant-a.slice",
            "--gpus 3 -- true",
            75,
            "what would admit it",
        ),
        (
            "tenant-a.slice",
            "--gpus 1 -- /no/such/command",
            127,
            "not found",
        ),
        (
            "tenant-a.slice",
            "--gpus 1 -- /etc/passwd",
            126,
            "cannot be executed",
        ),
        (
            "tenant-a.slice",
            "--gpus 1 --model nvidia.com/none -- true",
            75,
            "nvidia.com/none",
        ),
        (
            "tenant-a.slice",
            "--gpus 1 --socket /run/none -- true",
            69,
            "gpuquota-agent.service",
        ),
        ("tenant-a.slice", "--gpus 0 -- true", 2, "--gpus"),
    ];
    for (slice, args, code, text) in refused {
        let told = exec(node, slice, args);
        assert_eq!(told.code, code, "{slice} {args}: {}", told.text);
        assert!(told.text.contains(text), "{slice} {args}: {}", told.text);
    }
    let _ = node
        .node
        .succeed("systemctl stop gpuquota-enforcer.socket gpuquota-enforcer.service");
    let told = exec(node, "tenant-a.slice", "--gpus 1 -- true");
    assert_eq!(told.code, 69, "{}", told.text);
    assert!(told.text.contains("privileged half"), "{}", told.text);
    let _ = node
        .node
        .succeed("systemctl start gpuquota-enforcer.socket");
    let all = admin.get(&format!("{LEASES}?state=ended")).await.json();
    assert_eq!(all["leases"], json!([]), "something was leased");
    assert_eq!(active(&admin).await, 0);
}

async fn the_main_process_of_a_service(site: &Site, node: &Member) {
    let admin = site.server.admin();
    let _ = node.node.succeed(
        "systemd-run --quiet --unit=job --slice=tenant-a.slice --uid=nobody \
         gpuquota-agent exec --tenant a --gpus 1 -- sh /opt/waiting job",
    );
    let lease = environment(node, "job", "GPUQUOTA_LEASE").await;
    let granted = state(&admin, &lease, "active").await;
    let (own, other) = nodes(&granted["devices"][0]["uuid"], node);
    let uuid = granted["devices"][0]["uuid"].as_str().unwrap();
    assert_eq!(environment(node, "job", "CUDA_VISIBLE_DEVICES").await, uuid);
    let pid = run(node, "systemctl show job --property=MainPID --value");
    assert_eq!(run(node, &format!("cat /proc/{pid}/comm")), "sleep");
    let group = "/tenant.slice/tenant-a.slice/job.service";
    assert_eq!(group_of(node, &pid), group);
    let kept = |when: &str| {
        assert!(opens_in(node, group, &own), "{when}: its own GPU");
        assert!(!opens_in(node, group, &other), "{when}: another GPU");
        assert!(
            node.opens("a", &other) && node.opens("b", &other),
            "{when}: somebody else"
        );
    };
    kept("at the start");
    // A GPU whose node is made only now is no way round either, where the driver has a major of its own; and
    // what restarts takes nothing away.
    let _ = node.node.succeed("systemctl daemon-reload && systemctl restart gpuquota-enforcer.service gpuquota-agent.service");
    site.up(node).await;
    kept("after restarts");
    node.shown(
        pid.parse().unwrap(),
        &format!("--gpu {}", own.trim_start_matches("/dev/nvidia")),
    );
    node.knows("gpuquota_tenant_devices{tenant=.a.").await;
    node.knows("gpuquota_exec_leases 1").await;
    let told = exec(node, "tenant-a.slice", "--gpus 1 -- true");
    assert_eq!(told.code, 75, "{}", told.text);
    assert!(
        told.text.contains(&format!("lease {lease}")),
        "{}",
        told.text
    );
    // The next one waits for it.
    let _ = node.node.succeed(
        "systemd-run --quiet --unit=next --slice=tenant-a.slice --uid=nobody --property=RemainAfterExit=yes \
         gpuquota-agent exec --gpus 1 --wait 1m -- true",
    );
    let _ = node
        .node
        .becomes("journalctl -u next | grep -q waiting", SOON)
        .await;
    let _ = node.node.succeed(&format!(
        "systemctl stop job; fake remove-process --pid {pid}"
    ));
    state(&admin, &lease, "ended").await;
    let ended = "systemctl show next --property=SubState | grep -q exited";
    let _ = node.node.becomes(ended, SOON).await;
    node.knows("gpuquota_exec_leases 0").await;
    let _ = node.node.succeed("systemctl stop next");
}

async fn one_of_several_processes(site: &Site, node: &Member) {
    let admin = site.server.admin();
    // Out of a service it would leave the service's limits behind.
    let shell = "systemd-run --quiet --wait --pipe --collect --slice=tenant-a.slice --uid=nobody \
                 sh -c 'gpuquota-agent exec --gpus 1 --wait 30s -- true; exit $?'";
    let refused = node.node.run(shell);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(77), "{text}");
    assert!(text.contains("limits would stay behind"), "{text}");
    let _ = node.node.succeed(
        "systemd-run --quiet --unit=logs-in systemd-run --quiet --scope --unit=session-x --slice=user-4711.slice \
         --uid=nobody sh /opt/shell",
    );
    let lease = environment(node, "shell", "GPUQUOTA_LEASE").await;
    let granted = state(&admin, &lease, "active").await;
    let (own, other) = nodes(&granted["devices"][0]["uuid"], node);
    let scope = format!("gpuquota-lease-{lease}.scope");
    let group = format!("/user.slice/user-4711.slice/{scope}");
    let pid = run(node, &format!("cat /sys/fs/cgroup{group}/cgroup.procs"));
    assert_eq!(run(node, &format!("ps -o user= -p {pid}")), "nobody");
    assert!(opens_in(node, &group, &own) && !opens_in(node, &group, &other));
    // Nobody gets a second lease from within the first, though the quota had one.
    admin.put("a", purchase("default", 2)).await.expect_done();
    let nested = node.node.run(&format!(
        "sh -c 'echo 0 >/sys/fs/cgroup{group}/cgroup.procs && exec setpriv --reuid=nobody --clear-groups gpuquota-agent exec --gpus 1 -- true'"
    ));
    let text = String::from_utf8_lossy(&nested.stderr).into_owned();
    assert_eq!(nested.status.code(), Some(77), "{text}");
    assert!(text.contains("runs under a lease already"), "{text}");
    node.knows("gpuquota_exec_leases 1").await;
    admin.put("a", purchase("default", 1)).await.expect_done();
    // A restarted agent knows it, and goes on.
    let _ = node
        .node
        .succeed("systemctl kill --signal=KILL gpuquota-agent.service");
    node.knows("gpuquota_exec_leases 1").await;
    assert_eq!(state(&admin, &lease, "active").await["count"], 1);
    let _ = node.node.succeed(&format!("kill {pid}"));
    let code = node.node.becomes("cat /tmp/code-shell", SOON).await;
    assert_eq!(code.trim(), "143");
    state(&admin, &lease, "ended").await;
    assert!(!node.node.holds(&format!("systemctl is-active {scope}")));
}

async fn by_a_token(site: &Site, node: &Member) {
    let admin = site.server.admin();
    let token = |role: &str| site.server.token(&["--role", role, "--tenant", "a"]);
    for (name, role) in [("good", "tenant-admin"), ("bad", "viewer")] {
        node.node.write(&format!("/run/token-{name}"), &token(role));
    }
    let _ = node.node.succeed("chmod 644 /run/token-*");
    let by = |name: &str, tenant: &str| {
        format!("--tenant {tenant} --token-file /run/token-{name} --gpus 1 -- true")
    };
    for (name, tenant) in [("bad", "a"), ("good", "b")] {
        let told = exec(node, "elsewhere.slice", &by(name, tenant));
        assert_eq!(told.code, 77, "{name} {tenant}: {}", told.text);
    }
    // What the rules say is nobody's is the tenant's in the scope of its lease.
    let _ = node.node.succeed("systemd-run --quiet --unit=guest --slice=elsewhere.slice --uid=nobody \
         gpuquota-agent exec --tenant a --token-file /run/token-good --gpus 1 --wait 30s -- sh /opt/waiting guest");
    let lease = environment(node, "guest", "GPUQUOTA_LEASE").await;
    let granted = state(&admin, &lease, "active").await;
    let (own, _) = nodes(&granted["devices"][0]["uuid"], node);
    let pid = run(node, "systemctl show guest --property=MainPID --value");
    node.shown(
        pid.parse().unwrap(),
        &format!("--gpu {}", own.trim_start_matches("/dev/nvidia")),
    );
    node.knows("gpuquota_tenant_devices{tenant=.a.").await;
    node.knows_not("gpuquota_node_violations{").await;
    // Being under a lease is no right to ask for another: the token was not for ever.
    let within = "/sys/fs/cgroup/elsewhere.slice/guest.service/cgroup.procs";
    let nested = node.node.run(&format!(
        "sh -c 'echo 0 >{within} && exec setpriv --reuid=nobody --clear-groups gpuquota-agent exec --gpus 1 -- true'"
    ));
    let text = String::from_utf8_lossy(&nested.stderr).into_owned();
    assert_eq!(nested.status.code(), Some(77), "{text}");
    assert!(text.contains("belongs to no tenant"), "{text}");
    let kept = "secret=$(cut -d. -f3 /run/token-good); test ${#secret} -gt 20 && \
                grep -rl -- $secret /var/lib/gpuquota-agent /var/log /run/log /run/systemd || true";
    assert_eq!(run(node, kept), "", "the token is kept");
    let _ = node.node.succeed(&format!(
        "systemctl stop guest; fake remove-process --pid {pid}"
    ));
    state(&admin, &lease, "ended").await;
}

// Of a GPU that is cut, the nodes of one instance and no other's.
async fn an_instance(site: &Site, cut: &Member) {
    let admin = site.server.admin();
    let _ = cut.node.succeed(&format!(
        "systemd-run --quiet --unit=small --slice=tenant-m.slice --uid=nobody \
         gpuquota-agent exec --gpus 1 --model {MIG} -- sh /opt/waiting small"
    ));
    let lease = environment(cut, "small", "GPUQUOTA_LEASE").await;
    let granted = state(&admin, &lease, "active").await;
    let visible = environment(cut, "small", "CUDA_VISIBLE_DEVICES").await;
    assert!(visible.starts_with("MIG-"), "{visible}");
    let group = "/tenant.slice/tenant-m.slice/small.service";
    let (own, other) = nodes(&granted["devices"][0]["parent_uuid"], cut);
    let caps = |gpu: &str| match gpu {
        "/dev/nvidia0" => [66, 65],
        _ => [75, 74],
    };
    for (gpu, may) in [(own, true), (other, false)] {
        assert_eq!(opens_in(cut, group, &gpu), may, "{gpu}");
        for cap in caps(&gpu) {
            let node = format!("/dev/nvidia-caps/nvidia-cap{cap}");
            assert_eq!(opens_in(cut, group, &node), may, "{gpu}: {node}");
        }
    }
    let _ = cut.node.succeed("systemctl stop small");
    state(&admin, &lease, "ended").await;
}
