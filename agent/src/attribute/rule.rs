//! One rule of `[[attribution.rule]]`: what it looks at and whose it says the process is.

use serde::Deserialize;

use super::creators::CreatorsConfig;
use super::pattern::{Pattern, PatternError, is_tenant_name};
use super::vm::VmRuleError;
use crate::observation::Source;

/// One rule: exactly one kind of evidence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// A systemd slice around the process, e.g. `tenant-{tenant}.slice`, or a name with `tenant` beside it.
    pub slice: Option<String>,
    /// The systemd service or scope of the process, e.g. `gpu-job-{tenant}@*.service`.
    pub unit: Option<String>,
    /// The user of a Slurm job, by name.
    pub slurm_user: Option<String>,
    /// The account that a Slurm job is charged to.
    pub slurm_account: Option<String>,
    /// Namespace of a Kubernetes pod.
    pub pod_namespace: Option<String>,
    /// `KEY=VALUE`, a label of a Kubernetes pod.
    pub pod_label: Option<String>,
    /// Name of a container.
    pub container_name: Option<String>,
    /// `KEY=VALUE`, a label of a container.
    pub container_label: Option<String>,
    /// A user's name, for its real user id.
    pub user: Option<String>,
    /// A real user id.
    pub uid: Option<u32>,
    /// First and last real user id.
    pub uid_range: Option<[u32; 2]>,
    /// A group's name, for its real group id.
    pub group: Option<String>,
    /// First and last real group id.
    pub gid_range: Option<[u32; 2]>,
    /// Name of the user who logged in.
    pub login_user: Option<String>,
    /// First and last user id of who logged in.
    pub login_uid_range: Option<[u32; 2]>,
    /// Whose the process is, where the pattern does not say.
    pub tenant: Option<String>,
    /// Whether a rule by user or group counts in containers and pods as well, where whoever makes the container chooses both.
    pub also_in_containers: bool,
}

/// Why a configuration is refused. `number` counts the rules from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// None or several kinds.
    #[error(
        "attribution rule {number} needs exactly one of slice, unit, slurm_user, slurm_account, pod_namespace, pod_label, \
         container_name, container_label, user, uid, uid_range, group, gid_range, login_user, login_uid_range; it has {found}"
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
    /// A rule by user or group without a tenant.
    #[error("attribution rule {number} needs tenant = \"…\"")]
    NoTenant {
        /// Which rule.
        number: usize,
    },
    /// Only what a container's maker chooses has two meanings.
    #[error(
        "attribution rule {number}: also_in_containers is for user, uid, uid_range, group and gid_range only"
    )]
    AlsoInContainers {
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
    #[error("attribution rule {number}: a range is [first, last], and {first} is above {last}")]
    Range {
        /// Which rule.
        number: usize,
        /// First id.
        first: u32,
        /// Last id.
        last: u32,
    },
    /// A label without a value to compare.
    #[error("attribution rule {number}: {text:?} is no KEY=VALUE")]
    Label {
        /// Which rule.
        number: usize,
        /// What stands there.
        text: String,
    },
    /// Nobody is configured who could answer.
    #[error("attribution rule {number} needs {what}")]
    NobodyToAsk {
        /// Which rule.
        number: usize,
        /// The setting that is missing.
        what: &'static str,
    },
    /// A bad entry of a VM.
    #[error(transparent)]
    Vm(#[from] VmRuleError),
    /// A table of who can be asked is wrong.
    #[error("{table}: {problem}")]
    Creators {
        /// Which table.
        table: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
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
    Group(String),
    Gids(u32, u32),
    LoginUser(String),
    LoginUids(u32, u32),
    /// What somebody is asked about the job, pod or container.
    Made(Made, Pattern),
}

/// What whoever made a job, pod or container knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Made {
    SlurmUser,
    SlurmAccount,
    PodNamespace,
    PodLabel(String),
    ContainerName,
    ContainerLabel(String),
}

impl Made {
    pub(super) fn source(&self) -> Source {
        match self {
            Self::SlurmUser => Source::SlurmUser,
            Self::SlurmAccount => Source::SlurmAccount,
            Self::PodNamespace => Source::PodNamespace,
            Self::PodLabel(_) => Source::PodLabel,
            Self::ContainerName => Source::ContainerName,
            Self::ContainerLabel(_) => Source::ContainerLabel,
        }
    }

    /// The setting without which nobody can answer, if it is missing.
    fn lacks(&self, creators: &CreatorsConfig) -> Option<&'static str> {
        let pods = creators.cri.socket.is_some();
        let (there, setting) = match self {
            Self::SlurmUser => (true, ""),
            Self::SlurmAccount => (
                !creators.slurm.job_command.is_empty(),
                "attribution.creators.slurm.job_command",
            ),
            Self::PodNamespace => (
                pods || creators.kubelet.pod_resources.is_some(),
                "attribution.creators.cri.socket or attribution.creators.kubelet.pod_resources",
            ),
            Self::PodLabel(_) => (
                pods && creators.cri.trust_labels,
                "attribution.creators.cri with socket and trust_labels = true",
            ),
            Self::ContainerName | Self::ContainerLabel(_) => (
                creators.trusts_labels(),
                "attribution.creators.docker, .podman or .cri with socket and trust_labels = true",
            ),
        };
        (!there).then_some(setting)
    }
}

/// A checked rule. `tenant` is absent where the pattern captures it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CheckedRule {
    pub(super) test: Test,
    pub(super) tenant: Option<String>,
    pub(super) also_in_containers: bool,
}

impl Rule {
    pub(super) fn check(
        &self,
        number: usize,
        creators: &CreatorsConfig,
    ) -> Result<CheckedRule, ConfigError> {
        let mut tests = self.tests(number)?;
        let found = tests.len();
        let (Some(test), 1) = (tests.pop(), found) else {
            return Err(ConfigError::NotOne { number, found });
        };
        let named = match &test {
            Test::Slice(_) | Test::Unit(_) | Test::Made(..) => true,
            Test::User(_) | Test::Uids(..) | Test::Group(_) | Test::Gids(..) => false,
            Test::LoginUser(_) | Test::LoginUids(..) => false,
        };
        if let Test::Made(made, _) = &test
            && let Some(what) = made.lacks(creators)
        {
            return Err(ConfigError::NobodyToAsk { number, what });
        }
        let by_id = matches!(
            test,
            Test::User(_) | Test::Uids(..) | Test::Group(_) | Test::Gids(..)
        );
        if self.also_in_containers && !by_id {
            return Err(ConfigError::AlsoInContainers { number });
        }
        match &self.tenant {
            None if !named => Err(ConfigError::NoTenant { number }),
            Some(name) if !is_tenant_name(name) => Err(ConfigError::TenantName {
                number,
                name: name.clone(),
            }),
            tenant => Ok(CheckedRule {
                test,
                tenant: tenant.clone(),
                also_in_containers: self.also_in_containers,
            }),
        }
    }

    /// Everything that the rule looks at; only one may be left in the end.
    fn tests(&self, number: usize) -> Result<Vec<Test>, ConfigError> {
        let fixed = self.tenant.is_some();
        let refuse = |source| ConfigError::Pattern { number, source };
        let mut tests = Vec::new();
        if let Some(text) = &self.slice {
            tests.push(Test::Slice(Pattern::slice(text, fixed).map_err(refuse)?));
        }
        if let Some(text) = &self.unit {
            tests.push(Test::Unit(Pattern::unit(text, fixed).map_err(refuse)?));
        }
        for (text, made) in [
            (&self.slurm_user, Made::SlurmUser),
            (&self.slurm_account, Made::SlurmAccount),
            (&self.pod_namespace, Made::PodNamespace),
            (&self.container_name, Made::ContainerName),
        ] {
            if let Some(text) = text {
                let pattern = Pattern::plain(text, fixed).map_err(refuse)?;
                tests.push(Test::Made(made, pattern));
            }
        }
        for (text, made) in [
            (&self.pod_label, Made::PodLabel as fn(String) -> Made),
            (&self.container_label, Made::ContainerLabel),
        ] {
            let Some(text) = text else { continue };
            let label = text.split_once('=').filter(|(key, _)| !key.is_empty());
            let Some((key, value)) = label else {
                let text = text.clone();
                return Err(ConfigError::Label { number, text });
            };
            let pattern = Pattern::plain(value, fixed).map_err(refuse)?;
            tests.push(Test::Made(made(key.to_owned()), pattern));
        }
        let names = [
            self.user.clone().map(Test::User),
            self.group.clone().map(Test::Group),
            self.login_user.clone().map(Test::LoginUser),
        ];
        tests.extend(names.into_iter().flatten());
        for (range, test) in [
            (
                self.uid.map(|uid| [uid, uid]),
                Test::Uids as fn(u32, u32) -> Test,
            ),
            (self.uid_range, Test::Uids),
            (self.gid_range, Test::Gids),
            (self.login_uid_range, Test::LoginUids),
        ] {
            let Some([first, last]) = range else { continue };
            if first > last {
                return Err(ConfigError::Range {
                    number,
                    first,
                    last,
                });
            }
            tests.push(test(first, last));
        }
        Ok(tests)
    }
}

#[cfg(test)]
mod tests;
