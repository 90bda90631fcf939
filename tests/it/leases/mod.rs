//! Leases over REST: what is promised, to whom it is shown, and what a repeated, a raced or a tried request does.

mod node;
mod races;
mod taken;

use gpuquota_tests::quota::{GPU, purchase};
use gpuquota_tests::rest::{Answer, Rest};
use gpuquota_tests::server::Server;
use serde_json::{Value, json};

const LEASES: &str = "/api/v1/leases";

/// So many of the tenant's GPUs, named or as a number.
fn ask_for(tenant: &str, count: u32, placement: &str) -> Value {
    json!({
        "tenant": tenant, "region": "default", "gpu_model": GPU, "count": count, "placement": placement
    })
}

async fn lease(caller: &Rest, body: &Value) -> Value {
    let answer = caller.json("POST", LEASES, body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()
}

async fn shown(caller: &Rest, lease: &Value) -> Value {
    let answer = caller.get(&format!("{LEASES}/{}", lease["id"])).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn keyed(caller: &Rest, method: &str, path: &str, key: &str, body: &Value) -> Answer {
    let headers = [
        ("content-type", "application/json"),
        ("idempotency-key", key),
    ];
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    caller.send(method, path, &headers, body).await
}

fn caller(server: &Server, role: &str, tenant: &str) -> Rest {
    server.caller(&["--role", role, "--tenant", tenant])
}

#[tokio::test]
async fn a_lease_is_shown_to_its_tenant_and_reads_like_none_to_others() {
    let server = gpuquota_tests::pair::server(&[]).await;
    let (a, b) = (
        caller(&server, "tenant-admin", "a"),
        caller(&server, "tenant-admin", "b"),
    );
    let viewer = caller(&server, "viewer", "a");
    let mut body = ask_for("a", 2, "count_only");
    body["ttl_seconds"] = json!(3600);
    body["labels"] = json!({"job": "train 17"});
    let granted = lease(&a, &body).await;
    assert_eq!(granted["state"], "active", "{granted}");
    assert_eq!(granted["labels"], body["labels"], "{granted}");
    assert_eq!(
        (&granted["type"], &granted["source"]),
        (&json!("flexible"), &json!("purchase"))
    );
    assert!(
        granted["expires_at"].is_string() && granted["epoch"].is_u64(),
        "{granted}"
    );
    assert_eq!(shown(&viewer, &granted).await, granted);
    let path = format!("{LEASES}/{}", granted["id"]);
    let (renew, ttl) = (format!("{path}/renew"), json!({"ttl_seconds": null}));
    for (method, path, body) in [
        ("GET", &path, &Value::Null),
        ("DELETE", &path, &Value::Null),
        ("POST", &renew, &ttl),
    ] {
        let other = b.json(method, path, body).await;
        let nobodys = path.replace(
            &format!("{LEASES}/{}", granted["id"]),
            &format!("{LEASES}/999"),
        );
        let nobodys = b.json(method, &nobodys, body).await;
        assert_eq!(
            (other.status, &other.text),
            (404, &nobodys.text),
            "{other:?}"
        );
    }
    assert_eq!(b.get(LEASES).await.json()["leases"], json!([]));
    assert_eq!(b.json("POST", LEASES, &body).await.status, 403);
    assert_eq!(viewer.json("POST", LEASES, &body).await.status, 403);
    // Nobody but an admin ends it without waiting.
    let forced = format!("{path}?force=true");
    assert_eq!(a.send("DELETE", &forced, &[], "").await.status, 403);
    let renewed = a.json("POST", &renew, &ttl).await.json();
    assert_eq!(renewed["expires_at"], Value::Null);
    let ended = server.admin().send("DELETE", &forced, &[], "").await.json();
    assert_eq!(
        (&ended["state"], &ended["reason"]),
        (&json!("ended"), &json!("forced"))
    );
    assert_eq!(a.get(LEASES).await.json()["leases"], json!([]));
    let over = a.get(&format!("{LEASES}?state=ended")).await.json();
    assert_eq!(over["leases"], json!([ended]));
    assert_eq!(
        a.json("POST", &renew, &ttl).await.json()["error"]["kind"],
        "lease_over"
    );
}

#[tokio::test]
async fn a_denial_is_a_tree_and_a_dry_run_says_the_same_and_does_nothing() {
    let server = gpuquota_tests::pair::server(&[]).await;
    let admin = server.admin();
    let dry = format!("{LEASES}?dry_run=true");
    let before = server.fingerprint().await;
    let tried = admin
        .json("POST", &dry, &ask_for("a", 4, "count_only"))
        .await;
    assert_eq!(tried.status, 200, "{tried:?}");
    let tried = tried.json();
    assert_eq!(
        (&tried["dry_run"], &tried["lease"]["count"]),
        (&json!(true), &json!(4))
    );
    assert!(tried["lease"]["id"].is_null() && tried["lease"]["epoch"].is_null());
    for path in [LEASES, &dry] {
        let denied = admin
            .json("POST", path, &ask_for("a", 5, "count_only"))
            .await;
        assert_eq!(denied.status, 409, "{denied:?}");
        let error = &denied.json()["error"];
        assert_eq!(
            (&error["kind"], &error["explain"]["rule"]),
            (&json!("not_granted"), &json!("over_quota")),
            "{error}"
        );
        assert_eq!(
            error["explain"]["admit"],
            json!({"change": "ask_for", "count": 4}),
            "{error}"
        );
    }
    // No node is there at all, so a number is granted where devices are not.
    let nowhere = admin
        .json("POST", LEASES, &ask_for("a", 1, "devices"))
        .await;
    assert_eq!(
        nowhere.json()["error"]["explain"]["rule"],
        "no_device",
        "{nowhere:?}"
    );
    assert_eq!(server.fingerprint().await, before);
    let one = lease(&admin, &ask_for("a", 1, "count_only")).await;
    let path = format!("{LEASES}/{}", one["id"]);
    let before = server.fingerprint().await;
    let renewed = admin
        .json(
            "POST",
            &format!("{path}/renew?dry_run=true"),
            &json!({"ttl_seconds": 60}),
        )
        .await;
    assert!(
        renewed.json()["lease"]["expires_at"].is_string(),
        "{renewed:?}"
    );
    let ended = admin
        .send("DELETE", &format!("{path}?dry_run=true"), &[], "")
        .await;
    assert_eq!(ended.json()["lease"]["state"], "ended", "{ended:?}");
    assert_eq!(server.fingerprint().await, before);
    assert_eq!(shown(&admin, &one).await, one);
}

#[tokio::test]
async fn a_list_is_filtered_and_read_page_by_page() {
    let server = gpuquota_tests::pair::server(&[]).await;
    let admin = server.admin();
    let mut ids = Vec::new();
    for tenant in ["a", "b", "a", "a"] {
        ids.push(lease(&admin, &ask_for(tenant, 1, "count_only")).await["id"].clone());
    }
    let page = async |query: &str| {
        let answer = admin.get(&format!("{LEASES}{query}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let body = answer.json();
        let ids = body["leases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["id"].clone());
        (ids.collect::<Vec<_>>(), body["next"].clone())
    };
    assert_eq!(page("").await, (ids.clone(), Value::Null));
    let first = page("?tenant=a&limit=2").await;
    assert_eq!(
        first,
        (vec![ids[0].clone(), ids[2].clone()], ids[2].clone())
    );
    let second = page(&format!("?tenant=a&limit=2&after={}", first.1)).await;
    assert_eq!(second, (vec![ids[3].clone()], Value::Null));
    assert_eq!(page("?node=n1").await.0, Vec::<Value>::new());
    for wrong in [
        "?limit=0",
        "?limit=1001",
        "?state=gone",
        "?after=x",
        "?limit=1&limit=1",
    ] {
        let answer = admin.get(&format!("{LEASES}{wrong}")).await;
        assert_eq!(answer.status, 400, "{wrong}: {answer:?}");
    }
}

#[tokio::test]
async fn what_a_lease_may_not_be_is_refused() {
    let server = gpuquota_tests::pair::server(&[]).await;
    let admin = server.admin();
    let many: Value = (0..33)
        .map(|n| (format!("l{n}"), json!("x")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    for (field, value) in [
        ("count", json!(0)),
        ("count", json!(4097)),
        ("count", json!(1.5)),
        ("count", Value::Null),
        ("ttl_seconds", json!(0)),
        ("ttl_seconds", json!(31_536_001)),
        ("placement", json!("somewhere")),
        ("type", json!("large")),
        ("nodes", json!([])),
        ("max_nodes", json!(0)),
        ("memory_bytes", json!(-1)),
        ("labels", json!({"a b": "x"})),
        ("labels", json!({"a": 1})),
        ("labels", many),
        ("tenant", json!("a/b")),
    ] {
        let mut body = ask_for("a", 1, "count_only");
        body[field] = value;
        let answer = admin.json("POST", LEASES, &body).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
    }
    assert_eq!(admin.get(LEASES).await.json()["leases"], json!([]));
}

#[tokio::test]
async fn a_misspelt_word_is_refused_and_does_not_do_the_real_thing() {
    let server = gpuquota_tests::pair::server(&[]).await;
    let admin = server.admin();
    let kept = purchase("default", 3);
    admin.put("other", kept).await.expect_done();
    let body = ask_for("a", 1, "count_only");
    let mut ttl = body.clone();
    ttl["ttl"] = json!(60);
    let seq = server.seq().await;
    let quota = "/api/v1/quotas/other";
    for (method, path, body, says) in [
        ("POST", "/api/v1/leases?dryrun=true", &body, "dry_run"),
        ("POST", LEASES, &ttl, "ttl_seconds"),
        ("GET", "/api/v1/nodes?stat=up", &Value::Null, "it takes"),
        (
            "PUT",
            "/api/v1/settings",
            &json!({"leasemode": "required"}),
            "lease_mode",
        ),
        (
            "PUT",
            "/api/v1/settings?dry_run=true",
            &json!({}),
            "it takes none",
        ),
        (
            "DELETE",
            &format!("{quota}?dryrun=true&force=true"),
            &Value::Null,
            "dry_run",
        ),
        (
            "DELETE",
            &format!("{quota}?Force=true"),
            &Value::Null,
            "force",
        ),
        (
            "PUT",
            &format!("{quota}?on-excess=drain"),
            &purchase("default", 1),
            "on_excess",
        ),
    ] {
        let answer = match body {
            Value::Null => admin.send(method, path, &[], "").await,
            body => admin.json(method, path, body).await,
        };
        assert_eq!(answer.status, 400, "{method} {path}: {answer:?}");
        assert!(answer.text.contains(says), "{method} {path}: {answer:?}");
    }
    assert_eq!(server.seq().await, seq, "something was done");
}

#[tokio::test]
async fn settings_are_whole_and_say_whether_leases_are_needed() {
    let server = Server::with(&[(
        "# Declarations",
        "[settings]\nghost_after_seconds = 7\n\n# Declarations",
    )])
    .await;
    let admin = server.admin();
    let settings = "/api/v1/settings";
    let declared = admin.get(settings).await.json();
    assert_eq!(
        (&declared["ghost_after_seconds"], &declared["lease_mode"]),
        (&json!(7), &json!("optional"))
    );
    let put = admin
        .json(
            "PUT",
            settings,
            &json!({"lease_mode": "required", "consume_first": "assign"}),
        )
        .await;
    let expected = json!({
        "consume_first": "assign", "lease_mode": "required", "confirm_within_seconds": 600,
        "ghost_after_seconds": 3600, "drain_notice_seconds": 86400
    });
    assert_eq!(put.json(), expected);
    assert_eq!(admin.get(settings).await.json(), expected);
    for wrong in [
        json!({"lease_mode": "default"}),
        json!({"confirm_within_seconds": 0}),
    ] {
        assert_eq!(
            admin.json("PUT", settings, &wrong).await.status,
            400,
            "{wrong}"
        );
    }
    // A tenant and a region say it for themselves, until they leave it to what stands above them.
    for (path, keeps) in [("/api/v1/tenants/a", true), ("/api/v1/regions/r", false)] {
        let mode = async |body: Value| {
            let answer = admin.json("PUT", path, &body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.json()["lease_mode"].clone()
        };
        assert_eq!(mode(json!({})).await, "default");
        assert_eq!(mode(json!({"lease_mode": "optional"})).await, "optional");
        assert_eq!(
            mode(json!({})).await,
            if keeps { "optional" } else { "default" }
        );
        assert_eq!(mode(json!({"lease_mode": "default"})).await, "default");
    }
    let confined = admin
        .json("PUT", "/api/v1/tenants/a", &json!({"confined": true}))
        .await;
    assert_eq!(confined.json()["confined"], true);
    assert_eq!(
        caller(&server, "tenant-admin", "a")
            .get(settings)
            .await
            .status,
        403
    );
}

/// Tokens are made with one subject unless their operator names another.
#[tokio::test]
async fn case_39_a_key_of_one_tenant_repeats_nothing_to_another_with_the_same_subject() {
    let server = gpuquota_tests::pair::server(&[]).await;
    let (a, b) = (
        caller(&server, "tenant-admin", "a"),
        caller(&server, "tenant-admin", "b"),
    );
    let granted = lease(&a, &ask_for("a", 1, "count_only")).await;
    let path = format!("{LEASES}/{}", granted["id"]);
    let (renew, ttl) = (
        format!("{path}/renew"),
        json!({"ttl_seconds": 60}).to_string(),
    );
    for (method, path, body) in [("POST", &renew, ttl.as_str()), ("DELETE", &path, "")] {
        let ask = async |who: &Rest, method: &str| {
            let headers = [
                ("Idempotency-Key", "1"),
                ("Content-Type", "application/json"),
            ];
            who.send(method, path, &headers, body.to_owned()).await
        };
        let own = ask(&a, method).await;
        assert_eq!(own.status, 200, "{own:?}");
        let other = ask(&b, method).await;
        assert_eq!(other.status, 404, "{other:?}");
        assert_eq!(ask(&a, method).await.text, own.text);
    }
}
