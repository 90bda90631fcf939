//! The table `[attribution]` of the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::pattern::{Pattern, PatternError, is_tenant_name};
use super::vm::{VmRule, VmRuleError};

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

/// One rule: exactly one of `slice`, `unit`, `user`, `uid` and `uid_range`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// A systemd slice around the process, e.g. `tenant-{tenant}.slice`, or a name with `tenant` beside it.
    pub slice: Option<String>,
    /// The systemd service or scope of the process, e.g. `gpu-job-{tenant}@*.service`.
    pub unit: Option<String>,
    /// A user's name, for its real user id.
    pub user: Option<String>,
    /// A real user id.
    pub uid: Option<u32>,
    /// First and last real user id.
    pub uid_range: Option<[u32; 2]>,
    /// Whose the process is, where the pattern does not say.
    pub tenant: Option<String>,
}

/// Why a configuration is refused. `number` counts the rules from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// None or several of the five.
    #[error(
        "attribution rule {number} needs exactly one of slice, unit, user, uid, uid_range; it has {found}"
    )]
    NotOne {
        /// Which rule.
        number: usize,
        /// How many it has.
        found: usize,
    },
    /// A bad pattern.
    #[error("attribution rule {number}: {source}")]
    Pattern {
        /// Which rule.
        number: usize,
        /// What is wrong.
        source: PatternError,
    },
    /// A rule by user without a tenant.
    #[error("attribution rule {number} needs tenant = \"…\"")]
    NoTenant {
        /// Which rule.
        number: usize,
    },
    /// No tenant can be called so.
    #[error(
        "attribution rule {number}: {name:?} is no tenant name (1 to 255 of A-Z a-z 0-9 . _ @ -)"
    )]
    TenantName {
        /// Which rule.
        number: usize,
        /// The name.
        name: String,
    },
    /// First above last.
    #[error("attribution rule {number}: uid_range is [first, last], and {first} is above {last}")]
    Range {
        /// Which rule.
        number: usize,
        /// First uid.
        first: u32,
        /// Last uid.
        last: u32,
    },
    /// A bad entry of a VM.
    #[error(transparent)]
    Vm(#[from] VmRuleError),
    /// A name that the server takes from nobody; it would refuse every report.
    #[error(
        "gpu_model: {0:?} must stand for 1 to 253 characters without control characters or blanks at the ends"
    )]
    GpuModel(String),
}

/// What a rule looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Slice(Pattern),
    Unit(Pattern),
    User(String),
    Uids(u32, u32),
}

/// A checked rule. `tenant` is absent where the pattern captures it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CheckedRule {
    pub(super) test: Test,
    pub(super) tenant: Option<String>,
}

impl Rule {
    pub(super) fn check(&self, number: usize) -> Result<CheckedRule, ConfigError> {
        let fixed = self.tenant.is_some();
        let pattern = |source| ConfigError::Pattern { number, source };
        let mut tests = Vec::with_capacity(1);
        if let Some(text) = &self.slice {
            tests.push(Test::Slice(Pattern::slice(text, fixed).map_err(pattern)?));
        }
        if let Some(text) = &self.unit {
            tests.push(Test::Unit(Pattern::unit(text, fixed).map_err(pattern)?));
        }
        if let Some(user) = &self.user {
            tests.push(Test::User(user.clone()));
        }
        if let Some(uid) = self.uid {
            tests.push(Test::Uids(uid, uid));
        }
        if let Some([first, last]) = self.uid_range {
            if first > last {
                return Err(ConfigError::Range {
                    number,
                    first,
                    last,
                });
            }
            tests.push(Test::Uids(first, last));
        }
        let found = tests.len();
        let (Some(test), 1) = (tests.pop(), found) else {
            return Err(ConfigError::NotOne { number, found });
        };
        match (&test, &self.tenant) {
            (Test::User(_) | Test::Uids(..), None) => Err(ConfigError::NoTenant { number }),
            (_, Some(name)) if !is_tenant_name(name) => Err(ConfigError::TenantName {
                number,
                name: name.clone(),
            }),
            _ => Ok(CheckedRule {
                test,
                tenant: self.tenant.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_error(text: &str) -> Option<ConfigError> {
        let config: AttributionConfig = toml::from_str(text).unwrap();
        let checked = config
            .rules
            .iter()
            .zip(1..)
            .map(|(rule, number)| rule.check(number));
        checked.filter_map(Result::err).next()
    }

    #[test]
    fn the_documented_rules_are_accepted() {
        let text = r#"
            registered = true
            [[rule]]
            slice = "tenant-{tenant}.slice"
            [[rule]]
            slice = "render.slice"
            tenant = "render"
            [[rule]]
            unit = "gpu-job-{tenant}@*.service"
            [[rule]]
            user = "alice"
            tenant = "x"
            [[rule]]
            uid = 1000
            tenant = "x"
            [[rule]]
            uid_range = [1000, 1999]
            tenant = "y"
            [gpu_model]
            "NVIDIA H100 80GB HBM3" = "nvidia.com/h100"
        "#;
        assert_eq!(first_error(text), None);
        let config: AttributionConfig = toml::from_str("").unwrap();
        assert!(!config.registered && config.rules.is_empty());
        assert!(config.system.executables.len() > 5);
    }

    #[test]
    fn what_is_unclear_is_refused_with_the_rule() {
        use ConfigError as E;
        let is = |text: &str, expected: fn(&E) -> bool| {
            let error = first_error(&format!(
                "[[rule]]\nuid = 1\ntenant = \"a\"\n[[rule]]\n{text}"
            ))
            .unwrap();
            assert!(expected(&error), "{error}");
            assert!(
                matches!(error, E::GpuModel(_)) || error.to_string().contains("rule 2"),
                "{error}"
            );
        };
        is("tenant = \"x\"", |e| {
            matches!(e, E::NotOne { found: 0, .. })
        });
        is("uid = 1\nuser = \"a\"\ntenant = \"x\"", |e| {
            matches!(e, E::NotOne { found: 2, .. })
        });
        is("uid = 1", |e| matches!(e, E::NoTenant { .. }));
        is("uid = 1\ntenant = \"../x\"", |e| {
            matches!(e, E::TenantName { .. })
        });
        is("uid_range = [2, 1]\ntenant = \"x\"", |e| {
            matches!(e, E::Range { .. })
        });
        is("slice = \"tenant-*.slice\"", |e| {
            matches!(e, E::Pattern { .. })
        });
        for unknown in [
            "[[rule]]\nslise = \"x\"",
            "registerd = true",
            "[[rule]]\nuid = -1",
            "[[rule]]\nuid_range = [1]",
        ] {
            assert!(
                toml::from_str::<AttributionConfig>(unknown).is_err(),
                "{unknown}"
            );
        }
    }
}
