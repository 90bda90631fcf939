//! The body of a lease: what its devices were called when it was granted, in every answer the same.

use gpuquota_core::Command;
use gpuquota_core::device::{DeviceKey, DeviceReport};
use gpuquota_core::limit::Limit;
use gpuquota_server::auth::Role;
use serde_json::{Value, json};

use crate::databases::both;
use crate::declared::{facts, gpu, quota};
use crate::licence::read;
use crate::rest::{Rest, token};
use crate::running::{Running, START, SetClock};

const SLICE: &str = "nvidia.com/mig-1g.10gb";

fn slice(ci: u32, model: &str, profile: &str) -> DeviceReport {
    DeviceReport {
        key: DeviceKey::mig("GPU-0", 1, ci).unwrap(),
        model: model.into(),
        profile: Some(profile.into()),
        ..gpu("GPU-0", SLICE, &[])
    }
}

async fn once(rest: &Rest, key: &str, body: &Value) -> (u16, String) {
    let admin = token(Role::Admin, &[], &[]);
    let request = http::Request::builder()
        .method("POST")
        .uri("/api/v1/leases")
        .header("authorization", format!("Bearer {admin}"))
        .header("idempotency-key", key);
    read(rest.send(request, &body.to_string()).await).await
}

// Model and profile of each device.
fn makes(answer: &str) -> Vec<(Value, Value)> {
    let lease: Value = serde_json::from_str(answer).unwrap();
    let devices = lease["devices"].as_array().unwrap().iter();
    devices
        .map(|it| (it["model"].clone(), it["profile"].clone()))
        .collect()
}

#[tokio::test]
async fn case_39_what_leased_devices_are_called_is_answered_alike_whatever_becomes_of_them() {
    for base in both("case_39_what_leased_devices_are_called_is_answered_alike") {
        let running = Running::of(&base, SetClock::new(START)).await;
        let rest = Rest::on(&running);
        let whole = quota("a", "default", "nvidia.com/gpu", Limit::Finite(2));
        let mut slices = quota("a", "default", SLICE, Limit::Finite(2));
        slices.name.quota_type = None;
        running
            .told([Command::SetQuota(whole), Command::SetQuota(slices)])
            .await;
        let devices = vec![
            gpu("GPU-1", "nvidia.com/gpu", &[]),
            slice(0, "H100 PCIe", "1g.10gb"),
            slice(1, "H100 SXM", "1g.10gb+me"),
        ];
        let product = devices[0].model.clone();
        running.reported("n0", facts(None, None), devices).await;
        let body = |model: &str, count: u32| json!({"tenant": "a", "region": "default", "gpu_model": model, "count": count});
        let one = once(&rest, "one", &body("nvidia.com/gpu", 1)).await;
        assert_eq!(one.0, 201, "{one:?}");
        assert_eq!(makes(&one.1), [(json!(product), Value::Null)]);
        let two = once(&rest, "two", &body(SLICE, 2)).await;
        assert_eq!(two.0, 201, "{two:?}");
        let pairs = [("H100 PCIe", "1g.10gb"), ("H100 SXM", "1g.10gb+me")];
        assert_eq!(
            makes(&two.1),
            pairs.map(|(model, profile)| (json!(model), json!(profile)))
        );

        // One GPU is called something else, the other one is gone with its instances.
        let renamed = DeviceReport {
            model: "Other".into(),
            ..gpu("GPU-1", "nvidia.com/gpu", &[])
        };
        running
            .reported("n0", facts(None, None), vec![renamed])
            .await;
        let again = async |running: &Running| {
            let rest = Rest::on(running);
            assert_eq!(once(&rest, "one", &body("nvidia.com/gpu", 1)).await, one);
            assert_eq!(once(&rest, "two", &body(SLICE, 2)).await, two);
            for (id, lease) in [(1, &one), (2, &two)] {
                let shown = rest.read(&format!("/api/v1/leases/{id}"), &[]).await;
                assert_eq!(shown.text, lease.1);
            }
        };
        again(&running).await;
        running.end().await;
        let running = Running::of(&base, SetClock::new(START)).await;
        again(&running).await;
        running.end().await;
    }
}
