//! The quotas of the GPU quota document's examples, and a few that make the story lively.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::client::Rest;
use crate::world::QuotaKey;

const GPU: &str = "nvidia.com/gpu";

/// Sets them all, in the document's order.
pub(crate) async fn load(rest: &Rest) -> Result<()> {
    let rows = [
        (
            "platform-operator",
            json!({"region": "US", "quota_source": "purchase", "gpu_model": GPU, "num": 1}),
        ),
        (
            "platform-operator",
            json!({"region": "US", "quota_source": "purchase", "gpu_model": "nvidia.com/mig-1c10g", "num": 1}),
        ),
        (
            "test1015",
            json!({"region": "US", "quota_source": "assign", "gpu_model": "tyui-3", "num": 2, "id": 212}),
        ),
        (
            "zjw1029",
            json!({"region": "US", "quota_source": "assign", "gpu_model": GPU, "num": 1, "id": 214,
                "node_name": ["gpu02"]}),
        ),
        ("gpu-operator", document_put()),
        ("vision-lab", vision_lab(VISION_LAB_LIMIT)),
        (
            "speech-lab",
            json!({"region": "US", "quota_source": "assign", "gpu_model": "nvidia.com/mig-3g.40gb", "num": 2}),
        ),
    ];
    for (tenant, body) in rows {
        let answer = rest.put_quota(tenant, &body).await?;
        if (answer.status, &answer.body) != (200, &json!({"code": 0})) {
            bail!("PUT {tenant} {body}: {answer:?}");
        }
    }
    Ok(())
}

/// The document's own PUT example, to the letter. It ended in 2025: listed, and granting nothing.
pub(crate) fn document_put() -> Value {
    json!({"region": "TW", "quota_source": "purchase", "gpu_model": GPU, "num": 1, "expired_at": "2025-12-03", "id": 212})
}

/// What vision-lab may use at the beginning.
pub(crate) const VISION_LAB_LIMIT: u32 = 4;

/// vision-lab's quota with another limit.
pub(crate) fn vision_lab(num: u32) -> Value {
    json!({"region": "US", "quota_source": "purchase", "gpu_model": GPU, "num": num})
}

/// The key of a quota in region US.
pub(crate) fn key(tenant: &str, source: &str, quota_type: &str, gpu_model: &str) -> QuotaKey {
    QuotaKey {
        tenant: tenant.to_owned(),
        region: "US".to_owned(),
        source: source.to_owned(),
        quota_type: quota_type.to_owned(),
        gpu_model: gpu_model.to_owned(),
    }
}
