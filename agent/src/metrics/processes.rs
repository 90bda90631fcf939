//! Rows about processes on GPUs: whose they are, by which evidence or for want of which. Pure.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_proto::exposition::Families;

use crate::observation::{Observation, Owner, Reason};

use super::text::answering;

pub(super) fn add(families: &mut Families, observation: &Observation) {
    let mut pids: BTreeMap<(&str, &str), Pids> = BTreeMap::new();
    for (_, device) in answering(observation) {
        for process in &device.processes {
            let whose = match &process.owner {
                Owner::Tenant { name, source } => (name.as_str(), source.as_str()),
                Owner::System => ("", "system"),
                Owner::Unattributed(_) | Owner::Unresolved(_) => ("", "unattributed"),
            };
            pids.entry(whose).or_default().add(process.pid);
        }
    }
    let mut processes = families.gauge(
        "gpuquota_processes",
        "Processes on GPUs by tenant and by the evidence for it.",
    );
    for ((tenant, source), pids) in pids {
        processes.row(
            &[("tenant", tenant), ("source", source)],
            pids.count() as f64,
        );
    }
    about_nobodys(families, observation);
}

/// Processes, each counted once wherever it stands. One without a pid counts where it stands.
#[derive(Debug, Default)]
struct Pids {
    named: BTreeSet<u32>,
    nameless: usize,
}

impl Pids {
    fn add(&mut self, pid: Option<u32>) {
        match pid {
            Some(pid) => {
                self.named.insert(pid);
            }
            None => self.nameless += 1,
        }
    }

    fn count(&self) -> usize {
        self.named.len() + self.nameless
    }
}

/// Every reason has a row, so that an alert sees it begin.
fn about_nobodys(families: &mut Families, observation: &Observation) {
    let mut nobodys: BTreeMap<Reason, Pids> = BTreeMap::new();
    for (_, device) in answering(observation) {
        for process in &device.processes {
            if let Some(reason) = process.owner.reason() {
                nobodys.entry(reason).or_default().add(process.pid);
            }
        }
    }
    let mut rows = families.gauge(
        "gpuquota_unattributed_processes",
        "Processes on GPUs that belong to no known tenant, by the reason.",
    );
    for reason in Reason::ALL {
        // A virtual machine is no process.
        if reason != Reason::VmUnknown {
            let count = nobodys.get(&reason).map_or(0, Pids::count);
            rows.row(&[("reason", reason.as_str())], count as f64);
        }
    }
}
