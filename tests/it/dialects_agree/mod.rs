//! One ledger behind five dialects: random histories written in all of them and in the native API, with agents that
//! report, and after every few steps each number is read wherever it is shown, and compared with a naive model and with
//! its other spellings.

mod agent;
mod leases;
mod model;
mod pools;
mod reading;
mod steps;

use gpuquota_tests::server::Server;
use gpuquota_tests::session::Session;
use gpuquota_tests::skip::{measured, slow};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use model::{NODES, REGIONS, TENANTS, World};
use steps::Writer;

const STEPS: usize = 40;
const BETWEEN_READINGS: usize = 4;

// A seed of the past comes back through GPUQUOTA_SEED.
fn seed() -> u64 {
    let given = std::env::var("GPUQUOTA_SEED").ok();
    given.map_or_else(|| rand::rng().random(), |text| text.parse().unwrap())
}

async fn begin(server: &Server) -> Vec<Session> {
    let admin = server.admin();
    let put = async |path: String, body: serde_json::Value| {
        let answer = admin.json("PUT", &format!("/api/v1{path}"), &body).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    };
    for (tenant, number) in TENANTS {
        let body = json!({"id": number, "code": tenant, "projects": [format!("p-{tenant}")]});
        put(format!("/tenants/{tenant}"), body).await;
    }
    for (region, site) in REGIONS {
        put(format!("/regions/{region}"), json!({"site_id": site})).await;
    }
    let types = [json!(["*-8Q"]), json!([])];
    for (number, types) in (1..).zip(types) {
        let body = json!({"name": format!("product {number}"), "code": format!("P{number}"), "vgpu_types": types});
        put(format!("/software-products/{number}"), body).await;
    }
    let mut sessions = Vec::new();
    for node in NODES {
        let body = json!({"region": node.region, "resource_groups": [node.group]});
        put(format!("/nodes/{}", node.name), body).await;
        sessions.push(Session::of(server, node.name).await);
    }
    sessions
}

async fn history(seed: u64) {
    // Told before it begins, whatever ends it.
    measured("history of dialects, GPUQUOTA_SEED", seed);
    let server = Server::start().await;
    let sessions = begin(&server).await;
    let mut writer = Writer {
        server: &server,
        admin: server.admin(),
        world: World::default(),
        random: StdRng::seed_from_u64(seed),
        sessions,
        reports: 0,
        log: Vec::new(),
    };
    for node in 0..NODES.len() {
        writer.report(node).await;
    }
    let tokens =
        TENANTS.map(|(tenant, _)| server.token(&["--role", "tenant-admin", "--tenant", tenant]));
    for step in 1..=STEPS {
        writer.step().await;
        if step % BETWEEN_READINGS == 0 {
            writer.world.leases = leases::read(&writer.admin).await;
            let found = reading::differences(&server, &tokens, &writer.world).await;
            assert!(
                found.is_empty(),
                "GPUQUOTA_SEED={seed}: after step {step}:\n{}\nafter this history:\n{}",
                found.join("\n"),
                writer.log.join("\n")
            );
        }
    }
}

#[tokio::test]
async fn every_dialect_shows_what_another_wrote_and_an_agent_reported() {
    let first = seed();
    let histories = if slow() { 60 } else { 4 };
    for number in 0..histories {
        history(first.wrapping_add(number)).await;
    }
}
