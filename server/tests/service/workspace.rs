//! Workspace quotas (document 001): the example to the letter, where the figures come from, sites.

use gpuquota_core::Command;
use gpuquota_core::limit::Limit;
use gpuquota_server::config::Dialects;
use serde_json::{Value, json};

use crate::declared::{
    counter, declared, facts, gpu, host_limit, hosts, on, quota, region, tenant, until,
};
use crate::rest::Rest;
use crate::running::{Running, START, SetClock};

const GPU: &str = "nvidia.com/gpu";
const PROJECT: &str = "29dfe82ada564ac2b927e1ff036d9a9b";
const UNLIMITED: u32 = 2_147_483_647;

// The document's answer, verbatim.
const EXAMPLE: &str = r#"{
  "quotas" : {
    "resources" : [ {
      "type" : "general_instances",
      "quota" : 10,
      "used" : 3
    }, {
      "type" : "volumes",
      "quota" : 500,
      "used" : 33
    }, {
      "type" : "volume_gigabytes",
      "quota" : 21500,
      "unit" : "GB",
      "used" : 2090
    }, {
      "type" : "cores",
      "quota" : 80,
      "used" : 10
    }, {
      "type" : "Memory",
      "quota" : 100,
      "unit" : "GB",
      "used" : 19
    }, {
      "type" : "gpu_instances",
      "quota" : 10,
      "used" : 0
    }, {
      "type" : "users",
      "quota" : 3000,
      "used" : 29
    }, {
      "type" : "policy_groups",
      "quota" : 10,
      "used" : 0
    }, {
      "type" : "Cores",
      "quota" : 80,
      "used" : 0
    } ]
  },
  "site_quotas" : [ {
    "site_id" : 147258369,
    "resources" : [ {
      "type" : "gpu_instances",
      "quota" : 50,
      "used" : 0
    }, {
      "type" : "ies_instances",
      "quota" : 500,
      "used" : 0
    } ]
  } ]
}"#;

fn set(set: gpuquota_core::command::SetQuota) -> Command {
    Command::SetQuota(set)
}

fn limit(limit: u32) -> Option<Limit> {
    Some(Limit::Finite(limit))
}

#[tokio::test]
async fn the_example_of_the_document_comes_back_to_the_letter() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    let site = Some("147258369");
    let counted = [
        (None, "general_instances", 10, Some(3)),
        (None, "volumes", 500, Some(33)),
        (None, "volume_gigabytes", 21_500, Some(2090)),
        (None, "cores", 80, None),
        (None, "Memory", 100, None),
        (None, "users", 3000, Some(29)),
        (None, "policy_groups", 10, Some(0)),
        (None, "Cores", 80, Some(0)),
        (site, "ies_instances", 500, Some(0)),
    ];
    let counted =
        counted.map(|(site, kind, quota, used)| counter(PROJECT, site, kind, limit(quota), used));
    let dedicated = on(
        quota("desktops", "cn-north", GPU, Limit::Finite(10)),
        &["n1"],
    );
    running
        .told([
            tenant("desktops", &[PROJECT]),
            region("edge", site),
            declared("n1", "cn-north", &[], Some((10, 19 << 30))),
            set(dedicated),
            set(quota("desktops", "edge", GPU, Limit::Finite(50))),
        ])
        .await;
    running.told(counted).await;
    // The text, not the value: the order of the keys is the document's too.
    let mut expected: Value = serde_json::from_str(EXAMPLE).unwrap();
    let target = format!("/v2/{PROJECT}/quotas");
    let dialects = Dialects {
        site_id_as_number: true,
        ..Dialects::default()
    };
    let answer = Rest::with(&running, dialects).admin(&target).await;
    assert_eq!(answer.said(), (200, expected.to_string().as_str()));
    // By default a site is text (D2.5).
    expected["site_quotas"][0]["site_id"] = json!("147258369");
    let answer = Rest::on(&running).admin(&target).await;
    assert_eq!(answer.said(), (200, expected.to_string().as_str()));
    assert_eq!(answer.headers["content-type"], "application/json");
    running.end().await;
}

fn row(kind: &str, quota: u32, used: u32) -> Value {
    match kind {
        "Memory" | "volume_gigabytes" => {
            json!({ "type": kind, "quota": quota, "unit": "GB", "used": used })
        }
        _ => json!({ "type": kind, "quota": quota, "used": used }),
    }
}

const PART: u64 = 600 << 20;

// A tenant with something at the central site and at five others, each time of another kind.
async fn spread(running: &Running) {
    let sites = [
        ("s1", "a"),
        ("s2", "b"),
        ("s3", "c"),
        ("s4", "d"),
        ("s5", "007"),
    ];
    running.told([tenant("t", &["p", "q"])]).await;
    running
        .told(sites.map(|(name, site)| region(name, Some(site))))
        .await;
    running.told([region("EU", None)]).await;
    let ended = until(quota("t", "US", "x", Limit::Finite(100)), START - 1);
    running
        .told([
            declared("n1", "US", &[], Some((64, 1 << 40))),
            declared("n2", "EU", &["g", "h"], Some((4, (7 << 30) + PART))),
            declared("n4", "s3", &[], None),
            declared("n5", "s5", &["g"], None),
            set(quota("t", "US", GPU, Limit::Finite(3))),
            set(quota("t", "EU", GPU, Limit::Finite(4))),
            set(ended),
            set(on(
                quota("t", "EU", GPU, Limit::Finite(1)),
                &["n2", "never-seen"],
            )),
            set(on(quota("t", "US", "y", Limit::Finite(1)), &["n5"])),
            set(quota("t", "s1", GPU, Limit::Unlimited)),
            set(quota("t", "s1", "x", Limit::Finite(1))),
            set(quota("other", "s4", GPU, Limit::Finite(9))),
            counter("p", None, "volumes", Some(Limit::Unlimited), Some(5)),
            counter("p", None, "users", None, Some(7)),
            counter("p", None, "zeta", limit(u32::MAX), Some(u32::MAX)),
            counter("p", None, "Alpha", limit(1), None),
            counter("p", Some("b"), "aaa", limit(1), Some(1)),
            counter("p", Some("b"), "cores", limit(5), None),
            counter("p", Some("b"), "volumes", limit(2), Some(1)),
        ])
        .await;
    let held = vec![
        gpu("GPU-1", GPU, &["t"]),
        gpu("GPU-2", GPU, &["t", "other"]),
        gpu("GPU-3", "no-quota", &["t"]),
        gpu("GPU-4", "x", &["t"]),
        gpu("GPU-5", GPU, &[]),
    ];
    let said = facts(Some(8), Some((15 << 30) + PART));
    running.reported("n1", said, held).await;
    let unknown = vec![gpu("GPU-6", GPU, &["t"])];
    running.told([declared("n3", "US", &[], None)]).await;
    running.reported("n3", facts(None, None), unknown).await;
    let remote = vec![gpu("GPU-7", GPU, &["t"])];
    running
        .reported("n4", facts(Some(2), Some(4 << 30)), remote)
        .await;
}

#[tokio::test]
async fn every_figure_is_the_ledgers_the_nodes_or_its_own_systems() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    spread(&running).await;
    let rest = Rest::on(&running);
    let answer = rest.admin("/v2/p/quotas").await;
    // Nodes count once and whole, what the agent says before what was declared; an expired quota grants nothing and
    // is still charged; bytes are summed before they are rounded.
    let expected = json!({
        "quotas": { "resources": [
            row("general_instances", 0, 0),
            row("volumes", UNLIMITED, 5),
            row("volume_gigabytes", 0, 0),
            row("cores", UNLIMITED, 12),
            row("Memory", UNLIMITED, 23),
            row("gpu_instances", 9, 4),
            row("users", 0, 7),
            row("policy_groups", 0, 0),
            row("Cores", 0, 0),
            row("Alpha", 1, 0),
            row("zeta", UNLIMITED, UNLIMITED),
        ]},
        "site_quotas": [
            { "site_id": "007", "resources": [
                row("gpu_instances", 0, 0), row("cores", UNLIMITED, 0), row("Memory", UNLIMITED, 0),
            ]},
            { "site_id": "a", "resources": [row("gpu_instances", UNLIMITED, 0)] },
            { "site_id": "b", "resources": [
                row("gpu_instances", 0, 0), row("volumes", 2, 1), row("cores", 5, 0), row("aaa", 1, 1),
            ]},
            { "site_id": "c", "resources": [
                row("gpu_instances", 0, 0), row("cores", UNLIMITED, 2), row("Memory", UNLIMITED, 4),
            ]},
        ],
    });
    assert_eq!(answer.said(), (200, expected.to_string().as_str()));

    // Another project of the tenant shows the same devices and its own counters; nobody's is nobody's.
    let other = rest.admin("/v2/q/quotas").await.json();
    assert_eq!(other["quotas"]["resources"][1], row("volumes", 0, 0));
    assert_eq!(other["quotas"]["resources"][5], row("gpu_instances", 9, 4));
    assert_eq!(other["site_quotas"].as_array().map(Vec::len), Some(3));
    running.told([tenant("new", &[])]).await;
    let new = rest.admin("/v2/new/quotas").await.json();
    assert_eq!(new["site_quotas"], json!([]));
    assert_eq!(new["quotas"]["resources"].as_array().map(Vec::len), Some(9));

    // Two sites never become one number.
    let dialects = Dialects {
        site_id_as_number: true,
        ..Dialects::default()
    };
    let numbered = Rest::with(&running, dialects).admin("/v2/p/quotas").await;
    assert_eq!(numbered.said(), answer.said());
    running.end().await;
}

#[tokio::test]
async fn hosts_have_a_row_only_for_who_has_some_or_a_limit_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    spread(&running).await;
    let rest = Rest::on(&running);
    let without = rest.admin("/v2/p/quotas").await;
    assert!(!without.text.contains("\"deh\""), "{without:?}");
    running.told([hosts("c4", &[]), hosts("m4", &[])]).await;
    let still = rest.admin("/v2/p/quotas").await;
    assert_eq!(still.said(), without.said(), "kinds that are nothing to it");
    running
        .told([
            hosts("c4", &["g"]),
            hosts("m4", &["h"]),
            host_limit("t", "c4", 2),
        ])
        .await;
    // The node of both kinds is one host; the one at a site is not the central site's.
    for (quota, next) in [(UNLIMITED, host_limit("t", "m4", 3)), (5, hosts("c4", &[]))] {
        let answer = rest.admin("/v2/p/quotas").await;
        let body = answer.json();
        assert_eq!(body["quotas"]["resources"][6], row("deh", quota, 1));
        assert_eq!(answer.text.matches("\"deh\"").count(), 1, "{answer:?}");
        running.told([next]).await;
    }
    let body = rest.admin("/v2/p/quotas").await.json();
    assert_eq!(body["quotas"]["resources"][6], row("deh", 5, 1));
    running.end().await;
}
