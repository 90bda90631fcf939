//! The whole line: a process on a GPU becomes a used quota, in REST and in both metrics, and goes again with it.

use gpuquota_tests::node::{INTERVAL_MS, Node, Place};
use gpuquota_tests::program::Workload;
use gpuquota_tests::quota::{GPU, purchase, quota, with};
use gpuquota_tests::rest::Rest;
use gpuquota_tests::server::Server;
use gpuquota_tests::skip::measured;
use gpuquota_tests::wait::{SOON, now, until};
use serde_json::json;

async fn used(admin: &Rest, tenant: &str, quota_type: &str, model: &str, expected: u64) {
    let what = format!("{tenant} uses {expected} of {quota_type} {model}");
    until(&what, SOON, async || {
        let quotas = admin.quotas().await;
        if quotas.used(tenant, quota_type, model) == expected {
            Ok(())
        } else {
            Err(format!("{quotas:?}"))
        }
    })
    .await;
}

async fn violations(server: &Server, labels: &[(&str, &str)], expected: f64) {
    until(
        &format!("violations {labels:?} are {expected}"),
        SOON,
        async || {
            let scrape = server.scrape().await;
            if scrape.sum("gpuquota_violations", labels) == expected {
                Ok(())
            } else {
                Err(scrape.text)
            }
        },
    )
    .await;
}

#[tokio::test]
async fn a_process_on_a_gpu_becomes_a_used_quota_and_its_end_frees_it() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.put("a", purchase("default", 3)).await.expect_done();
    let mut node = Node::start(&server, "n1", "h100x4").await;
    used(&admin, "a", "flexible", GPU, 0).await;
    let labels = [
        ("tenant", "a"),
        ("region", "default"),
        ("type", "flexible"),
        ("gpu_model", GPU),
    ];
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let workload = Workload::start();
        node.register(&workload, "a");
        let begin = now();
        node.place(&workload, Place::Gpu("0"));
        used(&admin, "a", "flexible", GPU, 1).await;
        up.push(begin.elapsed());
        let scrape = server.scrape().await;
        for name in ["gpuquota_quota_used", "gpuquota_quota_observed"] {
            assert_eq!(scrape.value(name, &labels), Some(1.0), "{}", scrape.text);
        }
        assert_eq!(scrape.value("gpuquota_quota_limit", &labels), Some(3.0));
        node.seen("the agent shows it", |scrape| {
            let of_tenant = [("tenant", "a"), ("gpu_model", GPU), ("kind", "gpu")];
            scrape.value("gpuquota_tenant_devices", &of_tenant) == Some(1.0)
        })
        .await;
        let begin = now();
        workload.end();
        used(&admin, "a", "flexible", GPU, 0).await;
        down.push(begin.elapsed());
        assert_eq!(
            server.scrape().await.value("gpuquota_quota_used", &labels),
            Some(0.0)
        );
        node.seen("the agent shows it no more", |scrape| {
            scrape.sum("gpuquota_tenant_devices", &[("tenant", "a")]) == 0.0
        })
        .await;
    }
    measured(
        "process to used_count",
        format!("up {up:?}, down {down:?} at an interval of {INTERVAL_MS} ms"),
    );
}

#[tokio::test]
async fn a_tenant_counts_once_a_device_and_every_tenant_that_shares_it_counts() {
    let server = Server::start().await;
    let admin = server.admin();
    for tenant in ["a", "b"] {
        admin
            .put(tenant, purchase("default", 4))
            .await
            .expect_done();
    }
    let node = Node::start(&server, "n1", "h100x4").await;
    let one = node.workload("a", Place::Gpu("0"));
    let two = node.workload("a", Place::Gpu("0"));
    let shared = node.workload("b", Place::Gpu("0"));
    used(&admin, "b", "flexible", GPU, 1).await;
    used(&admin, "a", "flexible", GPU, 1).await;
    one.end();
    let further = node.workload("a", Place::Gpu("1"));
    // One of two processes ended: the device stays held. Only then does the further one make two.
    used(&admin, "a", "flexible", GPU, 2).await;
    assert_eq!(
        node.scrape()
            .await
            .sum("gpuquota_tenant_devices", &[("tenant", "a")]),
        2.0
    );
    // One process on two devices is two devices.
    node.place(&shared, Place::Gpu("3"));
    used(&admin, "b", "flexible", GPU, 2).await;
    two.end();
    used(&admin, "a", "flexible", GPU, 1).await;
    further.end();
    shared.end();
    used(&admin, "a", "flexible", GPU, 0).await;
    used(&admin, "b", "flexible", GPU, 0).await;
}

#[tokio::test]
async fn a_process_on_a_mig_instance_counts_for_its_profile_and_not_for_the_gpu() {
    let server = Server::start().await;
    let admin = server.admin();
    let (exact, loose) = ("nvidia.com/mig-1g.10gb", "nvidia.com/mig-1c10g");
    admin.put("a", purchase("default", 4)).await.expect_done();
    admin
        .put("a", quota("default", "purchase", exact, 4))
        .await
        .expect_done();
    // The spelling of the document's example means the same profile.
    admin.put("b", purchase("default", 4)).await.expect_done();
    admin
        .put("b", quota("default", "purchase", loose, 4))
        .await
        .expect_done();
    let node = Node::new(&server, "n1", "a100x2");
    node.edit(|scenario| scenario.slice("0", &["1g.10gb", "1g.10gb", "2g.20gb"]));
    let instances: Vec<u32> = gpuquota_fake_nvml::file::read(&node.scenario).unwrap().gpus[0]
        .mig
        .iter()
        .map(|mig| mig.gi)
        .collect();
    let mut node = node;
    node.run().await;
    node.up(&admin).await;
    let mine = node.workload("a", Place::Mig("0", instances[0]));
    let theirs = node.workload("b", Place::Mig("0", instances[1]));
    used(&admin, "a", "mig", exact, 1).await;
    used(&admin, "b", "mig", loose, 1).await;
    for tenant in ["a", "b"] {
        used(&admin, tenant, "flexible", GPU, 0).await;
    }
    let labels = [("tenant", "b"), ("gpu_model", exact), ("kind", "mig")];
    node.seen("the agent shows the instance", |scrape| {
        scrape.value("gpuquota_tenant_devices", &labels) == Some(1.0)
    })
    .await;
    violations(&server, &[], 0.0).await;
    // Another profile is nobody's quota: shown as what it is.
    let odd = node.workload("a", Place::Mig("0", instances[2]));
    violations(
        &server,
        &[("tenant", "a"), ("node", "n1"), ("class", "squatter")],
        1.0,
    )
    .await;
    used(&admin, "a", "mig", exact, 1).await;
    for workload in [mine, theirs, odd] {
        workload.end();
    }
    used(&admin, "a", "mig", exact, 0).await;
    used(&admin, "b", "mig", loose, 0).await;
    violations(&server, &[], 0.0).await;
}

#[tokio::test]
async fn a_dedicated_node_serves_its_tenant_and_others_there_are_foreign() {
    let server = Server::start().await;
    let admin = server.admin();
    let own = with(
        quota("default", "assign", GPU, 2),
        "node_name",
        json!(["n1"]),
    );
    admin.put("owner", own).await.expect_done();
    admin
        .put("owner", purchase("default", 5))
        .await
        .expect_done();
    admin
        .put("guest", purchase("default", 5))
        .await
        .expect_done();
    let node = Node::start(&server, "n1", "h100x4").await;
    assert_eq!(admin.node("n1").await["bound_tenant"], "owner");
    let first = node.workload("owner", Place::Gpu("0"));
    used(&admin, "owner", "dedicated", GPU, 1).await;
    used(&admin, "owner", "flexible", GPU, 0).await;
    let guest = node.workload("guest", Place::Gpu("1"));
    violations(
        &server,
        &[("tenant", "guest"), ("node", "n1"), ("class", "foreign")],
        1.0,
    )
    .await;
    guest.end();
    // Over the dedicated limit is over, not moved elsewhere and not cut.
    let more = [
        node.workload("owner", Place::Gpu("2")),
        node.workload("owner", Place::Gpu("3")),
    ];
    used(&admin, "owner", "dedicated", GPU, 3).await;
    violations(
        &server,
        &[("tenant", "owner"), ("class", "over_quota")],
        1.0,
    )
    .await;
    violations(&server, &[("tenant", "guest")], 0.0).await;
    drop((first, more));
    used(&admin, "owner", "dedicated", GPU, 0).await;
    violations(&server, &[], 0.0).await;
}

#[tokio::test]
async fn whoever_has_no_quota_or_no_tenant_is_shown() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.put("a", purchase("default", 1)).await.expect_done();
    let mut node = Node::start(&server, "n1", "h100x4").await;
    let squatter = node.workload("stranger", Place::Gpu("0"));
    violations(
        &server,
        &[
            ("tenant", "stranger"),
            ("node", "n1"),
            ("class", "squatter"),
        ],
        1.0,
    )
    .await;
    let over = [
        node.workload("a", Place::Gpu("1")),
        node.workload("a", Place::Gpu("2")),
    ];
    violations(&server, &[("tenant", "a"), ("class", "over_quota")], 1.0).await;
    used(&admin, "a", "flexible", GPU, 2).await;
    // Registered for nobody: no tenant is charged, and it does not vanish either.
    let nobody = Workload::start();
    node.place(&nobody, Place::Gpu("3"));
    until(
        "the server counts an unattributed device",
        SOON,
        async || {
            let scrape = server.scrape().await;
            let count = scrape.value("gpuquota_unattributed_devices", &[("node", "n1")]);
            let nobodys = [("tenant", ""), ("node", "n1"), ("class", "unattributed")];
            let shown = scrape.value("gpuquota_violations", &nobodys);
            if (count, shown) == (Some(1.0), Some(1.0)) {
                Ok(())
            } else {
                Err(scrape.text)
            }
        },
    )
    .await;
    node.seen("the agent counts an unattributed process", |scrape| {
        scrape.value("gpuquota_processes", &[("source", "unattributed")]) == Some(1.0)
    })
    .await;
    let device = admin.node("n1").await["devices"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|d| d["unattributed"] == true)
        .count();
    assert_eq!(device, 1);
    drop((squatter, over, nobody));
    violations(&server, &[], 0.0).await;
    // A name that the process gives itself counts for nothing (case 70).
    let mut forger = std::process::Command::new("sleep");
    forger
        .arg("3600")
        .env("GPUQUOTA_TENANT", "a")
        .env("TENANT", "a");
    std::os::unix::process::CommandExt::arg0(&mut forger, "tenant-a");
    let mut forger = forger.spawn().unwrap();
    node.edit(|scenario| {
        scenario.add_process(gpuquota_fake_nvml::scenario::Process::new("0", forger.id()))
    });
    node.seen("the forger is unattributed", |scrape| {
        scrape.value("gpuquota_processes", &[("source", "unattributed")]) == Some(1.0)
    })
    .await;
    used(&admin, "a", "flexible", GPU, 0).await;
    forger.kill().unwrap();
    forger.wait().unwrap();
}
