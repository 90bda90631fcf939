//! From facts to an owner. Pure but for looking up user names once.

use std::path::PathBuf;

use super::config::AttributionConfig;
use super::creators::{Creators, Facts, Known};
use super::pattern::{is_model_name, is_tenant_name, tenant_name};
use super::rule::{CheckedRule, ConfigError, Made, Test};
use super::users::{gid_of, uid_of};
use crate::observation::{Owner, Reason, Source};
use crate::process::cgroup::Membership;
use crate::process::procfs::{Ids, Uids};
use crate::process::workload::Workload;

/// What is known of one process.
#[derive(Clone, Copy)]
pub struct Evidence<'e> {
    /// User and group ids.
    pub ids: Ids,
    /// Who logged in.
    pub login_uid: Option<u32>,
    /// Slices and unit.
    pub membership: &'e Membership,
    /// Job, container and pod.
    pub workload: &'e Workload,
    /// Who knows more of these.
    pub creators: &'e dyn Creators,
    /// Its executable, if it is the host's own process of a system user.
    pub host_executable: Option<&'e PathBuf>,
    /// What the table of registered processes says of it.
    pub registered: Option<&'e str>,
}

/// The host's database of users and groups.
#[derive(Clone, Copy)]
pub struct HostNames<'h> {
    /// The uid of a user.
    pub uid_of: &'h dyn Fn(&str) -> Option<u32>,
    /// The gid of a group.
    pub gid_of: &'h dyn Fn(&str) -> Option<u32>,
}

/// Checked rules.
#[derive(Clone, Debug)]
pub struct Attributor {
    rules: Vec<CheckedRule>,
    registered: bool,
    executables: Vec<PathBuf>,
    system_uids: Vec<u32>,
    unresolved: Vec<String>,
}

impl Attributor {
    /// Checks the configuration and looks up its users and groups in the host's database.
    ///
    /// # Errors
    /// When a rule is unclear.
    pub fn new(config: &AttributionConfig) -> Result<Self, ConfigError> {
        let (uid_of, gid_of) = (&uid_of, &gid_of);
        Self::with_names(config, HostNames { uid_of, gid_of })
    }

    /// The same with another database.
    ///
    /// # Errors
    /// When a rule is unclear.
    pub fn with_names(
        config: &AttributionConfig,
        HostNames { uid_of, gid_of }: HostNames<'_>,
    ) -> Result<Self, ConfigError> {
        if let Some((from, _)) = config.gpu_model.iter().find(|(_, to)| !is_model_name(to)) {
            return Err(ConfigError::GpuModel(from.clone()));
        }
        config.creators.check()?;
        let mut unresolved = Vec::new();
        let mut rules = Vec::with_capacity(config.rules.len());
        for (rule, number) in config.rules.iter().zip(1..) {
            let mut rule = rule.check(number, &config.creators)?;
            let found = match &rule.test {
                Test::User(name) => uid_of(name).map(|uid| Test::Uids(uid, uid)),
                Test::LoginUser(name) => uid_of(name).map(|uid| Test::LoginUids(uid, uid)),
                Test::Group(name) => gid_of(name).map(|gid| Test::Gids(gid, gid)),
                _ => None,
            };
            match (found, &rule.test) {
                (Some(test), _) => rule.test = test,
                // It matches nobody; the user may not have been created yet, which is no reason not to start.
                (None, Test::User(name) | Test::LoginUser(name) | Test::Group(name)) => {
                    unresolved.push(name.clone());
                }
                (None, _) => {}
            }
            rules.push(rule);
        }
        let mut system_uids = vec![0];
        system_uids.extend(config.system.users.iter().filter_map(|name| uid_of(name)));
        Ok(Self {
            rules,
            registered: config.registered,
            executables: config.system.executables.clone(),
            system_uids,
            unresolved,
        })
    }

    /// What rules want to know of jobs, pods and containers.
    pub(super) fn wanted(&self) -> Vec<Made> {
        let made = |rule: &CheckedRule| match &rule.test {
            Test::Made(made, _) => Some(made.clone()),
            _ => None,
        };
        self.rules.iter().filter_map(made).collect()
    }

    /// Users and groups named in rules that this host does not know: their rules match nobody.
    #[must_use]
    pub fn unresolved(&self) -> &[String] {
        &self.unresolved
    }

    /// Whether the table of registered processes is consulted.
    #[must_use]
    pub fn uses_registered(&self) -> bool {
        self.registered
    }

    /// User ids under which the driver's own daemons run.
    #[must_use]
    pub fn system_uids(&self) -> &[u32] {
        &self.system_uids
    }

    /// Whose the process is. A name in the evidence that no tenant can have makes it nobody's, and so does evidence that is
    /// not known yet; no later rule is tried, for it would be a guess.
    #[must_use]
    pub fn attribute(&self, evidence: &Evidence<'_>) -> Owner {
        if self.is_system(evidence) {
            return Owner::System;
        }
        if self.registered
            && let Some(name) = evidence.registered
        {
            return tenant(
                Some(name.to_owned()).filter(|name| is_tenant_name(name)),
                Source::Registered,
            );
        }
        self.rules
            .iter()
            .find_map(|rule| apply(rule, evidence))
            .unwrap_or(Owner::Unattributed(Reason::NoRule))
    }

    /// Root, or the daemon's own user, and one of the known executables of the host: never a name alone.
    fn is_system(&self, evidence: &Evidence<'_>) -> bool {
        let Uids { real, effective } = evidence.ids.uids;
        let executable = evidence.host_executable;
        real == effective
            && self.system_uids.contains(&real)
            && executable.is_some_and(|executable| self.executables.contains(executable))
    }
}

fn apply(rule: &CheckedRule, evidence: &Evidence<'_>) -> Option<Owner> {
    let fixed = || rule.tenant.clone();
    let named = |captured: Option<&str>| captured.map_or_else(fixed, tenant_name);
    match &rule.test {
        // The outermost slice that fits: what lives inside it can make slices of its own.
        Test::Slice(pattern) => {
            let captured = evidence
                .membership
                .slices
                .iter()
                .find_map(|slice| pattern.fit(slice))?;
            Some(tenant(named(captured), Source::Slice))
        }
        Test::Unit(pattern) => {
            let captured = pattern.fit(evidence.membership.unit.as_deref()?)?;
            Some(tenant(named(captured), Source::Unit))
        }
        // The real user: a set-uid program does not turn its caller into its owner.
        Test::Uids(first, last) => (*first..=*last)
            .contains(&evidence.ids.uids.real)
            .then(|| tenant(fixed(), Source::User)),
        Test::Gids(first, last) => (*first..=*last)
            .contains(&evidence.ids.gid)
            .then(|| tenant(fixed(), Source::Group)),
        Test::LoginUids(first, last) => (*first..=*last)
            .contains(&login_uid(evidence)?)
            .then(|| tenant(fixed(), Source::Login)),
        Test::User(_) | Test::Group(_) | Test::LoginUser(_) => None,
        Test::Made(made, pattern) => {
            let facts = match ask(made, evidence)? {
                Ok(facts) => facts,
                Err(reason) => return Some(Owner::Unattributed(reason)),
            };
            let captured = pattern.fit(said(made, &facts)?)?;
            // No sign of such a name is an escape.
            let name = captured.map_or_else(fixed, |name| Some(name.to_owned()));
            Some(tenant(
                name.filter(|name| is_tenant_name(name)),
                made.source(),
            ))
        }
    }
}

/// Who logged in. A process that nobody's login started may name anybody (a `loginuid` that is not set yet can be written
/// without privileges), so it counts only where the system manager puts logins.
fn login_uid(evidence: &Evidence<'_>) -> Option<u32> {
    let outermost = evidence.membership.slices.first()?;
    evidence.login_uid.filter(|_| outermost == "user.slice")
}

/// What is known of the job, pod or container; `None` when the process is in none, or nobody could know.
fn ask(made: &Made, evidence: &Evidence<'_>) -> Known {
    let Workload {
        job,
        container,
        pod,
    } = evidence.workload;
    match made {
        Made::SlurmUser | Made::SlurmAccount => {
            let real = evidence.ids.uids.real;
            evidence.creators.job(job.as_ref()?, real)
        }
        Made::PodNamespace | Made::PodLabel(_) => evidence.creators.pod(pod.as_ref()?),
        Made::ContainerName | Made::ContainerLabel(_) => {
            evidence.creators.container(container.as_ref()?)
        }
    }
}

fn said<'f>(made: &Made, facts: &'f Facts) -> Option<&'f str> {
    match made {
        Made::SlurmUser => facts.user.as_deref(),
        Made::SlurmAccount => facts.account.as_deref(),
        Made::PodNamespace => facts.namespace.as_deref(),
        Made::ContainerName => facts.name.as_deref(),
        Made::PodLabel(key) | Made::ContainerLabel(key) => {
            facts.labels.get(key).map(String::as_str)
        }
    }
}

fn tenant(name: Option<String>, source: Source) -> Owner {
    name.map_or(Owner::Unattributed(Reason::NoRule), |name| Owner::Tenant {
        name,
        source,
    })
}

#[cfg(test)]
mod tests;
