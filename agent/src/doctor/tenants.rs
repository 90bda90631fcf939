//! Which ways round are open to which tenant: by its users, where the rules say whose a user is.

use std::collections::{BTreeMap, BTreeSet};

use super::accounts::{Accounts, User};
use super::bypass::listing;
use super::files::Root;
use super::{About, Finding, Grade};
use crate::attribute::{AttributionConfig, Rule};

/// Groups whose members become root.
pub(super) const ADMIN_GROUPS: [&str; 3] = ["sudo", "wheel", "admin"];
const LINGER: &str = "var/lib/systemd/linger";

/// A comment, an include, a setting, an alias of something else, or root.
fn is_no_user(first: &str) -> bool {
    first.starts_with(['#', '@'])
        || first.starts_with("Defaults")
        || first.ends_with("_Alias")
        || first == "root"
}

/// What some users may do, by user.
#[derive(Debug, Default)]
pub(super) struct Ways {
    docker: BTreeSet<String>,
    /// Members of the usual groups of administrators.
    pub(super) admins: BTreeSet<String>,
    /// Whom sudo's rules name.
    pub(super) sudo: BTreeSet<String>,
    pub(super) lingering: BTreeSet<String>,
    /// Why there may be more.
    pub(super) gaps: Vec<String>,
}

impl Ways {
    pub(super) fn read(root: &Root, accounts: &Accounts) -> Self {
        let mut ways = Self {
            docker: accounts.members("docker"),
            gaps: accounts.gaps.clone(),
            ..Self::default()
        };
        for group in ADMIN_GROUPS {
            ways.admins.extend(accounts.members(group));
        }
        ways.read_sudoers(root, accounts);
        match root.about(LINGER) {
            Ok(_) => ways.lingering.extend(root.names(LINGER)),
            Err(error) => ways.gaps.push(format!("/{LINGER}: {error}")),
        }
        ways
    }

    pub(super) fn docker(&self) -> &BTreeSet<String> {
        &self.docker
    }

    /// Users and groups that stand first on a line of sudo's rules (sudoers(5)); lists of names are not followed, and said.
    fn read_sudoers(&mut self, root: &Root, accounts: &Accounts) {
        let mut files = vec!["etc/sudoers".to_owned()];
        // sudo skips names with a dot or a tilde at the end.
        let own = root
            .names("etc/sudoers.d")
            .into_iter()
            .filter(|name| !name.contains('.') && !name.ends_with('~'));
        files.extend(own.map(|name| format!("etc/sudoers.d/{name}")));
        for file in files {
            let text = match root.text_if_there(&file) {
                Ok(text) => text.unwrap_or_default(),
                Err(error) => {
                    self.gaps.push(format!("/{file}: {error}"));
                    continue;
                }
            };
            for line in text.lines().map(str::trim) {
                let Some(first) = line
                    .split_whitespace()
                    .next()
                    .filter(|_| line.contains('='))
                else {
                    continue;
                };
                let uid = first
                    .strip_prefix('#')
                    .filter(|id| id.parse::<u32>().is_ok());
                if let Some(group) = first.strip_prefix('%') {
                    self.sudo.extend(accounts.members(group));
                } else if first == "User_Alias" || first.starts_with('+') || uid.is_some() {
                    self.gaps.push(format!("{first} in /{file}"));
                } else if first == "ALL" {
                    self.sudo.insert("everybody".to_owned());
                } else if !is_no_user(first) {
                    self.sudo.extend(first.split(',').map(str::to_owned));
                }
            }
        }
    }

    /// What this user may do.
    fn of(&self, user: &str) -> Vec<&'static str> {
        let mut ways = Vec::new();
        if self.docker.contains(user) {
            ways.push("docker");
        }
        if self.admins.contains(user) || self.sudo.contains(user) || self.sudo.contains("everybody")
        {
            ways.push("sudo");
        }
        if self.lingering.contains(user) {
            ways.push("lingering");
        }
        ways
    }
}

/// A grade for each tenant that the rules name, and one for users who are nobody's and have a way round.
pub(super) fn examine(
    config: &AttributionConfig,
    accounts: &Accounts,
    ways: &Ways,
) -> Vec<Finding> {
    let mut users: BTreeMap<&str, Vec<&User>> = BTreeMap::new();
    for rule in &config.rules {
        users.extend(rule.tenant.as_deref().map(|tenant| (tenant, Vec::new())));
    }
    let mut free = Vec::new();
    for user in &accounts.users {
        let rule = config.rules.iter().find(|rule| names(rule, user, accounts));
        match rule.and_then(|rule| rule.tenant.as_deref()) {
            Some(tenant) => users.entry(tenant).or_default().push(user),
            None if user.uid != 0 && !ways.of(&user.name).is_empty() => {
                free.push(described(ways, user))
            }
            None => {}
        }
    }
    let mut findings: Vec<Finding> = users
        .into_iter()
        .map(|(tenant, users)| grade(tenant, &users, ways))
        .collect();
    if !free.is_empty() {
        let free: Vec<&str> = free.iter().map(String::as_str).collect();
        let text = format!("users whom no rule gives to a tenant: {}", listing(&free));
        findings.push(
            found("users", Grade::Warn, text)
                .advise("take the right from them, or know them to be administrators"),
        );
    }
    findings
}

fn found(id: &'static str, grade: Grade, text: impl Into<String>) -> Finding {
    Finding::new(id, About::Tenant, grade, text)
}

fn grade(tenant: &str, users: &[&User], ways: &Ways) -> Finding {
    let finding = if users.is_empty() {
        found(
            "tenant",
            Grade::Unknown,
            "its rules name no user of this node: what its users may do is not known",
        )
        .advise("give its users by user, uid_range or group, or look at each user")
    } else {
        let able = users.iter().filter(|user| !ways.of(&user.name).is_empty());
        let able: Vec<String> = able.map(|user| described(ways, user)).collect();
        let able: Vec<&str> = able.iter().map(String::as_str).collect();
        let of = format!("of {} users", users.len());
        if !able.is_empty() {
            found("tenant", Grade::Warn, format!("{of}: {}", listing(&able))).advise(
                "docker and sudo pass every limit: take them away; lingering runs programs outside of logins and jobs: loginctl disable-linger",
            )
        } else if ways.gaps.is_empty() {
            found(
                "tenant",
                Grade::Ok,
                format!("{of} none has docker, sudo or lingering"),
            )
        } else {
            found(
                "tenant",
                Grade::Unknown,
                format!(
                    "{of} none is known to have docker, sudo or lingering; not seen: {}",
                    ways.gaps.join(", ")
                ),
            )
            .advise("run doctor as root, and ask the directory for the members of these groups")
        }
    };
    Finding {
        tenant: Some(tenant.to_owned()),
        ..finding
    }
}

fn described(ways: &Ways, user: &User) -> String {
    format!("{} ({})", user.name, ways.of(&user.name).join(", "))
}

/// Whether a rule gives what this user runs to its tenant.
fn names(rule: &Rule, user: &User, accounts: &Accounts) -> bool {
    let within = |range: Option<[u32; 2]>, id: u32| {
        range.is_some_and(|[first, last]| (first..=last).contains(&id))
    };
    let is = |name: &Option<String>| name.as_deref() == Some(user.name.as_str());
    let group = rule.group.as_deref().and_then(|group| accounts.gid(group));
    is(&rule.user)
        || is(&rule.login_user)
        || is(&rule.slurm_user)
        || rule.uid == Some(user.uid)
        || group == Some(user.gid)
        || within(rule.uid_range, user.uid)
        || within(rule.login_uid_range, user.uid)
        || within(rule.gid_range, user.gid)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn rule_18_each_tenant_has_a_grade_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let write = |path: &str, text: &str| {
            fs::create_dir_all(root.at(path).parent().unwrap()).unwrap();
            fs::write(root.at(path), text).unwrap();
        };
        write(
            "etc/passwd",
            "root:x:0:0::/:/\nann:x:1001:100::/:/\nbob:x:1002:100::/:/\ncid:x:1003:200::/:/\ndee:x:1004:300::/:/\neve:x:1005:400::/:/\n",
        );
        write(
            "etc/group",
            "docker:x:999:ann\nb:x:200:\nops:x:50:dee\nclosed:x:300:\n",
        );
        write(
            "etc/sudoers",
            "Defaults env=x\n# x = y\n#Defaults a=b\nroot ALL=(ALL) ALL\n%ops ALL=(ALL) ALL\n@includedir /etc/sudoers.d\n",
        );
        write("var/lib/systemd/linger/bob", "");
        let rule = |rule: Rule, tenant: &str| Rule {
            tenant: Some(tenant.to_owned()),
            ..rule
        };
        let config = AttributionConfig {
            rules: vec![
                rule(
                    Rule {
                        user: Some("ann".to_owned()),
                        ..Rule::default()
                    },
                    "a",
                ),
                rule(
                    Rule {
                        uid_range: Some([1000, 1002]),
                        ..Rule::default()
                    },
                    "b",
                ),
                rule(
                    Rule {
                        group: Some("b".to_owned()),
                        ..Rule::default()
                    },
                    "c",
                ),
                rule(
                    Rule {
                        slice: Some("x.slice".to_owned()),
                        ..Rule::default()
                    },
                    "s",
                ),
            ],
            ..AttributionConfig::default()
        };
        let look = || {
            let accounts = Accounts::read(&root);
            let ways = Ways::read(&root, &accounts);
            let findings = examine(&config, &accounts, &ways);
            assert!(
                findings
                    .iter()
                    .all(|f| f.advice.is_some() == (f.grade != Grade::Ok))
            );
            findings
        };
        let grades = |findings: &[Finding]| -> Vec<(Option<String>, Grade)> {
            findings
                .iter()
                .map(|finding| (finding.tenant.clone(), finding.grade))
                .collect()
        };
        let of = |tenant: &str| Some(tenant.to_owned());
        let found = look();
        let expected = [
            (of("a"), Grade::Warn),
            (of("b"), Grade::Warn),
            (of("c"), Grade::Ok),
            (of("s"), Grade::Unknown),
            (None, Grade::Warn),
        ];
        assert_eq!(grades(&found), expected);
        assert!(
            found[0].found.contains("ann (docker)"),
            "the first rule decides: {found:?}"
        );
        assert!(found[1].found.contains("bob (lingering)") && !found[1].found.contains("ann"));
        assert!(found[4].found.contains("dee (sudo)") && !found[4].found.contains("eve"));
        // What the files of the node do not tell makes no tenant good.
        write("etc/nsswitch.conf", "passwd: files sss\n");
        assert_eq!(grades(&look())[2], (of("c"), Grade::Unknown));
        assert!(look()[2].found.contains("sss"));
        write("etc/nsswitch.conf", "passwd: files\n");
        write("etc/sudoers.d/all", "ALL ALL=NOPASSWD: ALL\n");
        assert_eq!(grades(&look())[2], (of("c"), Grade::Warn));
        write("etc/sudoers.d/all", "User_Alias FEW = cid\n");
        assert_eq!(grades(&look())[2], (of("c"), Grade::Unknown));
    }
}
