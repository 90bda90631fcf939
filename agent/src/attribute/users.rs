//! User names to user ids, at start only.

use std::fs;
use std::process::Command;

/// The uid of a user: from `/etc/passwd`, else from wherever the host keeps users (`getent(1)`).
#[must_use]
pub(super) fn uid_of(name: &str) -> Option<u32> {
    let known = fs::read_to_string("/etc/passwd")
        .ok()
        .and_then(|text| find(&text, name));
    known.or_else(|| {
        let output = Command::new("getent")
            .args(["passwd", "--", name])
            .output()
            .ok()?;
        find(&String::from_utf8(output.stdout).ok()?, name)
    })
}

/// `name:password:uid:gid:…` (passwd(5)).
fn find(text: &str, name: &str) -> Option<u32> {
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
        assert_eq!(find(text, "alice"), Some(1000));
        assert_eq!(find(text, "root"), Some(0));
        for name in ["ali", "x", "bob", "", "broken", "nobody-here"] {
            assert_eq!(find(text, name), None, "{name}");
        }
        assert_eq!(uid_of("root"), Some(0));
        assert_eq!(uid_of("no-such-user-gpuquota"), None);
    }
}
