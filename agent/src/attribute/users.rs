//! Names of users and groups, and their ids. Reading them may ask a directory service, so it is never done on a look.

use std::fs;
use std::process::Command;

/// The uid of a user.
#[must_use]
pub(super) fn uid_of(name: &str) -> Option<u32> {
    look_up("/etc/passwd", "passwd", name, |text| id_of(text, name))
}

/// The gid of a group.
#[must_use]
pub(super) fn gid_of(name: &str) -> Option<u32> {
    look_up("/etc/group", "group", name, |text| id_of(text, name))
}

/// The name of a user.
#[must_use]
pub(super) fn name_of(uid: u32) -> Option<String> {
    let of_uid = |text: &str| {
        let mut lines = text.lines().map(|line| line.split(':'));
        lines.find_map(|mut fields| {
            let name = fields.next().filter(|name| !name.is_empty())?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
    };
    look_up("/etc/passwd", "passwd", &uid.to_string(), of_uid)
}

/// From the file, else from wherever the host keeps them (`getent(1)`).
fn look_up<T>(
    file: &str,
    database: &str,
    key: &str,
    find: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let known = fs::read_to_string(file).ok().and_then(|text| find(&text));
    known.or_else(|| {
        let output = Command::new("getent").args([database, "--", key]).output();
        find(&String::from_utf8(output.ok()?.stdout).ok()?)
    })
}

/// `name:password:id:…` (passwd(5), group(5)).
fn id_of(text: &str, name: &str) -> Option<u32> {
    let mut lines = text.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        let is_it = !name.is_empty() && fields.next()? == name;
        is_it.then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let text = "root:x:0:0:root:/root:/bin/sh\n\nbroken\nalice:x:1000:1000::/home/alice:/bin/sh\nbob:x:no:1::/:\n";
        assert_eq!(id_of(text, "alice"), Some(1000));
        assert_eq!(id_of(text, "root"), Some(0));
        for name in ["ali", "x", "bob", "", "broken", "nobody-here"] {
            assert_eq!(id_of(text, name), None, "{name}");
        }
        assert_eq!(uid_of("root"), Some(0));
        assert_eq!(uid_of("no-such-user-gpuquota"), None);
        assert_eq!(
            (gid_of("root"), gid_of("no-such-group-gpuquota")),
            (Some(0), None)
        );
        assert_eq!(
            (name_of(0).as_deref(), name_of(u32::MAX - 7)),
            (Some("root"), None)
        );
    }
}
