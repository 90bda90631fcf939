//! From facts to an owner. Pure but for reading this host's own file of users once.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::config::AttributionConfig;
use super::creators::{Creators, Facts, Known};
use super::names::{NameKind, NamedId};
use super::pattern::{is_model_name, is_tenant_name, tenant_name};
use super::rule::{CheckedRule, ConfigError, Made, Test};
use super::users::{local_gid_of, local_uid_of};
use crate::observation::{Owner, Reason, Source};
use crate::process::cgroup::Membership;
use crate::process::procfs::{Ids, Uids};
use crate::process::subordinate::Lent;
use crate::process::workload::Workload;

/// What is known of one process.
#[derive(Clone, Copy)]
pub struct Evidence<'e> {
    /// User and group ids.
    pub ids: Ids,
    /// Which of them were chosen within what this host lent a user for a namespace of its own.
    pub lent: Lent,
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
    /// Whose lease its control group was made for.
    pub leased: Option<&'e str>,
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
    /// Users of the driver's daemons that are not known here.
    system_users: Vec<String>,
}

impl Attributor {
    /// Checks the configuration and looks up its users and groups in this host's own files; what is not there is asked for
    /// elsewhere ([`super::names::Asker`]).
    ///
    /// # Errors
    /// When a rule is unclear.
    pub fn new(config: &AttributionConfig) -> Result<Self, ConfigError> {
        let (uid_of, gid_of) = (&local_uid_of, &local_gid_of);
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
        let mut rules = Vec::with_capacity(config.rules.len());
        for (rule, number) in config.rules.iter().zip(1..) {
            rules.push(rule.check(number, &config.creators)?);
        }
        let mut attributor = Self {
            rules,
            registered: config.registered,
            executables: config.system.executables.clone(),
            system_uids: vec![0],
            system_users: config.system.users.clone(),
        };
        for name in attributor.unknown() {
            let id = match name.kind {
                NameKind::User => uid_of(&name.name),
                NameKind::Group => gid_of(&name.name),
            };
            if let Some(id) = id {
                attributor.resolve(&name, id);
            }
        }
        Ok(attributor)
    }

    /// Takes in the id of a user or group.
    pub(super) fn resolve(&mut self, name: &NamedId, id: u32) {
        for rule in &mut self.rules {
            if named_id(&rule.test).as_ref() != Some(name) {
                continue;
            }
            match &rule.test {
                Test::User(_) => rule.test = Test::Uids(id, id),
                Test::LoginUser(_) => rule.test = Test::LoginUids(id, id),
                Test::Group(_) => rule.test = Test::Gids(id, id),
                Test::Slice(_)
                | Test::Unit(_)
                | Test::Uids(..)
                | Test::Gids(..)
                | Test::LoginUids(..)
                | Test::Made(..) => {}
            }
        }
        if name.kind == NameKind::User && self.system_users.iter().any(|user| **user == *name.name)
        {
            self.system_users.retain(|user| **user != *name.name);
            self.system_uids.push(id);
        }
    }

    /// Names without an id: those of [`Self::unresolved`] and the users of the driver's daemons, which may well not exist.
    pub(super) fn unknown(&self) -> BTreeSet<NamedId> {
        let mut names = self.unresolved();
        names.extend(self.system_users.iter().map(|user| NamedId::user(user)));
        names
    }

    /// What rules want to know of jobs, pods and containers.
    pub(super) fn wanted(&self) -> Vec<Made> {
        let made = |rule: &CheckedRule| match &rule.test {
            Test::Made(made, _) => Some(made.clone()),
            _ => None,
        };
        self.rules.iter().filter_map(made).collect()
    }

    /// Users and groups named in rules that this host does not know yet: a process that reaches such a rule is nobody's.
    #[must_use]
    pub fn unresolved(&self) -> BTreeSet<NamedId> {
        let names = self.rules.iter().filter_map(|rule| named_id(&rule.test));
        names.collect()
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
        if let Some(name) = evidence.leased {
            return tenant(Some(name.to_owned()), Source::Lease);
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
        Test::Uids(first, last) => (ids_count(rule, evidence)
            && !evidence.lent.uid
            && (*first..=*last).contains(&evidence.ids.uids.real))
        .then(|| tenant(fixed(), Source::User)),
        Test::Gids(first, last) => (ids_count(rule, evidence)
            && !evidence.lent.gid
            && (*first..=*last).contains(&evidence.ids.gid))
        .then(|| tenant(fixed(), Source::Group)),
        Test::LoginUids(first, last) => (*first..=*last)
            .contains(&login_uid(evidence)?)
            .then(|| tenant(fixed(), Source::Login)),
        // It may be this very user's: what a later rule says would be a guess.
        Test::User(_) | Test::Group(_) => {
            let name = named_id(&rule.test).filter(|_| ids_count(rule, evidence))?;
            let lent = match name.kind {
                NameKind::User => evidence.lent.uid,
                NameKind::Group => evidence.lent.gid,
            };
            (!lent).then_some(Owner::Unresolved(name))
        }
        Test::LoginUser(_) => {
            login_uid(evidence)?;
            named_id(&rule.test).map(Owner::Unresolved)
        }
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

/// The user or group whose id a test lacks.
fn named_id(test: &Test) -> Option<NamedId> {
    match test {
        Test::User(name) | Test::LoginUser(name) => Some(NamedId::user(name)),
        Test::Group(name) => Some(NamedId::group(name)),
        Test::Slice(_)
        | Test::Unit(_)
        | Test::Uids(..)
        | Test::Gids(..)
        | Test::LoginUids(..)
        | Test::Made(..) => None,
    }
}

/// Inside a container or pod the user and group are what its maker chose (`docker run --user`), so they say nothing of who
/// that is.
fn ids_count(rule: &CheckedRule, evidence: &Evidence<'_>) -> bool {
    rule.also_in_containers || !evidence.workload.contained
}

/// Who logged in, where the kernel's record of it and the cgroup say the same: `loginuid` is N and the process is in
/// `user.slice/user-N.slice`, which root's logind alone makes and moves into.
///
/// Neither is enough alone. A `loginuid` that is not set yet can be written by the process itself (a service, a container's or
/// cron's child, also a user's manager without `pam_loginuid`), and one that is set stays through whatever moves the process
/// elsewhere. What this means for:
/// - ssh and console sessions, and sudo and su in them: both say N, whatever user it is now;
/// - `systemd --user`, also lingering, and what it starts, rootless containers included: both say N with `pam_loginuid` in
///   `/etc/pam.d/systemd-user`; without it nobody logged in there;
/// - cron and at: they count where PAM opens a session for the job, else the job is in the slice of its service;
/// - ssh into a Slurm job (`pam_slurm_adopt`), containers of a daemon, `machinectl`, services of the system: not a login;
/// - a login of N that was moved below another user's slice: the two contradict each other, and it is nobody's login.
fn login_uid(evidence: &Evidence<'_>) -> Option<u32> {
    let [outermost, user, ..] = evidence.membership.slices.as_slice() else {
        return None;
    };
    let of_user = user.strip_prefix("user-")?.strip_suffix(".slice")?;
    let in_login = outermost == "user.slice" && !evidence.workload.contained;
    let uid = evidence.login_uid.filter(|_| in_login)?;
    (of_user == uid.to_string()).then_some(uid)
}

/// What is known of the job, pod or container; `None` when the process is in none, or nobody could know.
fn ask(made: &Made, evidence: &Evidence<'_>) -> Known {
    let Workload {
        job,
        container,
        pod,
        contained: _,
    } = evidence.workload;
    match made {
        Made::SlurmUser | Made::SlurmAccount => {
            let (job, real) = (job.as_ref()?, evidence.ids.uids.real);
            // Nothing would tell the job's user from who lends the id.
            if job.uid.is_none() && evidence.lent.uid {
                return Some(Err(Reason::JobContradicts));
            }
            evidence.creators.job(job, real)
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
