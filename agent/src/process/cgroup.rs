//! systemd slices and the unit of a process, from `/proc/PID/cgroup` (cgroups(7)). Pure.
//!
//! Whom to believe: the system manager makes the outer part of a path, slices in slices and in the last of them one service
//! or scope. Below that unit the tree is delegated to whoever runs in it: a user's own manager, a container runtime, a job
//! script can make groups there with any name, `tenant-b.slice` included. So the path is read from the outside and only up to
//! the first part that is no slice, and a slice counts only inside the slices that its name says it is in (systemd.slice(5):
//! `a-b.slice` lives in `a.slice`). What a process moves itself into below its own unit changes nothing.

/// The believable part of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Slices, the outermost first, as systemd names them: `tenant.slice`, `tenant-a.slice`.
    pub slices: Vec<String>,
    /// The service, scope or other unit inside the innermost of these slices.
    pub unit: Option<String>,
}

/// Reads the text of `/proc/PID/cgroup`: the line of the unified hierarchy, or systemd's own where there is none.
#[must_use]
pub fn membership(text: &[u8]) -> Membership {
    let lines = || text.split(|byte| *byte == b'\n');
    let path = lines()
        .find_map(|line| line.strip_prefix(b"0::"))
        .or_else(|| lines().find_map(systemd_line));
    path.map(|path| believe(path).membership)
        .unwrap_or_default()
}

/// `1:name=systemd:/path`, whatever the number.
fn systemd_line(line: &[u8]) -> Option<&[u8]> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (number, rest) = line.split_at_checked(colon)?;
    let is_number = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
    rest.strip_prefix(b":name=systemd:").filter(|_| is_number)
}

/// A path taken apart where what root's manager made ends.
#[derive(Debug, Default)]
pub(super) struct Believed<'p> {
    pub(super) membership: Membership,
    /// What the unit's own owner made below it, outermost first.
    pub(super) below: Vec<&'p [u8]>,
}

pub(super) fn believe(path: &[u8]) -> Believed<'_> {
    let mut believed = Believed::default();
    let membership = &mut believed.membership;
    // A path relative to a namespace this reader is not in starts with `/..`; it has no believable part.
    let Some(path) = path.strip_prefix(b"/") else {
        return believed;
    };
    let mut parts = path.split(|byte| *byte == b'/');
    for part in parts.by_ref() {
        let Some(name) = std::str::from_utf8(part).ok().and_then(unit_name) else {
            return believed;
        };
        match name.strip_suffix(".slice") {
            Some(stem) if lives_in(stem, membership.slices.last().map(String::as_str)) => {
                membership.slices.push(name.to_owned());
            }
            Some(_) => return believed,
            None => {
                if is_leaf(name) {
                    membership.unit = Some(name.to_owned());
                    believed.below = parts.collect();
                }
                return believed;
            }
        }
    }
    believed
}

/// systemd writes `_` before a unit name that the kernel could mistake for a file of its own.
fn unit_name(part: &str) -> Option<&str> {
    let name = part.strip_prefix('_').unwrap_or(part);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    (!name.is_empty() && name.len() <= 255 && name.bytes().all(plain)).then_some(name)
}

/// Whether a slice of this name lives in that one; `None` is the root.
fn lives_in(stem: &str, outer: Option<&str>) -> bool {
    if stem.is_empty() || stem.starts_with('-') || stem.ends_with('-') || stem.contains("--") {
        return false;
    }
    let home = stem.rsplit_once('-').map(|(home, _)| home);
    outer.map(|outer| outer.strip_suffix(".slice").unwrap_or(outer)) == home
}

/// Units that hold processes (systemd.unit(5)).
fn is_leaf(name: &str) -> bool {
    let kinds = [".service", ".scope", ".socket", ".mount", ".swap"];
    kinds
        .iter()
        .any(|kind| name.strip_suffix(kind).is_some_and(|stem| !stem.is_empty()))
}

/// Undoes systemd's escaping of unit names (`systemd-escape(1)`): `\x2d` is `-`, a plain `-` stays.
/// `None` when an escape is broken or the bytes are no text.
#[must_use]
pub fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            bytes.push(*byte);
            continue;
        }
        let (code, after) = rest.strip_prefix(b"x")?.split_at_checked(2)?;
        let code = std::str::from_utf8(code)
            .ok()
            .filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> (Vec<String>, Option<String>) {
        let membership = membership(text.as_bytes());
        (membership.slices, membership.unit)
    }

    fn expect(slices: &[&str], unit: Option<&str>) -> (Vec<String>, Option<String>) {
        (
            slices.iter().map(|slice| (*slice).to_owned()).collect(),
            unit.map(str::to_owned),
        )
    }

    #[test]
    fn paths_of_all_three_layouts() {
        let path = "/tenant.slice/tenant-a.slice/gpu-job@3.service/sub";
        let expected = expect(
            &["tenant.slice", "tenant-a.slice"],
            Some("gpu-job@3.service"),
        );
        let v1 = format!("12:devices:/x.slice\n1:name=systemd:{path}\n");
        let hybrid = format!("12:devices:/x.slice\n1:name=systemd:/y.slice\n0::{path}\n");
        for text in [format!("0::{path}\n"), v1, hybrid] {
            assert_eq!(read(&text), expected, "{text}");
        }
        assert_eq!(read("0::/\n"), expect(&[], None));
        assert_eq!(read("0::/init.scope\n"), expect(&[], Some("init.scope")));
        assert_eq!(read("4:memory:/a.slice\n"), expect(&[], None));
        assert_eq!(
            read("0::/a.slice/__x.service\n"),
            expect(&["a.slice"], Some("_x.service"))
        );
    }

    /// Case 70: names below the tenant's own unit, or in places where systemd never puts them, are not believed.
    #[test]
    fn what_a_tenant_can_name_is_not_believed() {
        let own = expect(
            &["user.slice", "user-1000.slice"],
            Some("user@1000.service"),
        );
        for below in [
            "",
            "/tenant.slice/tenant-b.slice",
            "/app.slice/tenant-b.slice/x.service",
            "/../../tenant.slice",
        ] {
            assert_eq!(
                read(&format!(
                    "0::/user.slice/user-1000.slice/user@1000.service{below}\n"
                )),
                own
            );
        }
        for path in [
            "/tenant-b.slice",
            "/docker/tenant.slice/tenant-b.slice",
            "/../tenant.slice",
            "tenant.slice",
            "//tenant.slice",
            "/.slice",
            "/tenant-.slice",
            "/x y.slice",
        ] {
            assert_eq!(read(&format!("0::{path}\n")), expect(&[], None), "{path}");
        }
        assert_eq!(
            read("0::/a.slice/b.slice/x.service\n"),
            expect(&["a.slice"], None)
        );
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape(r"my\x2dteam").as_deref(), Some("my-team"));
        assert_eq!(unescape("my-team").as_deref(), Some("my-team"));
        assert_eq!(unescape(r"\xc3\xa9").as_deref(), Some("é"));
        for broken in [r"\", r"\x", r"\x2", r"\xzz", r"\x+1", r"\n00", r"\xff"] {
            assert_eq!(unescape(broken), None, "{broken}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = membership(&text);
            let _ = unescape(&String::from_utf8_lossy(&text));
        }

        /// Whatever is written below the unit, the answer is that of the unit alone.
        #[test]
        fn nothing_below_the_unit_counts(below in "[^\n\0]{0,80}") {
            let unit = "0::/tenant.slice/tenant-a.slice/job.service";
            prop_assert_eq!(read(&format!("{unit}/{below}\n")), read(&format!("{unit}\n")));
        }
    }
}
