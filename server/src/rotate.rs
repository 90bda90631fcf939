//! `ca`: asks the server what nodes have, and takes a step.

use std::env;
use std::path::Path;

use anyhow::Context as _;
use gpuquota_core::id::Timestamp;
use http::Method;
use serde_json::Value;

use crate::cli::{Ca, CaStep};
use crate::config::Config;
use crate::examples::Caller;
use crate::folder_owner::become_owner;
use crate::rotation::{Asked, Known, Step, done, show, take};

/// Does it, and tells what it did.
///
/// # Errors
/// When the directory holds no usable server, the server does not answer, or the step is refused.
pub async fn rotate(command: Ca, now: Timestamp) -> anyhow::Result<String> {
    let (args, step, from) = match command {
        Ca::Show { dir } => {
            become_owner(&dir, env::args_os().skip(1))?;
            let nodes = nodes(&dir).await?;
            return Ok(show(&dir, &Config::read(&dir)?, &nodes, now)?);
        }
        Ca::Prepare { step, from } => (step, Step::Prepare, from),
        Ca::Trust(args) => (args, Step::Trust, None),
        Ca::Issue(args) => (args, Step::Issue, None),
        Ca::Finish(args) => (args, Step::Finish, None),
        Ca::Rollback(args) => (args, Step::Rollback, None),
    };
    let CaStep {
        dir,
        force,
        renew_within,
        reason,
    } = args;
    become_owner(&dir, env::args_os().skip(1))?;
    let within = renew_within.map(|seconds| seconds.saturating_mul(1000));
    let asked = Asked {
        step,
        force,
        reason,
        renew_within_ms: within.map(u64::try_from).transpose()?,
        from,
    };
    let config = Config::read(&dir)?;
    let kept = take(&dir, &config, &asked, &nodes(&dir).await?, now)?;
    Ok(done(&kept, &config))
}

async fn nodes(dir: &Path) -> anyhow::Result<Vec<Known>> {
    let caller = Caller::of_dir(dir).await?;
    let path = "/api/v1/authority/nodes";
    let answer = caller.call(&Method::GET, path, None).await;
    caller.close().await;
    let answer = answer?;
    let nodes = answer["nodes"].as_array();
    let nodes = nodes.context("the server says nothing of its nodes")?;
    Ok(nodes.iter().map(known).collect())
}

fn known(node: &Value) -> Known {
    let pin = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
    let trusts = node["trusts"].as_array();
    Known {
        node: node["node"].as_str().unwrap_or_default().to_owned(),
        certificate_by: pin(&node["certificate_by"]),
        given_by: pin(&node["given_by"]),
        trusts: trusts.map(|pins| pins.iter().filter_map(pin).collect()),
    }
}
