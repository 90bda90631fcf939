//! Who sees and may do what: roles and tenants in tokens (D0.7, cases 17, 19, 21, 22).

use gpuquota_tests::quota::purchase;
use gpuquota_tests::rest::Rest;
use gpuquota_tests::server::Server;
use serde_json::json;

#[tokio::test]
async fn case_19_tenants_see_their_own_quotas_and_set_none() {
    let server = Server::start().await;
    let admin = server.admin();
    for tenant in ["a", "b", "c"] {
        admin.put(tenant, purchase("TW", 4)).await.expect_done();
    }
    let before = server.fingerprint().await;
    for role in ["viewer", "tenant-admin"] {
        let caller = server.caller(&["--role", role, "--tenant", "b", "--tenant", "a"]);
        let answer = caller.list("").await.json();
        let names: Vec<_> = answer["data"]["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["tenant_name"].clone())
            .collect();
        assert_eq!(
            (&answer["data"]["total"], names),
            (&json!(2), vec![json!("a"), json!("b")])
        );
        for tenant in ["a", "c"] {
            caller
                .put(tenant, purchase("TW", 5))
                .await
                .expect_code(403, 1);
            caller
                .put(tenant, purchase("TW", 0))
                .await
                .expect_code(403, 1);
            caller
                .delete(tenant, purchase("TW", 5))
                .await
                .expect_code(403, 1);
        }
        assert_eq!(caller.get("/api/v1/nodes").await.status, 403);
        let revoke = json!({"token": server.admin_token()}).to_string();
        let answer = caller
            .send("POST", "/api/v1/tokens/revoke", &[], revoke)
            .await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["kind"]),
            (403, &json!("forbidden"))
        );
    }
    // A token for projects of other dialects opens no tenant.
    let foreign = server.caller(&["--role", "viewer", "--project", "p1"]);
    assert_eq!(foreign.list("").await.json()["data"]["total"], 0);
    assert_eq!(server.fingerprint().await, before);
}

#[tokio::test]
async fn case_17_a_foreign_tenant_answers_the_same_whether_it_exists_or_not() {
    let server = Server::start().await;
    server
        .admin()
        .put("there", purchase("TW", 4))
        .await
        .expect_done();
    let caller = server.caller(&["--role", "tenant-admin", "--tenant", "mine"]);
    // Authorisation before validation: what is wrong with the body is not told either.
    for body in [purchase("TW", 1), json!({"num": "x"}), json!([])] {
        for method in ["PUT", "DELETE"] {
            let ask = async |tenant: &str| {
                let path = format!("/api/v1/quotas/{tenant}");
                caller.send(method, &path, &[], body.to_string()).await
            };
            let (there, nowhere, invalid) = (
                ask("there").await,
                ask("nowhere").await,
                ask("no%20slug").await,
            );
            there.expect_code(403, 1);
            assert_eq!(there.text, nowhere.text);
            assert_eq!(there.text, invalid.text);
        }
    }
}

#[tokio::test]
async fn case_21_only_the_dialects_own_header_counts() {
    let server = Server::start().await;
    let (token, nobody) = (
        server.admin_token().to_owned(),
        Rest::new(server.rest, None),
    );
    let path = "/api/v1/quota/user-quotas";
    for header in ["token", "X-Auth-Token", "Cookie", "Proxy-Authorization"] {
        for value in [
            token.clone(),
            format!("Bearer {token}"),
            format!("token={token}"),
        ] {
            let answer = nobody.send("GET", path, &[(header, &value)], "").await;
            answer.expect_code(401, 1);
        }
    }
    let query = format!("{path}?access_token={token}&token={token}");
    nobody.get(&query).await.expect_code(401, 1);
    // A wrong one elsewhere does no harm, and a second Authorization is not chosen from.
    let right = format!("Bearer {token}");
    let headers = [
        ("X-Auth-Token", "wrong"),
        ("token", "wrong"),
        ("Authorization", &right),
    ];
    assert_eq!(nobody.send("GET", path, &headers, "").await.status, 200);
    let headers = [
        ("Authorization", &*right),
        ("Authorization", "Bearer other"),
    ];
    nobody
        .send("GET", path, &headers, "")
        .await
        .expect_code(401, 2);
}

#[tokio::test]
async fn case_22_a_revoked_token_is_refused_from_the_next_request_on() {
    let mut server = Server::start().await;
    let token = server.token(&["--role", "admin", "--subject", "leaver"]);
    let leaver = Rest::new(server.rest, Some(&token));
    leaver.put("a", purchase("TW", 1)).await.expect_done();
    let revoke = json!({"token": token}).to_string();
    let answer = server
        .admin()
        .send("POST", "/api/v1/tokens/revoke", &[], revoke)
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    leaver.list("").await.expect_code(401, 2);
    leaver.put("a", purchase("TW", 2)).await.expect_code(401, 2);
    server.kill9();
    server.serve().await;
    leaver.list("").await.expect_code(401, 2);
    assert_eq!(server.admin().quotas().await.total("a"), 1);
}
