//! `join-token`: a token of the system's randomness, of which the ledger is told the digest only.

use std::path::Path;

use anyhow::Context as _;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use gpuquota_core::id::NodeName;
use gpuquota_proto::pinned::Pin;
use gpuquota_proto::tls::chain;
use http::Method;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::config::Config;
use crate::examples::Caller;
use crate::pki::key_pin;

/// A token, and how to use it.
#[derive(Debug)]
pub struct Made {
    /// 32 random bytes, base64url.
    pub token: String,
    /// For a person.
    pub how: String,
}

/// Makes a token for `node`.
///
/// # Errors
/// When the directory holds no usable server, or it does not answer.
pub async fn join_token(dir: &Path, node: &NodeName) -> anyhow::Result<Made> {
    let config = Config::read(dir)?;
    if !config.agents.ca_key.exists() {
        anyhow::bail!(
            "{} is not there, so this server signs nothing; make the certificate of {node} with your own authority",
            config.agents.ca_key.display()
        );
    }
    // Of the one that signs now: a running server shows a chain that ends in it, and in the other one while two are trusted.
    let pin = key_pin(&config.agents.ca_key).context("agents.ca_key is no key")?;
    let trusted = chain(&config.agents.ca)?;
    if !trusted.iter().any(|der| Pin::of(der) == Ok(pin)) {
        anyhow::bail!("agents.ca_key is the key of no certificate in agents.ca");
    }
    let token = BASE64URL_NOPAD.encode(&rand::random::<[u8; 32]>());
    let body = json!({
        "sha256": HEXLOWER.encode(&Sha256::digest(token.as_bytes())),
        "ttl_seconds": config.agents.join_token_life.seconds(),
    });
    let caller = Caller::of_dir(dir).await?;
    let path = format!("/api/v1/nodes/{node}/join-tokens");
    let made = caller.call(&Method::POST, &path, Some(&body)).await;
    caller.close().await;
    let made = made?;
    let until = made["until"].as_str().unwrap_or_default();
    let url = &config.agents.url;
    let how = format!(
        "The token counts once, for node {node}, until {until}. On the node, with the token on standard input:\n\
         gpuquota-agent join --server {url} --token - --ca-hash {pin} --dir /var/lib/gpuquota-agent"
    );
    Ok(Made { token, how })
}
