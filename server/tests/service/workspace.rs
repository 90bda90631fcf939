//! Workspace quotas (document 001): the example to the letter, where the figures come from, sites, rights, errors.

use gpuquota_core::Command;
use gpuquota_core::limit::Limit;
use gpuquota_server::auth::Role;
use gpuquota_server::config::Dialects;
use serde_json::{Value, json};

use crate::declared::{
    counter, declared, facts, gpu, host_limit, hosts, on, quota, region, tenant, until,
};
use crate::rest::{Rest, Told, token};
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
async fn hosts_have_a_row_only_while_there_are_kinds_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    spread(&running).await;
    let rest = Rest::on(&running);
    let without = rest.admin("/v2/p/quotas").await;
    assert!(!without.text.contains("\"deh\""), "{without:?}");
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

#[track_caller]
fn expect_fault(answer: &Told, status: u16, detail: u16) {
    let body = answer.json();
    let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["error_code", "error_msg"], "{answer:?}");
    let code = format!("WKS.{detail:05}{status:03}");
    assert_eq!(
        (answer.status, &body["error_code"]),
        (status, &json!(code)),
        "{answer:?}"
    );
    assert!(
        !body["error_msg"].as_str().unwrap().is_empty(),
        "{answer:?}"
    );
    assert_eq!(answer.headers["content-type"], "application/json");
    assert!(answer.headers.contains_key("x-request-id"), "{answer:?}");
    // The scheme of another header than this dialect's.
    assert!(
        !answer.headers.contains_key("www-authenticate"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn case_17_a_foreign_project_reads_the_same_whether_it_exists() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    running
        .told([
            tenant("a", &["pa"]),
            tenant("b", &["pb"]),
            counter("pb", None, "users", limit(1), None),
        ])
        .await;
    let rest = Rest::on(&running);
    let target = |project: &str| format!("/v2/{project}/quotas");
    for project in ["a", "b", "pa", "pb"] {
        assert_eq!(rest.admin(&target(project)).await.status, 200, "{project}");
    }
    expect_fault(&rest.admin(&target("nobody")).await, 404, 2);
    let callers: [(String, &[&str]); 5] = [
        (token(Role::Viewer, &["a"], &[]), &["a", "pa"]),
        (token(Role::TenantAdmin, &["a"], &[]), &["a", "pa"]),
        (token(Role::Viewer, &[], &["pa"]), &["pa"]),
        (token(Role::Viewer, &[], &["nobody"]), &[]),
        (token(Role::TenantAdmin, &[], &[]), &[]),
    ];
    let refusal = rest.get(&target("pb"), &callers[0].0).await;
    for (token, seen) in &callers {
        for project in ["a", "b", "pa", "pb", "nobody"] {
            let answer = rest.get(&target(project), token).await;
            if seen.contains(&project) {
                assert_eq!(answer.status, 200, "{project}: {answer:?}");
            } else {
                expect_fault(&answer, 403, 1);
                assert_eq!(answer.said(), refusal.said(), "{project}");
            }
        }
    }
    running.end().await;
}

#[tokio::test]
async fn case_14_and_21_only_a_good_token_in_its_own_header_counts() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    let rest = Rest::on(&running);
    let good = token(Role::Admin, &[], &[]);
    let bearer = format!("Bearer {good}");
    let long = "x".repeat(8 * 1024);
    let wrong: [(&[(&str, &str)], u16); 8] = [
        (&[], 1),
        (&[("x-auth-token", "")], 1),
        (&[("x-auth-token", "wrong")], 2),
        (&[("x-auth-token", &long)], 2),
        (&[("x-auth-token", "Ж")], 1),
        (&[("x-auth-token", &good), ("x-auth-token", &good)], 2),
        (&[("authorization", &bearer), ("token", &good)], 1),
        (&[("x-auth-token", &bearer)], 2),
    ];
    for (headers, detail) in wrong {
        let answer = rest.told("GET", "/v2/p/quotas", headers).await;
        expect_fault(&answer, 401, detail);
    }
    // Without end from one address they are answered no more.
    let mut answer = rest.told("GET", "/v2/p/quotas", &[]).await;
    for _ in 0..200 {
        if answer.status != 401 {
            break;
        }
        answer = rest.told("GET", "/v2/p/quotas", &[]).await;
    }
    expect_fault(&answer, 429, 1);
    assert_eq!(answer.headers["retry-after"], "1");
    running.end().await;
}

#[tokio::test]
async fn case_28_and_32_hostile_paths_and_other_methods_have_the_dialects_shape() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    running.told([tenant("p", &[])]).await;
    let rest = Rest::on(&running);
    for project in [
        "",
        "%2e%2e",
        "..",
        ".",
        "a%2Fb",
        "p%00",
        "%ff",
        "%2570",
        "p%20",
        "%E4%BA%91",
        &"a".repeat(256),
    ] {
        let answer = rest.admin(&format!("/v2/{project}/quotas")).await;
        expect_fault(&answer, 400, 5);
    }
    for path in [
        "/v2",
        "/v2/",
        "/v2/p",
        "/v2/p/quotas/",
        "/v2/p/quotas/detail",
        "/v2/p//quotas",
    ] {
        expect_fault(&rest.admin(path).await, 404, 1);
    }
    expect_fault(
        &rest.admin(&format!("/v2/{}/quotas", "a".repeat(255))).await,
        404,
        2,
    );
    let plain = rest.admin("/v2/p/quotas").await;
    for same in ["/v2/%70/quotas", "/v2/p/quotas?limit=1&limit=2&%ff=%ff"] {
        assert_eq!(rest.admin(same).await.said(), plain.said(), "{same}");
    }
    let token = token(Role::Admin, &[], &[]);
    let headers = [
        ("X-AUTH-TOKEN", token.as_str()),
        ("content-type", "text/plain"),
    ];
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let answer = rest.told(method, "/v2/p/quotas", &headers).await;
        expect_fault(&answer, 405, 1);
        assert_eq!(answer.headers["allow"], "GET, HEAD", "{method}");
    }
    assert_eq!(
        rest.told("HEAD", "/v2/p/quotas", &headers).await.status,
        200
    );
    running.end().await;
}
