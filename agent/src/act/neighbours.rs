//! Whose processes are in a control group, whether they use a GPU or not: what a group is denied, all who are in it are denied.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::attribute::{AttributionConfig, Observer};
use crate::clock::boottime_ms;
use crate::leased::Leased;
use crate::observation::{Owner, Reason};
use crate::plan::group::user_of_slice;
use crate::process::group::pids_below;
use crate::process::procfs::ProcessFolder;

/// Who asks the rules about each process of a group.
#[derive(Debug)]
pub struct Neighbours {
    attribution: AttributionConfig,
    /// The agent's folder.
    state: PathBuf,
    leased: Arc<Leased>,
    /// Where control groups of version 2 are; `None`: nowhere.
    root: Option<PathBuf>,
    /// Made when somebody is to be denied something for the first time.
    observer: Option<Observer>,
}

impl Neighbours {
    /// Nothing is asked yet. `attribution` was checked when the agent started.
    #[must_use]
    pub fn new(
        attribution: AttributionConfig,
        state: &Path,
        leased: Arc<Leased>,
        root: Option<PathBuf>,
    ) -> Self {
        Self {
            attribution,
            state: state.to_owned(),
            leased,
            root,
            observer: None,
        }
    }

    /// Where control groups of version 2 are.
    pub(super) fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// Tenants of the processes in this group, written as in `/proc/PID/cgroup`, and below; among them `None`: nobody that the
    /// rules know. In a user's own slice that user's processes tell, elsewhere all but root's: what root runs for somebody, as a
    /// login's daemon, says nothing of whose the group is. `None`: it cannot be told.
    pub(super) fn tenants(&mut self, group: &str) -> Option<BTreeSet<Option<String>>> {
        let folder = self.root.as_ref()?.join(group.trim_start_matches('/'));
        let pids = pids_below(&folder)?;
        let user = user_of_slice(group.rsplit('/').next().unwrap_or(group));
        let counts = |uid: u32| user.map_or(uid != 0, |user| uid == user);
        let mut tenants = BTreeSet::new();
        for pid in pids {
            // Whoever is not there any more is in no group.
            let ids = ProcessFolder::open(pid).and_then(|folder| folder.ids());
            if !ids.is_ok_and(|ids| counts(ids.uids.real)) {
                continue;
            }
            match self.owner(pid)? {
                Some(Owner::Tenant { name, .. }) => {
                    tenants.insert(Some(name));
                }
                Some(Owner::Unattributed(Reason::NoRule)) => {
                    tenants.insert(None);
                }
                Some(Owner::Unattributed(_) | Owner::Unresolved(_) | Owner::System) | None => {}
            }
        }
        Some(tenants)
    }

    fn owner(&mut self, pid: u32) -> Option<Option<Owner>> {
        if self.observer.is_none() {
            let fresh = Observer::new(&self.attribution, Some(&self.state)).ok()?;
            self.observer = Some(fresh.with_leased(Arc::clone(&self.leased)));
        }
        let found = self.observer.as_mut()?.owner_of(pid, boottime_ms());
        Some(found.map(|(_, owner)| owner))
    }
}
