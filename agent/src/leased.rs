//! Control groups in which what was started under a lease runs, and whose that lease is.
//!
//! Only the privileged half puts a process there, and only root's manager makes such groups: being in one says whose a process
//! is as surely as a rule about slices does.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::process::cgroup::Membership;

/// Scopes that the privileged half makes for leases are called so, and no others.
pub const SCOPE_PREFIX: &str = "gpuquota-lease-";

/// Tenants by group. Shared by whoever takes leases and whoever attributes.
#[derive(Debug, Default)]
pub struct Leased(Mutex<BTreeMap<String, String>>);

impl Leased {
    /// What runs in this group from now on is this tenant's. `group`: as `/proc/PID/cgroup` writes it.
    pub fn add(&self, group: &str, tenant: &str) {
        self.lock().insert(group.to_owned(), tenant.to_owned());
    }

    /// The rules alone say whose it is from now on.
    pub fn remove(&self, group: &str) {
        self.lock().remove(group);
    }

    /// Whose a process there is; `None`: no lease says so. Only what root's manager made of its path counts.
    #[must_use]
    pub fn tenant(&self, membership: &Membership) -> Option<String> {
        let groups = self.lock();
        if groups.is_empty() {
            return None;
        }
        groups.get(&path(membership)?).cloned()
    }

    // Nothing panics while it is held.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The believable part of a path as it stands in `/proc/PID/cgroup`; `None`: it names no unit.
#[must_use]
pub fn path(membership: &Membership) -> Option<String> {
    let unit = membership.unit.as_deref()?;
    let mut path = String::new();
    for part in membership.slices.iter().map(String::as_str).chain([unit]) {
        path.push('/');
        path.push_str(part);
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::cgroup::membership;

    #[test]
    fn a_lease_says_whose_a_process_is_only_in_the_very_group_that_was_made_for_it() {
        let leased = Leased::default();
        let group = "/user.slice/user-7.slice/gpuquota-lease-3.scope";
        leased.add(group, "a");
        let of = |path: &str| leased.tenant(&membership(format!("0::{path}\n").as_bytes()));
        assert_eq!(of(group).as_deref(), Some("a"));
        // What it makes below itself is still in it.
        assert_eq!(of(&format!("{group}/sub")).as_deref(), Some("a"));
        for other in [
            "/user.slice/user-7.slice/gpuquota-lease-33.scope",
            "/user.slice/user-7.slice/user@7.service/gpuquota-lease-3.scope",
            "/user.slice/user-7.slice/user@7.service/user.slice/user-7.slice/gpuquota-lease-3.scope",
            "/user.slice/user-8.slice/gpuquota-lease-3.scope",
            "/gpuquota-lease-3.scope",
            "/",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        leased.remove(group);
        assert_eq!(of(group), None);
    }
}
