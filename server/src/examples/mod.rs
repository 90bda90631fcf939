//! `load-examples`: brings a ledger into the state that the five documents' examples speak of, by the REST API alone.
//!
//! What only an agent can say, such as which node is up and what runs there, is not pretended. Loading twice changes
//! nothing more.

mod caller;

use anyhow::{Context as _, bail};
use http::Method;
use serde_json::{Value, json};

pub use caller::Caller;

/// Method, path and body of each call; a person can send them with curl.
const CALLS: &str = include_str!("../../examples.json");
const QUOTAS: &str = "/api/v1/licenses/admin/quotas/";
const SEATS_USED: u64 = 75;
const SEAT_TTL_S: u32 = 30 * 24 * 60 * 60;

/// Loads all of it.
///
/// # Errors
/// With the call that was refused and why.
pub async fn load(caller: &Caller) -> anyhow::Result<()> {
    let calls: Vec<(String, String, Value)> =
        serde_json::from_str(CALLS).context("the examples are no JSON")?;
    for (method, path, body) in &calls {
        let method = Method::from_bytes(method.as_bytes()).context("no method")?;
        caller.call(&method, path, Some(body)).await?;
    }
    load_licences(caller).await
}

// The quota of document 003 has ended long ago; its licences were in use before.
async fn load_licences(caller: &Caller) -> anyhow::Result<()> {
    let path = format!("{QUOTAS}?tenant=2&software_product=1");
    let listed = caller.call(&Method::GET, &path, None).await?;
    if listed["data"]["count"].as_u64().unwrap_or(0) > 0 {
        return Ok(());
    }
    let body = json!({ "tenant": 2, "software_product": 1, "max_licenses": 100 });
    let created = caller.call(&Method::POST, QUOTAS, Some(&body)).await?;
    let Some(id) = created["data"]["id"].as_u64() else {
        bail!("POST {QUOTAS} answered no id: {created}");
    };
    for number in 1..=SEATS_USED {
        let body = json!({
            "tenant": "demo-company",
            "software_product": 1,
            "owner": format!("user-{number}"),
            "ttl_seconds": SEAT_TTL_S,
        });
        caller
            .call(&Method::POST, "/api/v1/seats", Some(&body))
            .await?;
    }
    let body = json!({ "expires_at": "2024-12-31T23:59:59Z" });
    let path = format!("{QUOTAS}{id}/");
    caller.call(&Method::PATCH, &path, Some(&body)).await?;
    Ok(())
}
