//! Groups that root makes, but not where or as systemd, Docker or the kubelet make them by default.

use super::ContainerId;

/// What lies below `kubepods` in a tree that no service manager made.
pub(super) fn kubepods_below<'p>(parts: &'p [&'p str]) -> Option<&'p [&'p str]> {
    let at = root_made(parts)
        .iter()
        .position(|part| *part == "kubepods")?;
    parts.get(at + 1..)
}

/// Groups that only root makes: all below a root that is no manager's, and below slices as far as no unit begins, which may be
/// given to its user.
fn root_made<'p>(parts: &'p [&'p str]) -> &'p [&'p str] {
    let given = parts.iter().position(|part| {
        [".scope", ".service", ".."]
            .iter()
            .any(|kind| part.ends_with(kind))
    });
    parts
        .get(..given.unwrap_or(parts.len()))
        .unwrap_or_default()
}

/// Groups that only root makes, of makers that cannot be asked: LXC, and a container engine with a parent of its own
/// (`--cgroup-parent=/x/y` makes `/x/y/ID`).
pub(super) fn of_strange_maker(parts: &[&str]) -> bool {
    let is_id = |part: &str| {
        let id = part.strip_prefix("libpod-").unwrap_or(part);
        ContainerId::parse(id).is_some()
    };
    let of_lxc = parts.first().is_some_and(|root| {
        *root == "lxc" || root.starts_with("lxc.payload") || root.starts_with("lxc.monitor")
    });
    of_lxc || root_made(parts).iter().any(|part| is_id(part))
}
