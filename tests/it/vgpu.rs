//! vGPU instances, from NVML to the ledger: a VM's vGPU is a used quota of its tenant, and its licence is known.

use std::time::Duration;

use gpuquota_fake_nvml::scenario::{Licence, Vgpu};
use gpuquota_proto::agent_v1::agent_message::Body as ToServer;
use gpuquota_proto::agent_v1::server_message::Body as FromServer;
use gpuquota_proto::agent_v1::{DeviceHealth, DeviceKey, DeviceKind, DeviceState, Heartbeat};
use gpuquota_proto::agent_v1::{LicenceState, Report};
use gpuquota_proto::digest::{DigestRow, HolderDigest};
use gpuquota_tests::node::Node;
use gpuquota_tests::program::program;
use gpuquota_tests::quota::quota;
use gpuquota_tests::rest::Rest;
use gpuquota_tests::server::Server;
use gpuquota_tests::session::{Session, full};
use gpuquota_tests::wait::{SOON, throughout, until};
use serde_json::{Value, json};

const MODEL: &str = "L40S-8Q";
/// More than two heartbeats.
const BEATS: Duration = Duration::from_millis(2500);

/// Waits until the server shows this vGPU as wanted.
async fn shown(admin: &Rest, node: &str, uuid: &str, wanted: Value) {
    let key = format!("vgpu:{uuid}");
    until(&format!("{uuid} is {wanted}"), SOON, async || {
        let node = admin.node(node).await;
        let devices = node["devices"].as_array().unwrap();
        let row = devices.iter().find(|row| row["device"] == *key);
        let seen = row.map_or(Value::Null, |row| {
            json!([
                row["gpu_model"],
                row["tenants"],
                row["unattributed"],
                row["licence"]
            ])
        });
        if seen == wanted {
            Ok(())
        } else {
            Err(node.to_string())
        }
    })
    .await;
}

async fn used(admin: &Rest, expected: u64) {
    until(&format!("a uses {expected}"), SOON, async || {
        let quotas = admin.quotas().await;
        match quotas.used("a", "vgpu", MODEL) {
            used if used == expected => Ok(()),
            _ => Err(format!("{quotas:?}")),
        }
    })
    .await;
}

fn vgpus(node: &Node) -> Vec<Vgpu> {
    let scenario = gpuquota_fake_nvml::file::read(&node.scenario).unwrap();
    scenario.gpus[0].vgpu.clone()
}

#[tokio::test]
async fn a_vm_with_a_vgpu_is_a_used_quota_until_it_stops_and_its_licence_is_shown() {
    let server = Server::start().await;
    let admin = server.admin();
    admin
        .put("a", quota("default", "purchase", MODEL, 3))
        .await
        .expect_done();
    let mut node = Node::new(&server, "h1", "l40s-vgpu");
    let [first, second] = vgpus(&node).try_into().unwrap();
    node.configure(&format!(
        "[[attribution.vm]]\nvm = \"{}\"\ntenant = \"a\"\n",
        first.vm.unwrap()
    ));
    node.run().await;
    node.up(&admin).await;
    shown(
        &admin,
        "h1",
        &first.uuid,
        json!([MODEL, ["a"], false, "licensed"]),
    )
    .await;
    shown(
        &admin,
        "h1",
        &second.uuid,
        json!([MODEL, [], true, "unlicensed"]),
    )
    .await;
    used(&admin, 1).await;
    let of_host = admin.node("h1").await;
    let gpus = of_host["devices"].as_array().unwrap().iter();
    let gpus: Vec<_> = gpus
        .filter(|row| row["gpu_model"] == "nvidia.com/gpu")
        .collect();
    assert_eq!(gpus.len(), 2);
    for gpu in gpus {
        assert_eq!(
            (&gpu["partitioned"], &gpu["licence"]),
            (&json!(true), &Value::Null)
        );
    }
    let of_first = [("uuid", first.uuid.as_str())];
    let licensed =
        |scrape: &gpuquota_tests::scrape::Scrape| scrape.value("gpuquota_vgpu_licensed", &of_first);
    node.seen("licensed", |scrape| licensed(scrape) == Some(1.0))
        .await;

    // Both sides digest the licence alike: over some heartbeats nothing has to be healed by a report.
    let reports = async || node.scrape().await.value("gpuquota_reports_total", &[]);
    let before = reports().await;
    throughout("no report", BEATS, async || match reports().await {
        now if now == before => Ok(()),
        now => Err(format!("{before:?} {now:?}")),
    })
    .await;

    // Losing the licence is told; the VM holds its vGPU all the same.
    for (licence, word, metric) in [
        (Licence::Unlicensed, "unlicensed", Some(0.0)),
        (Licence::NoDriver, "unknown", None),
        (Licence::Licensed, "licensed", Some(1.0)),
    ] {
        node.edit(|scenario| scenario.license_vgpu(&first.uuid, licence, None));
        shown(
            &admin,
            "h1",
            &first.uuid,
            json!([MODEL, ["a"], false, word]),
        )
        .await;
        node.seen(word, |scrape| licensed(scrape) == metric).await;
    }
    used(&admin, 1).await;
    node.edit(|scenario| scenario.remove_vgpu(&first.uuid));
    used(&admin, 0).await;
    shown(&admin, "h1", &first.uuid, Value::Null).await;
    shown(
        &admin,
        "h1",
        &second.uuid,
        json!([MODEL, [], true, "unlicensed"]),
    )
    .await;
}

#[tokio::test]
async fn the_agents_own_list_shows_vms_and_licences() {
    let server = Server::start().await;
    let node = Node::new(&server, "h1", "l40s-vgpu");
    let [first, second] = vgpus(&node).try_into().unwrap();
    node.configure("[[attribution.vm]]\nvm = \"*\"\ntenant = \"a\"\n");
    let mut command = std::process::Command::new(program("gpuquota-agent"));
    command.args(["devices", "--json", "--dir"]).arg(&node.dir);
    command.arg("--nvml-library").arg(&node.library);
    command.env("GPUQUOTA_FAKE_NVML", &node.scenario);
    let output = command.output().unwrap();
    assert!(output.status.success());
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = told["devices"].as_array().unwrap().iter();
    let rows: Vec<_> = rows.filter(|row| row["kind"] == "vgpu").collect();
    assert_eq!(rows.len(), 2);
    for (vgpu, licence) in [(&first, "licensed"), (&second, "unlicensed")] {
        let row = rows.iter().find(|row| row["uuid"] == *vgpu.uuid).unwrap();
        assert_eq!(row["model"], "NVIDIA L40S-8Q");
        assert_eq!(row["gpu_model"], MODEL);
        assert_eq!(row["vm"], *vgpu.vm.as_ref().unwrap());
        assert_eq!(
            (&row["tenant"], &row["licence"]),
            (&json!("a"), &json!(licence))
        );
        assert_eq!(row["parent_uuid"], node.uuid(0));
        assert_eq!(
            (&row["memory_total_bytes"], &row["memory_used_bytes"]),
            (&json!(8_u64 << 30), &json!(0))
        );
    }
}

fn row(licence: LicenceState) -> DeviceState {
    DeviceState {
        key: Some(DeviceKey {
            vgpu_uuid: "v-1".to_owned(),
            ..DeviceKey::default()
        }),
        kind: DeviceKind::Vgpu.into(),
        health: DeviceHealth::Ok.into(),
        model: "NVIDIA L40S-8Q".to_owned(),
        gpu_model: MODEL.to_owned(),
        tenants: vec!["a".to_owned()],
        licence: licence.into(),
        ..DeviceState::default()
    }
}

fn heartbeat(number: u64, licence: Option<&str>) -> ToServer {
    let mut digest = HolderDigest::default();
    digest.push(DigestRow {
        key: "v-1",
        kind: "vgpu",
        gpu_model: MODEL,
        health: "ok",
        partitioned: false,
        unattributed: false,
        tenants: &["a"],
        licence,
    });
    ToServer::Heartbeat(Heartbeat {
        spool_id: "spool-1".to_owned(),
        last_number: number,
        holder_digest: digest.finish(),
        collect_age_ms: Some(10),
        read_after: None,
    })
}

/// A row that was lost on the way heals although only its licence differs; an agent that tells no licence agrees as it
/// always did.
#[tokio::test]
async fn a_lost_change_of_licence_heals_and_an_older_agent_is_understood() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut node = Session::of(&server, "h1").await;
    node.acked(full(1, vec![row(LicenceState::Unspecified)]))
        .await;
    node.send(heartbeat(1, None)).await;
    node.acked(full(2, vec![row(LicenceState::Licensed)])).await;
    shown(
        &admin,
        "h1",
        "v-1",
        json!([MODEL, ["a"], false, "licensed"]),
    )
    .await;
    node.send(heartbeat(2, Some("licensed"))).await;
    let nothing = Report {
        full: false,
        ..full(3, Vec::new())
    };
    node.acked(nothing).await;
    node.send(heartbeat(3, Some("unlicensed"))).await;
    match node.next().await {
        Ok(FromServer::SendFull(ask)) => assert!(ask.reason.contains("digest"), "{ask:?}"),
        other => panic!("{other:?}"),
    }
    node.acked(full(4, vec![row(LicenceState::Unlicensed)]))
        .await;
    shown(
        &admin,
        "h1",
        "v-1",
        json!([MODEL, ["a"], false, "unlicensed"]),
    )
    .await;
}
