//! The instance service (document 002): its example byte for byte, the figures, the limits, the table of its errors.

use std::collections::BTreeMap;

use axum::body::to_bytes;
use gpuquota_core::Command;
use gpuquota_core::command::NodeReport;
use gpuquota_core::device::{DeviceHealth, DeviceKey, DeviceReport};
use gpuquota_core::event::SilenceReason;
use gpuquota_core::id::{GpuModel, NodeName, Region, SessionId};
use gpuquota_core::node::NodeFacts;
use gpuquota_core::pool::{Accelerator, Inventory};
use gpuquota_server::auth::Role;
use serde_json::{Value, json};

use crate::directory::{cards, frozen, group, node, tenant};
use crate::licence::compact;
use crate::rest::{Rest, token};
use crate::running::{Running, START, SetClock};

const RESOURCES: &str = "/ai/openapi/v2/instance-service/resources";
const M40: &str = "?resourceGroup=TeslaM40&acceleratorType=gpu";
const MIB: u64 = 1 << 20;

async fn ask(rest: &Rest, method: &str, target: &str, token: &str) -> (u16, String) {
    let request = http::Request::builder().method(method).uri(target);
    let answer = rest.send(request.header("token", token), "").await;
    assert_eq!(answer.headers()["content-type"], "application/json");
    let status = answer.status().as_u16();
    let bytes = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

async fn resources(rest: &Rest, query: &str, token: &str) -> Value {
    let (status, text) = ask(rest, "GET", &format!("{RESOURCES}{query}"), token).await;
    assert_eq!(status, 200, "{text}");
    let mut body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["code"], "0", "{text}");
    body["data"].take()
}

fn session(node: &str) -> Command {
    Command::OpenSession {
        node: NodeName::new(node).unwrap(),
        default_region: Region::new("US").unwrap(),
        boot_id: "boot".into(),
        agent_version: "1".into(),
    }
}

fn report(name: &str, gpus: usize, figures: Option<(u32, u64)>) -> Command {
    let devices = (0..gpus).map(|at| DeviceReport {
        key: DeviceKey::gpu(&format!("GPU-{name}-{at}")).unwrap(),
        health: DeviceHealth::Ok,
        model: "Tesla M40".into(),
        gpu_model: GpuModel::new("nvidia.com/gpu").unwrap(),
        profile: None,
        memory_total_bytes: None,
        partitioned: at == 0,
        tenants: Vec::new(),
        unattributed: false,
        licence: None,
        licence_expires_at: None,
        vm: None,
        parent: None,
        numa: None,
        nvlink: None,
    });
    let instance = DeviceReport {
        key: DeviceKey::mig(&format!("GPU-{name}-0"), 1, 0).unwrap(),
        partitioned: false,
        ..devices.clone().next().unwrap()
    };
    Command::Report(NodeReport {
        node: NodeName::new(name).unwrap(),
        session: SessionId(1),
        spool: "spool".into(),
        number: 1,
        age_ms: Some(0),
        heard_at: None,
        read_after: None,
        full: true,
        facts: figures.map(|(cpu_cores, memory_bytes)| NodeFacts {
            cpu_cores: Some(cpu_cores),
            memory_bytes: Some(memory_bytes),
            nvml: "ok".into(),
            ..NodeFacts::default()
        }),
        devices: devices.chain([instance]).collect(),
        gone: Vec::new(),
    })
}

fn declared(cpu_cores: u32, memory: u64, gpus: u32) -> Option<Inventory> {
    Some(Inventory {
        cpu_cores: Some(cpu_cores),
        memory_bytes: Some(memory),
        gpu_product: None,
        gpus: Some(gpus),
    })
}

#[tokio::test]
async fn the_documents_example_is_answered_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    let rest = Rest::on(&running);
    running.has([tenant("a", 1), session("n1")]).await;
    // The node's group is its GPU product without blanks.
    running
        .has([report("n1", 2, Some((40, 31_888 * MIB + 5)))])
        .await;
    let expected = compact(
        r#"{"code":"0",
 "msg":"success",
 "data":
     {"id":null,
     "cpuNumber":40,
     "mluLimits":0,
     "dcuLimits":0,
     "nvLimits":0,
     "gpuNumber":2,
     "memorySize":31888,
     "resourceGroup":"TeslaM40",
     "userName":null,
     "nodeNumber":1,
     "maxTime":"unlimited"}
}"#,
    );
    let target = format!("{RESOURCES}{M40}&unknown=1&unknown=2");
    for token in [
        token(Role::Viewer, &["a"], &[]),
        token(Role::Admin, &[], &[]),
    ] {
        assert_eq!(
            ask(&rest, "GET", &target, &token).await,
            (200, expected.clone())
        );
        let (status, head) = ask(&rest, "HEAD", &target, &token).await;
        assert_eq!(status, 200, "{head}");
    }
    running.end().await;
}

#[tokio::test]
async fn figures_are_the_largest_nodes_reported_before_declared() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    let rest = Rest::on(&running);
    let admin = token(Role::Admin, &[], &[]);
    let figures = async |accelerator: &str| {
        let query = format!("?acceleratorType={accelerator}&resourceGroup=g");
        let data = resources(&rest, &query, &admin).await;
        ["gpuNumber", "cpuNumber", "memorySize", "nodeNumber"]
            .map(|key| data[key].as_u64().unwrap())
    };
    running.has([group("g", Some(93_784), None)]).await;
    assert_eq!(figures("gpu").await, [0, 0, 0, 0], "nothing known");
    let nodes = [
        node("small", &["g"], declared(8, 64 * MIB, 4)),
        node("large", &["g"], declared(4, 99 * MIB, 8)),
        node("empty", &["g"], None),
        node("else", &["h"], declared(640, 640 * MIB, 16)),
    ];
    running.has(nodes).await;
    assert_eq!(figures("gpu").await, [8, 4, 99, 0], "declared, none up");
    for accelerator in ["dcu", "MLU"] {
        assert_eq!(
            figures(accelerator).await,
            [0, 4, 99, 0],
            "agents see NVIDIA only"
        );
    }
    running
        .has([session("large"), report("large", 3, None)])
        .await;
    assert_eq!(
        figures("gpu").await,
        [4, 8, 64, 1],
        "the other is larger now"
    );
    running
        .has([session("small"), report("small", 5, Some((2, 7 * MIB - 1)))])
        .await;
    assert_eq!(figures("GPU").await, [5, 2, 6, 2], "the agent knows better");
    running
        .has([Command::MarkSilent {
            node: NodeName::new("large").unwrap(),
            session: SessionId(1),
            reason: SilenceReason::Timeout,
        }])
        .await;
    assert_eq!(
        figures("gpu").await,
        [5, 2, 6, 1],
        "a silent node is not up"
    );
    let data = resources(&rest, "?acceleratorType=gpu&resourceGroup=g", &admin).await;
    assert_eq!(data["maxTime"], "1-02:03:04");
    running.end().await;
}

#[tokio::test]
async fn limits_are_the_callers_the_smallest_of_several_and_0_for_none() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    let rest = Rest::on(&running);
    let tenants = ["a", "b", "c"];
    for (tenant_name, number) in tenants.iter().zip(1..) {
        running.has([tenant(tenant_name, number)]).await;
    }
    let commands = [
        group("g", None, None),
        group("closed", None, Some(&["a", "b"])),
        cards("g", None, Accelerator::Gpu, 6),
        cards("g", Some("a"), Accelerator::Gpu, 8),
        cards("g", Some("b"), Accelerator::Gpu, 7),
        cards("g", Some("a"), Accelerator::Dcu, 2),
        cards("g", None, Accelerator::Mlu, 1),
        cards("closed", Some("a"), Accelerator::Gpu, 5),
        cards("closed", Some("c"), Accelerator::Gpu, 1),
    ];
    running.has(commands).await;
    for (of_group, callers, expected) in [
        ("g", &["a"][..], [8, 2, 1]),
        ("g", &["b"], [7, 0, 1]),
        ("g", &["c"], [6, 0, 1]),
        ("g", &["a", "b"], [7, 2, 1]),
        ("g", &["a", "b", "c"], [6, 2, 1]),
        ("closed", &["a"], [5, 0, 0]),
        ("closed", &["b"], [0, 0, 0]),
        ("closed", &["a", "c"], [5, 0, 0]),
    ] {
        let caller = token(Role::TenantAdmin, callers, &[]);
        let query = format!("?acceleratorType=mlu&resourceGroup={of_group}");
        let data = resources(&rest, &query, &caller).await;
        let limits = ["nvLimits", "dcuLimits", "mluLimits"].map(|key| data[key].clone());
        assert_eq!(
            limits,
            expected.map(|limit| json!(limit)),
            "{of_group} {callers:?}"
        );
    }
    running.end().await;
}

#[tokio::test]
async fn every_error_has_its_code_in_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    let rest = Rest::on(&running);
    let fill = [
        tenant("a", 1),
        tenant("ice", 2),
        frozen("ice", true),
        node("n1", &["TeslaM40"], None),
        group("closed", None, Some(&["b", "ice"])),
    ];
    running.has(fill).await;
    let (a, ice) = (
        token(Role::Viewer, &["a"], &[]),
        token(Role::TenantAdmin, &["ice"], &[]),
    );
    let (both, admin) = (
        token(Role::Viewer, &["a", "ice"], &[]),
        token(Role::Admin, &["ice"], &[]),
    );
    let nobody = token(Role::Viewer, &[], &[]);
    let gpu = "acceleratorType=gpu";
    let cases: BTreeMap<&str, Vec<(&String, String)>> = BTreeMap::from([
        (
            "0",
            vec![
                (&a, M40.into()),
                (&both, M40.into()),
                (&admin, M40.into()),
                (&admin, format!("?resourceGroup=closed&{gpu}")),
                (&both, format!("?resourceGroup=closed&{gpu}")),
            ],
        ),
        (
            "10003",
            vec![
                (&a, String::new()),
                (&a, format!("?{gpu}")),
                (&a, format!("?resourceGroup=&{gpu}")),
                (&a, "?resourceGroup=TeslaM40".into()),
                (&a, "?resourceGroup=TeslaM40&acceleratorType=".into()),
                (&a, "?resourceGroup=none&acceleratorType=".into()),
                (&a, "?resourceGroup=x&resourceGroup=y".into()),
                (&a, "?acceleratorType=x&acceleratorType=y".into()),
                (&a, "?resourcegroup=TeslaM40&acceleratortype=gpu".into()),
            ],
        ),
        (
            "10004",
            vec![
                (&a, format!("{M40}&{gpu}")),
                (&a, format!("{M40}&resourceGroup=TeslaM40")),
                (&a, "?resourceGroup=TeslaM40&acceleratorType=tpu".into()),
                (&a, format!("?resourceGroup=teslam40&{gpu}")),
                (&a, format!("?resourceGroup=Tesla%20M40%00&{gpu}")),
                (&a, format!("?resourceGroup=%FF&{gpu}")),
                (&admin, format!("?resourceGroup=none&{gpu}")),
                (&a, "?resourceGroup=closed&acceleratorType=tpu".into()),
            ],
        ),
        (
            "10007",
            vec![
                (&ice, M40.into()),
                (&ice, String::new()),
                (&ice, format!("?resourceGroup=none&{gpu}")),
            ],
        ),
        (
            "10009",
            vec![
                (&a, format!("?resourceGroup=closed&{gpu}")),
                (&nobody, format!("?resourceGroup=closed&{gpu}")),
                (&nobody, M40.into()),
            ],
        ),
    ]);
    for (code, asked) in cases {
        for (token, query) in asked {
            let (status, text) = ask(&rest, "GET", &format!("{RESOURCES}{query}"), token).await;
            let body: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(
                (status, &body["code"]),
                (200, &json!(code)),
                "{query} {text}"
            );
            let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["code", "msg", "data"]);
            assert!(body["msg"].is_string() && body["data"].is_null() == (code != "0"));
        }
    }
    for (method, path, status, code) in [
        ("POST", RESOURCES, 405, "10004"),
        (
            "GET",
            "/ai/openapi/v2/instance-service/resources/",
            404,
            "10004",
        ),
        ("GET", "/ai/openapi/v2/other", 404, "10004"),
    ] {
        let (given, text) = ask(&rest, method, path, &a).await;
        let body: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (given, &body["code"], &body["data"]),
            (status, &json!(code), &Value::Null)
        );
    }
    running.end().await;
}

#[tokio::test]
async fn case_21_only_a_bare_token_in_its_own_header_counts() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    let rest = Rest::on(&running);
    running.has([node("n1", &["TeslaM40"], None)]).await;
    let good = token(Role::Viewer, &["a"], &[]);
    let bearer = format!("Bearer {good}");
    let example = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJjb21wdXRlVXNlciI6InNsdXJtdGVzdCIsImFjY291bnRTdGF0dXMiOiJUcmlhbCIsImNyZWF0b3IiOiJhYyIsInJvbGUiOiIxIiwiZXhwaXJlVGltZSI6IjE2ODYxMjMzNDY1NjgiLCJjbHVzdGVySWQiOiIxMTExMiIsImludm9rZXIiOiI2MDQ4Y2U3YmExNWMyYWYyZThjZWMxMjk5MWVjMTNjZiIsInVzZXIiOiJzbHVybXRlc3QiLCJ1c2VySWQiOiIxMTY1NTA0ODU0MSJ9.iQUBzN32jiCeeFuJ9lFS_XjBpxenEEupQRiyA3Ef334";
    for (headers, code) in [
        (vec![("token", good.as_str())], "0"),
        (
            vec![("Token", &good), ("authorization", "Bearer wrong")],
            "0",
        ),
        (vec![], "10008"),
        (vec![("authorization", bearer.as_str())], "10008"),
        (vec![("x-auth-token", &good)], "10008"),
        (vec![("token", &bearer)], "10008"),
        (vec![("token", "")], "10008"),
        (vec![("token", &good), ("token", &good)], "10008"),
        (vec![("token", example)], "10008"),
    ] {
        let mut request = http::Request::get(format!("{RESOURCES}{M40}"));
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        let answer = rest.send(request, "").await;
        assert_eq!(answer.status(), 200);
        let bytes = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        let body: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(body["code"], code, "{headers:?}");
    }
    running.end().await;
}
