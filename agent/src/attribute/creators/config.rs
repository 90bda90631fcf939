//! The tables `[attribution.creators.*]`: who can be asked about containers, pods and jobs.

use std::path::PathBuf;

use serde::Deserialize;

use crate::attribute::ConfigError;

/// Who can be asked; nobody by default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CreatorsConfig {
    /// Docker Engine.
    pub docker: RuntimeTable,
    /// Podman as root.
    pub podman: RuntimeTable,
    /// containerd or CRI-O through the Kubernetes container runtime interface.
    pub cri: RuntimeTable,
    /// The kubelet.
    pub kubelet: KubeletTable,
    /// Slurm.
    pub slurm: SlurmTable,
}

/// A container runtime with an API on a Unix socket.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimeTable {
    /// Its socket; root or the agent's own user must answer there.
    pub socket: Option<PathBuf>,
    /// Whether names and labels are evidence: whoever may create containers or pods chooses them.
    pub trust_labels: bool,
}

/// The kubelet's pod-resources service, for nodes where the runtime cannot be asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubeletTable {
    /// Its socket.
    pub pod_resources: Option<PathBuf>,
    /// Where the kubelet keeps a folder `NAMESPACE_NAME_UID` for each pod.
    pub pod_logs: PathBuf,
}

impl Default for KubeletTable {
    fn default() -> Self {
        Self {
            pod_resources: None,
            pod_logs: "/var/log/pods".into(),
        }
    }
}

/// How Slurm is asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlurmTable {
    /// Program and arguments that print `USER ACCOUNT` of the job `{job}`; empty: none.
    pub job_command: Vec<String>,
}

impl CreatorsConfig {
    /// Whether names and labels of some runtime's containers count.
    pub(in crate::attribute) fn trusts_labels(&self) -> bool {
        let runtimes = [&self.docker, &self.podman, &self.cri];
        let trusted = |table: &&RuntimeTable| table.socket.is_some() && table.trust_labels;
        runtimes.iter().any(trusted)
    }

    /// What is wrong in itself.
    pub(in crate::attribute) fn check(&self) -> Result<(), ConfigError> {
        let refuse = |table, problem| Err(ConfigError::Creators { table, problem });
        for (table, path) in [
            ("attribution.creators.docker", &self.docker.socket),
            ("attribution.creators.podman", &self.podman.socket),
            ("attribution.creators.cri", &self.cri.socket),
            ("attribution.creators.kubelet", &self.kubelet.pod_resources),
        ] {
            if path.as_ref().is_some_and(|path| !path.is_absolute()) {
                return refuse(table, "the socket must be an absolute path");
            }
        }
        if !self.kubelet.pod_logs.is_absolute() {
            return refuse(
                "attribution.creators.kubelet",
                "pod_logs must be an absolute path",
            );
        }
        if let Some(program) = self.slurm.job_command.first() {
            let table = "attribution.creators.slurm";
            if !program.starts_with('/') {
                return refuse(table, "job_command must begin with an absolute path");
            }
            if !self
                .slurm
                .job_command
                .iter()
                .any(|part| part.contains("{job}"))
            {
                return refuse(table, "job_command must name the job as {job}");
            }
        }
        Ok(())
    }
}
