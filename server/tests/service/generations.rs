//! `ETag` and `If-Match` of the native API: what changed since it was read is not written over.

use axum::response::Response;
use gpuquota_server::auth::Role;
use gpuquota_server::config::Dialects;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::directory::{licence, seats};
use crate::licence::Portal;
use crate::rest::token;

struct Told {
    status: u16,
    etag: Option<String>,
    body: Value,
}

async fn told(answer: Response) -> Told {
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let etag = parts.headers.get("etag");
    Told {
        status: parts.status.as_u16(),
        etag: etag.map(|it| it.to_str().unwrap().to_owned()),
        body: serde_json::from_slice(&body).unwrap(),
    }
}

impl Portal {
    async fn over(&self, method: &str, path: &str, body: &Value, etag: Option<&str>) -> Told {
        let admin = token(Role::Admin, &[], &[]);
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {admin}"));
        if let Some(etag) = etag {
            request = request.header("if-match", etag);
        }
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        told(self.rest.send(request, &body).await).await
    }

    async fn shown(&self, path: &str) -> Option<String> {
        let shown = self.over("GET", path, &Value::Null, None).await;
        assert_eq!(shown.status, 200, "{path}: {}", shown.body);
        shown.etag
    }

    // Written by two who both read it: the first is taken, the other is told.
    async fn raced(&self, method: &str, write: &str, show: &str, bodies: &[Value; 2]) {
        let read = self.shown(show).await.unwrap();
        let first = self.over(method, write, &bodies[0], Some(&read)).await;
        assert_eq!(first.status, 200, "{write}: {}", first.body);
        assert_ne!(first.etag.as_ref(), Some(&read), "{write}");
        assert_eq!(first.etag, self.shown(show).await, "{write}");
        let seq = self.running.seq();
        let late = self.over(method, write, &bodies[1], Some(&read)).await;
        assert_eq!(
            (late.status, &late.body["error"]["kind"]),
            (412, &json!("changed")),
            "{write}"
        );
        assert_eq!(self.running.seq(), seq, "{write}");
        // Who does not ask, or says that any will do, writes over whatever there is.
        for etag in [Some("*"), None] {
            let body = &bodies[usize::from(etag.is_some())];
            let other = self.over(method, write, body, etag).await;
            assert_eq!(other.status, 200, "{write}: {}", other.body);
        }
    }

    async fn ended(&self, delete: &str, show: &str, read: &str) {
        let late = self.over("DELETE", delete, &Value::Null, Some(read)).await;
        assert_eq!(
            (late.status, &late.body["error"]["kind"]),
            (412, &json!("changed")),
            "{delete}"
        );
        let now = self.shown(show).await.unwrap();
        let done = self.over("DELETE", delete, &Value::Null, Some(&now)).await;
        assert_eq!(done.status, 200, "{delete}: {}", done.body);
        let gone = self.over("DELETE", delete, &Value::Null, Some(&now)).await;
        assert_eq!(gone.status, 404, "{delete}: {}", gone.body);
    }
}

#[tokio::test]
async fn case_41_what_changed_since_it_was_read_is_not_written_over() {
    let portal = Portal::open(Dialects::default()).await;
    let made = [
        (
            "/api/v1/tenants/new",
            "",
            json!({"name": "One"}),
            json!({"name": "Two"}),
            false,
        ),
        (
            "/api/v1/regions/r",
            "",
            json!({"name": "One"}),
            json!({"name": "Two"}),
            false,
        ),
        (
            "/api/v1/resource-groups/g",
            "",
            json!({"max_time": "1-00:00:00"}),
            json!({"max_time": "2-00:00:00"}),
            true,
        ),
        (
            "/api/v1/host-resources/h",
            "",
            json!({"resource_groups": ["g"]}),
            json!({"resource_groups": []}),
            true,
        ),
        (
            "/api/v1/software-products/77",
            "",
            json!({"name": "One", "code": "C77"}),
            json!({"name": "Two", "code": "C77"}),
            true,
        ),
        (
            "/api/v1/nodes/n7",
            "",
            json!({"region": "r"}),
            json!({"region": "q"}),
            true,
        ),
        (
            "/api/v1/models",
            "?gpu_model=m7",
            json!({"gpu_model": "m7", "hardware": ["H 7"]}),
            json!({"gpu_model": "m7", "hardware": ["H 8"]}),
            true,
        ),
    ];
    for (path, query, one, two, may_end) in made {
        let show = format!("{path}{query}");
        // What is not there has no generation that somebody could have read.
        let early = portal.over("PUT", path, &one, Some("\"1\"")).await;
        assert_eq!(early.status, 412, "{path}: {}", early.body);
        let made = portal.over("PUT", path, &two, None).await;
        assert_eq!(
            (made.status, &made.etag),
            (200, &portal.shown(&show).await),
            "{path}"
        );
        portal.raced("PUT", path, &show, &[one, two]).await;
        if may_end {
            portal.ended(&show, &show, &made.etag.unwrap()).await;
        }
    }
    let settings = [1, 2].map(|seconds| json!({"ghost_after_seconds": seconds}));
    let path = "/api/v1/settings";
    portal.raced("PUT", path, path, &settings).await;
    let quota = json!({"region": "r", "quota_source": "assign", "gpu_model": "m8", "num": 2});
    let given = portal.over("PUT", "/api/v1/quotas/new", &quota, None).await;
    assert_eq!(given.status, 200, "{}", given.body);
    let (path, switched) = ("/api/v1/entitlements/0", [false, true]);
    let switched = switched.map(|active| json!({"is_active": active}));
    portal.raced("PATCH", path, path, &switched).await;
    portal.running.end().await;
}

#[tokio::test]
async fn a_seat_that_changed_since_it_was_read_is_neither_kept_nor_given_back() {
    let portal = Portal::open(Dialects::default()).await;
    portal.running.has([licence(2, 1, 3, None)]).await;
    portal.running.has(seats("demo", 1, 1)).await;
    let seat = "/api/v1/seats/1";
    let read = portal.shown(seat).await.unwrap();
    let ttl = [60, 90].map(|seconds| json!({"ttl_seconds": seconds}));
    portal
        .raced("POST", &format!("{seat}/renew"), seat, &ttl)
        .await;
    portal.ended(seat, seat, &read).await;
    portal.running.end().await;
}

#[tokio::test]
async fn a_groups_card_limits_are_part_of_it_and_a_nodes_reports_are_not_part_of_what_was_said_of_it()
 {
    let portal = Portal::open(Dialects::default()).await;
    let group = "/api/v1/resource-groups/g";
    portal.over("PUT", group, &json!({}), None).await;
    let read = portal.shown(group).await;
    let cards = format!("{group}/card-limits/gpu");
    portal.over("PUT", &cards, &json!({"cards": 2}), None).await;
    assert_ne!(portal.shown(group).await, read);
    let node = "/api/v1/nodes/n7";
    portal
        .over("PUT", node, &json!({"region": "r"}), None)
        .await;
    let read = portal.shown(node).await;
    let gpus = vec![crate::declared::gpu("GPU-0", "nvidia.com/gpu", &[])];
    portal
        .running
        .reported("n7", crate::declared::facts(None, None), gpus)
        .await;
    assert_eq!(portal.shown(node).await, read);
    portal.running.end().await;
}
