//! What a person can try beside the running demo: commands that work when pasted.

use anyhow::{Context as _, Result};

use crate::agent::THIS_MACHINE;
use crate::cluster::Cluster;
use crate::folder::{Folder, shown};

/// Where own workloads are suggested.
const OWN_NODE: &str = "gpu01";
const OWN_GPU: &str = "5";

/// A command with what it is for.
#[derive(Clone, Debug)]
pub(crate) struct Suggestion {
    /// What it shows.
    pub(crate) what: &'static str,
    /// For a shell.
    pub(crate) command: String,
    /// What its output must contain, for the check.
    pub(crate) shows: &'static str,
}

/// The commands. The token is read from a file of `folder`.
pub(crate) fn suggestions(cluster: &Cluster, folder: &Folder) -> Result<Vec<Suggestion>> {
    let server = cluster.server()?;
    let url = &server.rest.url;
    let proxied = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
    let proxied = proxied.iter().any(|name| std::env::var_os(name).is_some());
    let curl = if proxied {
        "curl -s --noproxy '*'"
    } else {
        "curl -s"
    };
    let token = shown(&token_file(folder));
    let called = format!("{curl} -H \"Authorization: Bearer $(cat {token})\"");
    let own = cluster.agents.get(OWN_NODE).context("the node is gone")?;
    let cut = cluster.agents.get("gpu-a100").context("the node is gone")?;
    let (agent, fake) = (
        shown(&cluster.programs.agent),
        shown(&cluster.programs.fake),
    );
    let gpu_operator = r#"-d '{"region": "TW", "quota_source": "purchase", "gpu_model": "nvidia.com/gpu", "id": 212"#;
    Ok(vec![
        Suggestion {
            what: "all quotas",
            command: format!("{called} {url}/api/v1/quota/user-quotas"),
            shows: "\"platform-operator\"",
        },
        Suggestion {
            what: "give gpu-operator three GPUs in region TW",
            command: format!(
                "{called} -X PUT {url}/api/v1/quotas/gpu-operator {gpu_operator}, \"num\": 3}}'"
            ),
            shows: "{\"code\":0}",
        },
        Suggestion {
            what: "release it; the second time there is none",
            command: format!(
                "{called} -X DELETE {url}/api/v1/quotas/gpu-operator {gpu_operator}}}'"
            ),
            shows: "{\"code\":0}",
        },
        Suggestion {
            what: "use by the server's metrics, and what the agent of gpu01 sees",
            command: format!(
                "{curl} {} {} | grep -E '^gpuquota_(quota_used|violations|tenant_devices)'",
                server.metrics_url, own.metrics_url
            ),
            shows: "gpuquota_quota_used{",
        },
        Suggestion {
            what: "the GPUs and MIG instances of a node, as its agent sees them",
            command: format!(
                "{}{agent} devices --dir {}",
                cut.shell_variables(),
                shown(&cut.dir)
            ),
            shows: "1g.10gb",
        },
        Suggestion {
            what: "a workload of your own; `kill $!` ends it",
            command: format!(
                "sleep 600 & {agent} register --dir {} --pid $! --tenant vision-lab && \
                 {fake} --scenario {} add-process --gpu {OWN_GPU} --pid $!",
                shown(&own.dir),
                shown(own.scenario()?)
            ),
            shows: "",
        },
    ])
}

/// What is printed once everything runs.
pub(crate) fn introduction(cluster: &Cluster, folder: &Folder) -> Result<String> {
    let server = cluster.server()?;
    let mut text = format!(
        "gpuquota runs at {}\nadmin token (also in {}):\n{}\nlogs: {}\n\nTry in another terminal:\n",
        server.rest.url,
        shown(&token_file(folder)),
        server.rest.token,
        shown(&folder.logs())
    );
    for Suggestion { what, command, .. } in suggestions(cluster, folder)? {
        text.push_str(&format!("\n# {what}\n{command}\n"));
    }
    if let Some(agent) = cluster.agents.get(THIS_MACHINE) {
        text.push_str(&format!(
            "\n# this machine's own GPUs are node {THIS_MACHINE}; give a process on them, PID, to a tenant\n\
             {} register --dir {} --tenant vision-lab --pid PID\n",
            shown(&cluster.programs.agent),
            shown(&agent.dir)
        ));
    }
    Ok(text)
}

/// Writes the token to where the commands read it.
pub(crate) fn write_token(cluster: &Cluster, folder: &Folder) -> Result<()> {
    let path = token_file(folder);
    std::fs::write(&path, format!("{}\n", cluster.server()?.rest.token))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn token_file(folder: &Folder) -> std::path::PathBuf {
    folder.at("token")
}
