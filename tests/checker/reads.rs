//! What processes showed: prefixes of the one journal, never going back, folded to the same bytes; and in the end what
//! the nodes truly have.

use std::collections::BTreeMap;

use gpuquota_core::id::NodeName;

use super::fold::Journal;
use super::{Entry, Rule, Violation, What};

const EMPTY: &str = "0000000000000000000000000000000000000000000000000000000000000000";

pub(super) fn check(history: &[Entry], journal: &Journal, found: &mut Vec<Violation>) {
    let mut shown: BTreeMap<&str, u64> = BTreeMap::new();
    for (at_entry, entry) in history.iter().enumerate() {
        match &entry.what {
            What::Read {
                process,
                seq,
                head,
                digest,
                leases,
            } => {
                let last = shown.entry(process).or_default();
                if *seq < *last {
                    let text = format!("{process} showed row {last}, then only row {seq}");
                    found.push(Violation::new(Rule::Fold, text));
                }
                *last = *seq;
                let row = journal.row(*seq);
                let durable = *seq == 0 || row.is_some_and(|row| row.at_entry < at_entry);
                if !durable {
                    let text = format!("{process} showed row {seq} before it was durable");
                    found.push(Violation::new(Rule::Fold, text));
                } else if head
                    .as_ref()
                    .is_some_and(|head| row.map_or(EMPTY, |row| row.hash.as_str()) != head)
                {
                    let text = format!("{process} showed another row {seq}");
                    found.push(Violation::new(Rule::Fold, text));
                }
                if let Some(digest) = digest
                    && journal.digests.get(seq) != Some(digest)
                {
                    let text = format!("{process} folded rows 1 to {seq} to another state");
                    found.push(Violation::new(Rule::Fold, text));
                }
                if let Some(leases) = leases {
                    let known = row.map(|row| row.state.live_leases());
                    let known = known.into_iter().flatten();
                    let known: BTreeMap<u64, u64> =
                        known.map(|lease| (lease.id.0, lease.epoch.0)).collect();
                    if known != *leases {
                        let text = format!(
                            "{process} showed at row {seq} the leases {leases:?}, the rows say {known:?}"
                        );
                        found.push(Violation::new(Rule::Fold, text));
                    }
                }
            }
            What::Truth { node, devices } => truth(node, devices, journal, found),
            What::Invoke(_)
            | What::Answer { .. }
            | What::Row(_)
            | What::Alarm { .. }
            | What::Note { .. } => {}
        }
    }
}

// Taken after the last report of the node, so the last state is the one to compare with.
fn truth(
    node: &str,
    devices: &BTreeMap<String, Vec<String>>,
    journal: &Journal,
    found: &mut Vec<Violation>,
) {
    let (Ok(name), Some(last)) = (NodeName::new(node), journal.rows.last()) else {
        return;
    };
    let known = last.state.devices();
    let known: BTreeMap<String, Vec<String>> = known
        .filter(|(_, device)| device.node == name)
        .map(|(key, device)| {
            let tenants = device.holders.keys();
            (key.to_string(), tenants.map(ToString::to_string).collect())
        })
        .collect();
    if known != *devices {
        let text = format!("{node} has {devices:?}; the ledger says {known:?}");
        found.push(Violation::new(Rule::Session, text));
    }
}
