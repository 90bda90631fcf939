//! Three real nodes, their server on PostgreSQL: limits that count over nodes, links that fail one way, ends in the middle of an
//! eviction, and a clock that is wrong.

use std::time::Duration;

use gpuquota_tests::journal::exported;
use gpuquota_tests::quota::{GPU, purchase};
use gpuquota_tests::real_node::Way;
use gpuquota_tests::site::{Member, Site};
use gpuquota_tests::skip::{measured, slow};
use gpuquota_tests::wait::{SOON, now, throughout, until};
use serde_json::json;

const FIRST: &str = "/dev/nvidia0";
const TEST: &str = "three nodes on real systemd, cut off and restarted";
/// So long a policy is followed without the server.
const VALID: Duration = Duration::from_secs(4);
/// Between two readings of an agent.
const LOOK: Duration = Duration::from_secs(1);

fn three(site: &Site) -> &[Member; 3] {
    site.members.as_slice().try_into().unwrap()
}

async fn quota(site: &Site, tenant: &str, limit: u64) {
    let _ = site
        .server
        .admin()
        .put(tenant, purchase("default", limit))
        .await
        .expect_done();
}

async fn uses(site: &Site, tenant: &str, count: u64) {
    let admin = site.server.admin();
    until(&format!("{tenant} uses {count}"), SOON, async || {
        let used = admin.quotas().await.used(tenant, "flexible", GPU);
        (used == count)
            .then_some(())
            .ok_or_else(|| used.to_string())
    })
    .await;
}

#[tokio::test]
async fn case_48_and_50_and_51_and_52_and_53_and_73_and_75_three_nodes_cut_off_killed_and_off_in_time()
 {
    let nodes = [
        ("gpu01", "h100x4"),
        ("gpu02", "h100x4"),
        ("gpu03", "h100x4"),
    ];
    let Some(mut site) = Site::boot(TEST, &nodes).await else {
        return;
    };
    joining_with_a_wrong_clock(&site).await;
    for tenant in ["a", "b"] {
        quota(&site, tenant, 2).await;
    }
    site.settings(json!({
        "enforcement": {"mode": "evict", "grace_seconds": 0, "term_grace_seconds": 2},
        "policy_valid_seconds": VALID.as_secs(),
    }))
    .await;
    let paying = site.members[0].work("a", "paying", 0, false);
    over_quota_across_nodes(&site).await;
    a_server_that_ends_in_the_middle(&mut site).await;
    an_agent_that_ends_in_the_middle(&site).await;
    links_cut_for_a_moment(&site).await;
    links_cut_for_long(&site).await;
    assert!(site.members[0].lives(paying), "a neighbour was ended");
    assert_eq!(site.done("a"), [], "something was done about who may");
}

// The third node's clock is an hour fast for good. One that is an hour slow takes no certificate for valid, and says why.
async fn joining_with_a_wrong_clock(site: &Site) {
    let [first, second, third] = three(site);
    for member in [first, second] {
        assert_eq!(member.join(&site.server, &site.pass(member), ""), Ok(()));
    }
    let pass = site.pass(third);
    let clock = |off: i32| format!("LD_PRELOAD=/opt/fake/wrong_clock.so GPUQUOTA_CLOCK_OFF={off}");
    let refused = third.join(&site.server, &pass, &clock(-3600)).unwrap_err();
    assert!(
        refused.contains("clock"),
        "it does not name the clock: {refused}"
    );
    assert_eq!(third.join(&site.server, &pass, &clock(3600)), Ok(()));
    let fast = "sed -i 's|first_namespace.so|first_namespace.so:/opt/fake/wrong_clock.so GPUQUOTA_CLOCK_OFF=3600|' \
        /etc/systemd/system/gpuquota-agent.service.d/unit.conf && systemctl daemon-reload";
    let _ = third.node.succeed(fast);
    for member in &site.members {
        let _ = member.node.succeed("systemctl start gpuquota-agent");
    }
    for member in &site.members {
        site.up(member).await;
    }
}

// Two on the second and third node are within the limit; one more on the first is not, and only that one ends.
async fn over_quota_across_nodes(site: &Site) {
    let [first, second, third] = three(site);
    let within = [
        second.work("b", "within", 0, false),
        third.work("b", "within", 0, false),
    ];
    uses(site, "b", 2).await;
    let over = first.work("b", "over", 0, false);
    let begin = now();
    first.ended(over).await;
    measured(
        "from when the driver shows one too many across three nodes to its end",
        format!("{} ms", begin.elapsed().as_millis()),
    );
    for step in ["restrict", "term"] {
        first.did("b", step, "done").await;
    }
    first.did("b", "term", "verified").await;
    assert!(!first.opens("b", FIRST), "its next open is allowed");
    assert!(first.opens("a", FIRST) && second.opens("b", FIRST) && third.opens("b", FIRST));
    assert!(second.lives(within[0]) && third.lives(within[1]));
    uses(site, "b", 2).await;
    quota(site, "b", 3).await;
    first.knows("gpuquota_restricted_groups 0").await;
    assert!(first.opens("b", FIRST));
}

async fn told(site: &Site, tenant: &str, rung: &str, result: &str) {
    until(
        &format!("the journal tells {rung} {result}"),
        SOON,
        async || match site.times(tenant, rung, result) {
            0 => Err(format!("{:?}", site.done(tenant))),
            _ => Ok(()),
        },
    )
    .await;
}

// It was asked to end and does not; then the server is killed.
async fn a_server_that_ends_in_the_middle(site: &mut Site) {
    let squatter = site.members[0].work("c", "deaf", 0, true);
    site.members[0].did("c", "term", "done").await;
    site.server.kill9();
    let begin = now();
    let first = &site.members[0];
    assert!(first.lives(squatter) && !first.opens("c", FIRST));
    site.server.serve().await;
    let first = &site.members[0];
    first.ended(squatter).await;
    measured(
        "from a server's kill -9 in the middle of an eviction to its end",
        format!("{} ms", begin.elapsed().as_millis()),
    );
    first.did("c", "kill", "verified").await;
    told(site, "c", "kill", "verified").await;
    for (rung, result) in [
        ("restrict", "done"),
        ("term", "done"),
        ("kill", "done"),
        ("kill", "verified"),
    ] {
        assert_eq!(
            site.times("c", rung, result),
            1,
            "{rung} {result}: {:?}",
            site.done("c")
        );
    }
    assert!(!first.opens("c", FIRST));
}

// The same with the agent: it looks again from the start, and knows what it denied.
async fn an_agent_that_ends_in_the_middle(site: &Site) {
    let second = &site.members[1];
    let neighbour = second.work("a", "neighbour", 0, false);
    let squatter = second.work("d", "deaf", 0, true);
    second.did("d", "term", "done").await;
    let kill = "systemctl kill --signal=KILL --kill-whom=main gpuquota-agent";
    let _ = second.node.succeed(kill);
    let begin = now();
    assert!(second.lives(squatter) && !second.opens("d", FIRST));
    second.ended(squatter).await;
    measured(
        "from an agent's kill -9 in the middle of an eviction to its end, its service restarted after 2 s",
        format!("{} ms", begin.elapsed().as_millis()),
    );
    told(site, "d", "kill", "verified").await;
    assert_eq!(site.times("d", "kill", "done"), 1, "{:?}", site.done("d"));
    assert!(!second.opens("d", FIRST) && second.lives(neighbour));
    second.knows("gpuquota_restricted_groups 1").await;
    quota(site, "d", 1).await;
    second.knows("gpuquota_restricted_groups 0").await;
    assert!(second.opens("d", FIRST));
    let _ = second.node.succeed("systemctl stop neighbour");
    uses(site, "a", 1).await;
}

// One node cannot be heard, the other does not hear; on both something begins and something ends meanwhile.
async fn links_cut_for_a_moment(site: &Site) {
    let [first, second, _] = three(site);
    let down = Duration::from_secs(if slow() { 10 } else { 5 });
    first.node.cut(Way::FromNode);
    second.node.cut(Way::ToNode);
    let begin = now();
    site.silent(first).await;
    site.silent(second).await;
    let _ = second.node.succeed("systemctl stop within");
    let came = [
        first.work("b", "came", 1, false),
        second.work("b", "came", 1, false),
    ];
    // What is not heard stays as it was: unknown, and charged.
    throughout(
        "nothing is freed or doubled",
        down.saturating_sub(begin.elapsed()),
        async || {
            let used = site
                .server
                .admin()
                .quotas()
                .await
                .used("b", "flexible", GPU);
            (used == 2).then_some(()).ok_or_else(|| used.to_string())
        },
    )
    .await;
    first.node.mend(Way::FromNode);
    second.node.mend(Way::ToNode);
    let back = now();
    site.up(first).await;
    site.up(second).await;
    uses(site, "b", 3).await;
    measured(
        "links cut one way each: from when they work again until both nodes are known again",
        format!("{} ms", back.elapsed().as_millis()),
    );
    assert!(first.lives(came[0]) && second.lives(came[1]));
}

// Past what the policy allows nothing is done about anybody; what is denied stays so. The ledger decides when it is heard again.
async fn links_cut_for_long(site: &Site) {
    let [first, _, third] = three(site);
    first.node.cut(Way::ToNode);
    third.node.cut(Way::FromNode);
    for member in [first, third] {
        member.knows("gpuquota_policy_valid 0").await;
    }
    let late = [
        first.work("e", "late", 0, false),
        third.work("e", "late", 0, false),
    ];
    for member in [first, third] {
        member.knows("gpuquota_tenant_devices{tenant=.e.,").await;
    }
    let left = async || {
        let mut late = [first, third].into_iter().zip(late);
        let left = late.all(|(member, pid)| member.lives(pid) && member.opens("e", FIRST));
        left.then_some(())
            .ok_or_else(|| "acted without a policy".to_owned())
    };
    throughout("nothing is done without a policy", 2 * LOOK, left).await;
    assert!(!first.opens("c", FIRST), "what was denied is allowed");
    // As a user's slice is made anew by each login.
    let _ = first.node.succeed("systemctl stop tenant-c.slice");
    let denied = async || {
        (!first.opens("c", FIRST))
            .then_some(())
            .ok_or_else(String::new)
    };
    until("a slice that was made anew is denied it too", SOON, denied).await;
    first.node.mend(Way::ToNode);
    third.node.mend(Way::FromNode);
    let back = now();
    for member in [first, third] {
        site.up(member).await;
    }
    let squatters = || [first, third].into_iter().zip(late);
    let alive = || squatters().filter(|(on, pid)| on.lives(*pid)).count();
    until("one of two is ended", SOON, async || {
        (alive() < 2).then_some(()).ok_or_else(String::new)
    })
    .await;
    measured(
        "from when the links work again to the end of what squats since",
        format!("{} ms", back.elapsed().as_millis()),
    );
    // Both devices of a tenant at once are more than a policy may end by itself.
    until("the other waits for a person", SOON, async || {
        let rows = format!("{:?}", exported(&site.server.dir));
        rows.contains("steps_held").then_some(()).ok_or(rows)
    })
    .await;
    assert_eq!(alive(), 1, "no person was asked");
    let path = "/api/v1/tenants/e/enforcement/confirmation";
    let answer = site.server.admin();
    let answer = answer.json("POST", path, &json!({"for_seconds": 60})).await;
    assert!(answer.status < 300, "{}", answer.text);
    for (member, pid) in squatters() {
        member.ended(pid).await;
        assert!(!member.opens("e", FIRST));
    }
    uses(site, "b", 3).await;
}
