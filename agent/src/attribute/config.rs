//! The table `[attribution]` of the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::creators::CreatorsConfig;
use super::rule::Rule;
use super::vm::VmRule;

/// By which evidence processes are given to tenants.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttributionConfig {
    /// Tried in their order; the first that matches decides.
    #[serde(rename = "rule")]
    pub rules: Vec<Rule>,
    /// Whose virtual machines are, and with them their vGPUs. Tried in their order.
    #[serde(rename = "vm")]
    pub vms: Vec<VmRule>,
    /// Whether the table of registered processes is consulted, before the rules.
    pub registered: bool,
    /// The driver's own daemons. They hold nothing for anybody, but only as the host's own process of a system user.
    pub system: SystemDaemons,
    /// Who can be asked about containers, pods and jobs.
    pub creators: CreatorsConfig,
    /// What quotas call a product name, MIG profile or vGPU type, where it is not `nvidia.com/gpu`, `nvidia.com/mig-<profile>`
    /// and the type's name.
    pub gpu_model: BTreeMap<String, String>,
}

/// How the driver's own daemons are known.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SystemDaemons {
    /// Where they are on this host.
    pub executables: Vec<PathBuf>,
    /// Under which users they run, besides root; those that do not exist are ignored.
    pub users: Vec<String>,
}

impl Default for SystemDaemons {
    fn default() -> Self {
        let paths = [
            "/usr/bin/nvidia-persistenced",
            "/usr/bin/nvidia-cuda-mps-control",
            "/usr/bin/nvidia-cuda-mps-server",
            "/usr/bin/nv-fabricmanager",
            "/usr/bin/nv-hostengine",
            "/usr/bin/nvidia-vgpud",
            "/usr/bin/nvidia-vgpu-mgr",
            "/usr/bin/dcgm-exporter",
            "/usr/bin/Xorg",
            "/usr/lib/xorg/Xorg",
            "/usr/libexec/Xorg",
        ];
        Self {
            executables: paths.map(PathBuf::from).into(),
            users: vec!["nvidia-persistenced".to_owned()],
        }
    }
}
