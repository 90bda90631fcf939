//! Users and groups of the node. Its files are read; where a directory service knows more, it is asked for a group by name, and that it
//! may know more still is told: nobody can list all whose primary group it is.

use std::collections::BTreeSet;
use std::process::Command;

use super::files::Root;

/// Where glibc looks that is a file of the node (nsswitch.conf(5)).
const LOCAL: [&str; 5] = ["files", "compat", "systemd", "db", "altfiles"];

#[derive(Debug)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

#[derive(Debug)]
struct Group {
    name: String,
    gid: u32,
    listed: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Accounts {
    pub(super) users: Vec<User>,
    groups: Vec<Group>,
    /// Why not all is known.
    pub(super) gaps: Vec<String>,
    /// Whether `getent` may be asked.
    ask: bool,
}

impl Accounts {
    pub(super) fn read(root: &Root) -> Self {
        let mut accounts = Self::default();
        for file in ["etc/passwd", "etc/group"] {
            match root.text(file) {
                Ok(text) => accounts.take(file == "etc/passwd", &text),
                Err(error) => accounts.gaps.push(format!("/{file}: {error}")),
            }
        }
        match root.text_if_there("etc/nsswitch.conf") {
            Ok(text) => {
                let elsewhere = elsewhere(&text.unwrap_or_default());
                accounts.ask = !elsewhere.is_empty() && root.is_running();
                accounts.gaps.extend(elsewhere);
            }
            Err(error) => accounts.gaps.push(format!("/etc/nsswitch.conf: {error}")),
        }
        accounts
    }

    fn take(&mut self, users: bool, text: &str) {
        for line in text.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            if users
                && let [name, _, uid, gid, ..] = fields[..]
                && let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse())
            {
                let name = name.to_owned();
                self.users.push(User { name, uid, gid });
            } else if !users {
                self.groups.extend(group(line));
            }
        }
    }

    pub(super) fn group_name(&self, gid: u32) -> Option<&str> {
        let group = self.groups.iter().find(|group| group.gid == gid)?;
        Some(&group.name)
    }

    pub(super) fn gid(&self, name: &str) -> Option<u32> {
        let group = self.groups.iter().find(|group| group.name == name)?;
        Some(group.gid)
    }

    pub(super) fn user_name(&self, uid: u32) -> Option<&str> {
        let user = self.users.iter().find(|user| user.uid == uid)?;
        Some(&user.name)
    }

    /// Members of a group, those whose primary group it is among them; without root, who needs no group.
    pub(super) fn members(&self, group: &str) -> BTreeSet<String> {
        let told = self.ask.then(|| ask(group)).flatten();
        let groups = self.groups.iter().filter(|known| known.name == group);
        let mut members = BTreeSet::new();
        for group in groups.chain(&told) {
            members.extend(group.listed.iter().cloned());
            let primary = self.users.iter().filter(|user| user.gid == group.gid);
            members.extend(primary.map(|user| user.name.clone()));
        }
        members.remove("root");
        members
    }
}

fn group(line: &str) -> Option<Group> {
    let fields: Vec<&str> = line.trim_end().split(':').collect();
    let [name, _, gid, listed] = fields[..] else {
        return None;
    };
    let listed = listed.split(',').filter(|name| !name.is_empty());
    Some(Group {
        name: name.to_owned(),
        gid: gid.parse().ok()?,
        listed: listed.map(str::to_owned).collect(),
    })
}

// A directory that hangs must not take the command along.
fn ask(name: &str) -> Option<Group> {
    let output = Command::new("timeout")
        .args(["5", "getent", "group", "--", name])
        .output();
    String::from_utf8(output.ok()?.stdout)
        .ok()?
        .lines()
        .find_map(group)
}

/// Directories that are asked for users, groups or sudo rules.
fn elsewhere(text: &str) -> BTreeSet<String> {
    let lines = text
        .lines()
        .filter_map(|line| line.split('#').next()?.split_once(':'));
    let ours = lines.filter(|(database, _)| {
        matches!(
            database.trim(),
            "passwd" | "group" | "initgroups" | "sudoers"
        )
    });
    let sources = ours.flat_map(|(_, sources)| sources.split_whitespace());
    sources
        .filter(|source| !source.contains(['[', ']', '=']) && !LOCAL.contains(source))
        .map(|source| format!("{source} (nsswitch.conf)"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_service_is_noticed_and_files_are_not_one() {
        assert!(
            elsewhere(
                "passwd: files systemd\ngroup: files [SUCCESS=merge] systemd # sss\nhosts: dns\n"
            )
            .is_empty()
        );
        let found = elsewhere("passwd: files sss\ngroup: files ldap\n");
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            ["ldap (nsswitch.conf)", "sss (nsswitch.conf)"]
        );
        assert_eq!(ask("root").map(|group| group.gid), Some(0));
    }
}
