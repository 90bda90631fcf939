//! Leases that a node takes of its own devices, as its agent asks for them: its own only, for whom it may, and not without end.

use gpuquota_proto::agent_v1::lease_answer::Is;
use gpuquota_proto::agent_v1::leasing_client::LeasingClient;
use gpuquota_proto::agent_v1::{Leased, NamedLease, TakeLease};
use gpuquota_tests::mtls::{Papers, channel};
use gpuquota_tests::quota::purchase;
use gpuquota_tests::rest::Rest;
use gpuquota_tests::server::Server;
use gpuquota_tests::session::{Session, full, gpu};
use gpuquota_tests::wait::{SOON, until};
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::LEASES;

struct Node {
    session: Session,
    papers: Papers,
    reports: u64,
}

impl Node {
    // Two GPUs that nobody holds, and the session that says so.
    async fn up(server: &Server, name: &str) -> Self {
        let mut session = Session::of(server, name).await;
        let papers = Papers::read(&server.home().join(format!("agent-{name}")), "agent");
        let devices = ["0", "1"].map(|index| gpu(&format!("GPU-{name}-{index}"), &[]));
        session.acked(full(1, devices.to_vec())).await;
        Self {
            session,
            papers,
            reports: 1,
        }
    }

    async fn client(&self, server: &Server) -> LeasingClient<Channel> {
        let line = channel(server.agents, &server.dir, Some(&self.papers)).await;
        LeasingClient::new(line.unwrap())
    }

    async fn take(&self, server: &Server, asked: TakeLease) -> Result<Is, Status> {
        let answer = self.client(server).await.take(asked).await?;
        Ok(answer.into_inner().is.expect("an answer"))
    }

    async fn renew(&self, server: &Server, lease: u64) -> Is {
        let answer = self.client(server).await.renew(NamedLease { lease }).await;
        answer.unwrap().into_inner().is.unwrap()
    }

    async fn release(&self, server: &Server, lease: u64) -> Is {
        let answer = self
            .client(server)
            .await
            .release(NamedLease { lease })
            .await;
        answer.unwrap().into_inner().is.unwrap()
    }

    // Says again that nobody is there, after the server's newest mark.
    async fn free(&mut self, name: &str) {
        self.reports += 1;
        let devices = ["0", "1"].map(|index| gpu(&format!("GPU-{name}-{index}"), &[]));
        self.session
            .acked(full(self.reports, devices.to_vec()))
            .await;
    }
}

fn ask(number: u32, tenant: &str, count: u32) -> TakeLease {
    TakeLease {
        ask: format!("{number:032}"),
        tenant: tenant.to_owned(),
        count,
        uid: 1000,
        ..TakeLease::default()
    }
}

fn granted(is: Result<Is, Status>) -> Leased {
    match is {
        Ok(Is::Leased(leased)) => leased,
        other => unreachable!("no lease but {other:?}"),
    }
}

fn why(is: Result<Is, Status>) -> String {
    match is {
        Ok(Is::Denied(why)) => why,
        other => unreachable!("no denial but {other:?}"),
    }
}

async fn shown(admin: &Rest, lease: u64) -> Value {
    admin.get(&format!("{LEASES}/{lease}")).await.json()
}

#[tokio::test]
async fn a_node_takes_its_own_devices_once_for_each_asking_and_gives_back_what_it_took() {
    let edits = [("leases_per_node = 64", "leases_per_node = 2")];
    let server = gpuquota_tests::pair::server(&edits).await;
    let admin = server.admin();
    admin.put("a", purchase("default", 8)).await.expect_done();
    let mut n1 = Node::up(&server, "n1").await;
    let n2 = Node::up(&server, "n2").await;
    let first = granted(n1.take(&server, ask(1, "a", 1)).await);
    let again = granted(n1.take(&server, ask(1, "a", 1)).await);
    assert_eq!((first.lease, &first.devices), (again.lease, &again.devices));
    assert_eq!(first.devices.len(), 1);
    assert!(first.devices[0].gpu_uuid.starts_with("GPU-n1-"));
    assert!(
        (1_700_000..=1_810_000).contains(&first.ends_in_ms),
        "{first:?}"
    );
    let lease = shown(&admin, first.lease).await;
    assert_eq!(lease["state"], "active", "{lease}");
    assert_eq!(lease["labels"]["gpuquota/taken-by-node"], "n1", "{lease}");
    assert_eq!(lease["labels"]["gpuquota/taken-for-uid"], "1000", "{lease}");
    // Who only asks what became of an asking is told, and takes nothing.
    let only = |number| TakeLease {
        only_if_taken: true,
        ..ask(number, "a", 1)
    };
    let told = granted(n1.take(&server, only(1)).await);
    assert_eq!(told.lease, first.lease);
    assert!(why(n1.take(&server, only(7)).await).contains("nothing was leased"));
    // The same name for something else.
    let other = n1.take(&server, ask(1, "a", 2)).await;
    assert_eq!(other.unwrap_err().code(), Code::InvalidArgument);
    // More than is on this node, though there is more elsewhere; what is no quota; what nobody has.
    let seq = server.seq().await;
    assert!(!why(n1.take(&server, ask(2, "a", 2)).await).is_empty());
    assert!(why(n1.take(&server, ask(3, "stranger", 1)).await).contains("quota"));
    let model = TakeLease {
        gpu_model: "nvidia.com/none".to_owned(),
        ..ask(4, "a", 1)
    };
    assert!(!why(n1.take(&server, model).await).is_empty());
    assert_eq!(server.seq().await, seq, "a denial was written");
    let audit = admin.get("/api/v1/audit?tenant=stranger").await.json();
    let denial = &audit["denials"][0];
    assert_eq!(denial["actor"], "node:n1", "{audit}");
    let _ = granted(n1.take(&server, ask(5, "a", 1)).await);
    let full = why(n1.take(&server, ask(6, "a", 1)).await);
    assert!(full.contains("agents.leases_per_node"), "{full}");
    // Another node's, and what was leased over REST, are not the node's to touch.
    let theirs = granted(n2.take(&server, ask(1, "a", 1)).await);
    assert_ne!(theirs.lease, first.lease);
    let body = json!({"tenant": "a", "region": "default", "gpu_model": "nvidia.com/gpu", "count": 1, "nodes": ["n2"]});
    let by_rest = admin.json("POST", LEASES, &body).await.json();
    let by_rest = by_rest["id"].as_u64().expect("a number");
    for lease in [first.lease, by_rest, 999] {
        let denied = |is| matches!(is, Is::Denied(_));
        assert!(denied(n2.renew(&server, lease).await), "{lease}");
        assert!(denied(n2.release(&server, lease).await), "{lease}");
        assert!(lease == 999 || shown(&admin, lease).await["state"] == "active");
    }
    // Whoever would pass for a node over REST.
    let mut marked = body.clone();
    marked["labels"] = json!({"gpuquota/taken-by-node": "n2"});
    let marked = admin.json("POST", LEASES, &marked).await;
    assert_eq!(marked.status, 400, "{marked:?}");
    let renewed = n1.renew(&server, first.lease).await;
    assert!(matches!(renewed, Is::Leased(it) if it.devices == first.devices));
    let Is::Leased(released) = n1.release(&server, first.lease).await else {
        unreachable!("it was its own")
    };
    assert!(released.devices.is_empty());
    until("it is seen free", SOON, async || {
        n1.free("n1").await;
        let lease = shown(&admin, first.lease).await;
        match lease["state"] == "ended" {
            true => Ok(()),
            false => Err(lease.to_string()),
        }
    })
    .await;
    // Once more, as after a lost answer.
    assert!(matches!(
        n1.release(&server, first.lease).await,
        Is::Leased(_)
    ));
}

#[tokio::test]
async fn no_certificate_a_banned_one_and_a_wrong_token_take_nothing() {
    let server = gpuquota_tests::pair::server(&[]).await;
    let admin = server.admin();
    for tenant in ["a", "b"] {
        admin
            .put(tenant, purchase("default", 8))
            .await
            .expect_done();
    }
    let n1 = Node::up(&server, "n1").await;
    let token = |role: &str, tenant: &str| server.token(&["--role", role, "--tenant", tenant]);
    let by = |number: u32, tenant: &str, token: String| TakeLease {
        token,
        ..ask(number, tenant, 1)
    };
    let (manager, viewer) = (token("tenant-admin", "a"), token("viewer", "a"));
    let refused = async |asked: TakeLease| n1.take(&server, asked).await.unwrap_err();
    for (number, asked) in [
        (1, by(1, "b", manager.clone())),
        (2, by(2, "a", viewer)),
        (3, by(3, "a", "no-token".to_owned())),
    ] {
        let status = refused(asked).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{number}: {status}");
        assert!(!status.message().contains("no-token"));
    }
    let lease = granted(n1.take(&server, by(4, "a", manager.clone())).await);
    let audit = admin.get("/api/v1/audit?tenant=a&limit=1000").await.json();
    let changes = audit["changes"].as_array().expect("changes").clone();
    let by_token = |row: &Value| {
        row["actor"]
            .as_str()
            .is_some_and(|it| it.starts_with("tenant-admin:"))
    };
    assert!(changes.iter().any(by_token), "{audit}");
    let revoke = json!({"token": manager});
    let revoked = admin.json("POST", "/api/v1/tokens/revoke", &revoke).await;
    assert!(revoked.status < 300, "{revoked:?}");
    let status = refused(by(5, "a", manager)).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    for bad in [
        TakeLease {
            ask: "short".to_owned(),
            ..ask(6, "a", 1)
        },
        ask(7, "a", 0),
        ask(8, "a", 4097),
        ask(9, "", 1),
    ] {
        assert_eq!(refused(bad).await.code(), Code::InvalidArgument);
    }
    let nobody = channel(server.agents, &server.dir, None).await;
    let taken = match nobody {
        Ok(line) => LeasingClient::new(line).take(ask(10, "a", 1)).await,
        Err(why) => Err(Status::unauthenticated(why)),
    };
    assert!(taken.is_err());
    let ban = json!({"node": "n1"});
    let banned = admin.json("POST", "/api/v1/bans", &ban).await;
    assert!(banned.status < 300, "{banned:?}");
    let status = refused(ask(11, "a", 1)).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(shown(&admin, lease.lease).await["state"], "active");
}
