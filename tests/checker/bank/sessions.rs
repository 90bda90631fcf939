//! Sessions and reports: only the newest session is heard, each report counts once.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::event::Event;
use gpuquota_core::id::NodeName;

use super::super::Rule;
use super::super::fold::Durable;
use super::Broken;

#[derive(Default)]
pub(super) struct Sessions {
    newest: BTreeMap<NodeName, u64>,
    reports: BTreeSet<(NodeName, String, u64)>,
}

impl Sessions {
    pub(super) fn take(&mut self, event: &Event, row: &Durable, broken: &mut Broken) {
        match event {
            Event::SessionOpened { node, session, .. } => {
                let before = self.newest.insert(node.clone(), session.0);
                if before.is_some_and(|before| before >= session.0) {
                    let text = format!("{node} opens session {} after {before:?}", session.0);
                    broken.add(Rule::Session, text);
                }
            }
            Event::NodeReported {
                node,
                spool,
                number,
                ..
            } => {
                let report = (node.clone(), spool.clone(), *number);
                if !self.reports.insert(report) {
                    let text = format!("report {number} of spool {spool} counts twice");
                    broken.add(Rule::Once, text);
                }
                // A report's operation id names the session that it was sent in.
                let said = row.op.as_deref().and_then(|op| op.strip_prefix("agent/"));
                let said = said.and_then(|op| op.split('/').nth(1)?.parse::<u64>().ok());
                let newest = self.newest.get(node).copied();
                if said.is_some() && said != newest {
                    let text = format!("{node} is heard in session {said:?}, not in {newest:?}");
                    broken.add(Rule::Session, text);
                }
            }
            _ => {}
        }
    }
}
