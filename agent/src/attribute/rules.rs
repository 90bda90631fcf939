//! From facts to an owner. Pure but for looking up user names once.

use std::path::PathBuf;

use super::config::{AttributionConfig, CheckedRule, ConfigError, Test};
use super::pattern::{is_model_name, is_tenant_name, tenant_name};
use super::users::uid_of;
use crate::observation::{Owner, Reason, Source};
use crate::process::cgroup::Membership;
use crate::process::procfs::Uids;

/// What is known of one process.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'e> {
    /// User ids.
    pub uids: Uids,
    /// Slices and unit.
    pub membership: &'e Membership,
    /// Its executable, if it is the host's own process of a system user.
    pub host_executable: Option<&'e PathBuf>,
    /// What the table of registered processes says of it.
    pub registered: Option<&'e str>,
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
    /// Checks the configuration and looks up its users in the host's user database.
    ///
    /// # Errors
    /// When a rule is unclear.
    pub fn new(config: &AttributionConfig) -> Result<Self, ConfigError> {
        Self::with_users(config, &uid_of)
    }

    /// The same with another user database.
    ///
    /// # Errors
    /// When a rule is unclear.
    pub fn with_users(
        config: &AttributionConfig,
        uid_of: &dyn Fn(&str) -> Option<u32>,
    ) -> Result<Self, ConfigError> {
        if let Some((from, _)) = config.gpu_model.iter().find(|(_, to)| !is_model_name(to)) {
            return Err(ConfigError::GpuModel(from.clone()));
        }
        let mut unresolved = Vec::new();
        let mut rules = Vec::with_capacity(config.rules.len());
        for (rule, number) in config.rules.iter().zip(1..) {
            let mut rule = rule.check(number)?;
            if let Test::User(name) = &rule.test {
                match uid_of(name) {
                    Some(uid) => rule.test = Test::Uids(uid, uid),
                    // It matches nobody; the user may not have been created yet, which is no reason not to start.
                    None => unresolved.push(name.clone()),
                }
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

    /// Users named in rules that this host does not know: their rules match nobody.
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

    /// Whose the process is. A name in the evidence that no tenant can have makes it nobody's; no later rule is tried.
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
        let Uids { real, effective } = evidence.uids;
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
            .contains(&evidence.uids.real)
            .then(|| tenant(fixed(), Source::User)),
        Test::User(_) => None,
    }
}

fn tenant(name: Option<String>, source: Source) -> Owner {
    name.map_or(Owner::Unattributed(Reason::NoRule), |name| Owner::Tenant {
        name,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::cgroup::membership;

    fn attributor(text: &str) -> Attributor {
        let config: AttributionConfig = toml::from_str(text).unwrap();
        let users = |name: &str| (name == "alice").then_some(1000);
        Attributor::with_users(&config, &users).unwrap()
    }

    fn owner(attributor: &Attributor, path: &str, uid: u32) -> Owner {
        let membership = membership(format!("0::{path}\n").as_bytes());
        attributor.attribute(&Evidence {
            uids: Uids {
                real: uid,
                effective: uid,
            },
            membership: &membership,
            host_executable: None,
            registered: None,
        })
    }

    fn of(name: &str, source: Source) -> Owner {
        Owner::Tenant {
            name: name.to_owned(),
            source,
        }
    }

    const NOBODY: Owner = Owner::Unattributed(Reason::NoRule);

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = attributor(
            "[[rule]]\nslice = \"tenant-{tenant}.slice\"\n[[rule]]\nunit = \"gpu-job-{tenant}@*.service\"\n\
             [[rule]]\nuser = \"alice\"\ntenant = \"x\"\n[[rule]]\nuid_range = [2000, 2999]\ntenant = \"y\"\n\
             [[rule]]\nuser = \"nobody-here\"\ntenant = \"z\"\n",
        );
        assert_eq!(rules.unresolved(), ["nobody-here"]);
        let job = "gpu-job-b@1.service";
        for (path, uid, expected) in [
            (
                format!("/tenant.slice/tenant-a.slice/{job}"),
                1000,
                of("a", Source::Slice),
            ),
            (
                r"/tenant.slice/tenant-my\x2dteam.slice".to_owned(),
                1,
                of("my-team", Source::Slice),
            ),
            (format!("/system.slice/{job}"), 1000, of("b", Source::Unit)),
            (
                "/user.slice/user-1000.slice/session-1.scope".to_owned(),
                1000,
                of("x", Source::User),
            ),
            ("/".to_owned(), 2999, of("y", Source::User)),
            ("/".to_owned(), 3000, NOBODY),
            ("/tenant.slice".to_owned(), 3000, NOBODY),
        ] {
            assert_eq!(owner(&rules, &path, uid), expected, "{path} {uid}");
        }
        // No tenant can be called so; falling through to a user's rule would be a guess.
        assert_eq!(
            owner(&rules, r"/tenant.slice/tenant-a\x2fb.slice", 1000),
            NOBODY
        );
    }

    /// Case 70: slices inside the tenant's slice, and groups inside its unit, do not make it another tenant.
    #[test]
    fn a_tenant_cannot_become_another_one() {
        let rules = attributor(
            "[[rule]]\nslice = \"tenant-{tenant}.slice\"\n[[rule]]\nunit = \"job-{tenant}.service\"\n",
        );
        for below in [
            "/tenant-a-b.slice",
            "/x.service/tenant.slice/tenant-b.slice",
            "/tenant-b.slice",
            "/x.scope/job-b.service",
        ] {
            let path = format!("/tenant.slice/tenant-a.slice{below}");
            assert_eq!(owner(&rules, &path, 1), of("a", Source::Slice), "{path}");
        }
        let path =
            "/user.slice/user-1.slice/user@1.service/tenant.slice/tenant-b.slice/job-b.service";
        assert_eq!(owner(&rules, path, 1), NOBODY);
    }

    /// Case 70: neither root without the executable, nor the executable without root, is the driver's daemon.
    #[test]
    fn a_system_daemon_is_known_by_user_and_executable() {
        let rules = attributor("[[rule]]\nuid_range = [0, 9999]\ntenant = \"t\"\n");
        let none = Membership::default();
        let mps = PathBuf::from("/usr/bin/nvidia-cuda-mps-server");
        let other = PathBuf::from("/home/x/nvidia-cuda-mps-server");
        for (real, effective, executable, system) in [
            (0, 0, Some(&mps), true),
            (0, 0, Some(&other), false),
            (0, 0, None, false),
            (1000, 1000, Some(&mps), false),
            (1000, 0, Some(&mps), false),
        ] {
            let owner = rules.attribute(&Evidence {
                uids: Uids { real, effective },
                membership: &none,
                host_executable: executable,
                registered: None,
            });
            assert_eq!(
                owner == Owner::System,
                system,
                "{real} {effective} {executable:?}"
            );
        }
    }

    #[test]
    fn the_registered_table_counts_only_when_configured() {
        let membership = Membership::default();
        let evidence = |registered| Evidence {
            uids: Uids {
                real: 1,
                effective: 1,
            },
            membership: &membership,
            host_executable: None,
            registered,
        };
        let on = attributor("registered = true\n[[rule]]\nuid = 1\ntenant = \"u\"\n");
        assert_eq!(
            on.attribute(&evidence(Some("r"))),
            of("r", Source::Registered)
        );
        assert_eq!(on.attribute(&evidence(Some("../r"))), NOBODY);
        assert_eq!(on.attribute(&evidence(None)), of("u", Source::User));
        let off = attributor("[[rule]]\nuid = 1\ntenant = \"u\"\n");
        assert_eq!(off.attribute(&evidence(Some("r"))), of("u", Source::User));
    }
}
