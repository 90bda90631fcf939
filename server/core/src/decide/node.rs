//! Nodes: sessions, silence, reports. A node speaks for itself only, and once for each report number.

use std::collections::BTreeSet;

use crate::command::{Decision, NodeReport, Outcome};
use crate::device::DeviceKey;
use crate::event::{Event, SilenceReason};
use crate::explain::Denied;
use crate::id::{NodeName, Region, SessionId, Timestamp};
use crate::mutant::{Mutant, planted};
use crate::node::{MOST_DEVICES, Node, NodeState};
use crate::state::State;

use super::done;

impl State {
    pub(super) fn decide_open_session(
        &self,
        node: &NodeName,
        default_region: &Region,
        boot_id: &str,
        agent_version: &str,
        now: Timestamp,
    ) -> Decision {
        let known = self.node(node);
        let before = known.map(|known| known.session);
        let before = before.or_else(|| self.rows.retired.get(node).copied());
        let before = before.map_or(0, |before| before.0);
        // Above any that the node had, also in what a restored journal has lost.
        let session = SessionId(before.max(self.incarnation().first_id()) + 1);
        let region = known.map_or(default_region, |known| &known.region);
        let mut events = vec![Event::SessionOpened {
            node: node.clone(),
            region: region.clone(),
            session,
            boot_id: boot_id.to_owned(),
            agent_version: agent_version.to_owned(),
            // Written in by whoever journals it.
            owner: None,
        }];
        if known.is_some_and(|known| known.state != NodeState::Up) {
            events.extend(self.wait_anew(node, now));
        }
        Decision {
            events,
            outcome: Outcome::Session(session),
        }
    }

    pub(super) fn decide_silence(
        &self,
        name: &NodeName,
        session: SessionId,
        reason: SilenceReason,
    ) -> Result<Decision, Denied> {
        let node = self.in_session(name, session)?;
        if node.state != NodeState::Up {
            return Ok(done(Vec::new()));
        }
        Ok(done(vec![Event::NodeSilent {
            node: name.clone(),
            reason,
        }]))
    }

    pub(super) fn decide_heard(
        &self,
        name: &NodeName,
        session: SessionId,
        now: Timestamp,
    ) -> Result<Decision, Denied> {
        let node = self.in_session(name, session)?;
        if node.state == NodeState::Up {
            return Ok(done(Vec::new()));
        }
        let mut events = vec![Event::NodeHeard { node: name.clone() }];
        events.extend(self.wait_anew(name, now));
        Ok(done(events))
    }

    pub(super) fn decide_report(
        &self,
        report: &NodeReport,
        now: Timestamp,
    ) -> Result<Decision, Denied> {
        let node = self.in_session(&report.node, report.session)?;
        if let Some(last) = node.journalled(&report.spool)
            && report.number <= last
        {
            return Ok(Decision {
                events: Vec::new(),
                outcome: Outcome::Reported(last),
            });
        }
        check_order(node, report)?;
        self.check_ownership(report)?;
        check_count(node, report)?;
        let observed_at = observed_at(node, report, now);
        let mut events = vec![Event::NodeReported {
            node: report.node.clone(),
            spool: report.spool.clone(),
            number: report.number,
            observed_at,
            full: report.full,
            facts: report.facts.clone(),
            devices: report.devices.clone(),
            gone: report.gone.clone(),
            earlier: report.read_after.is_none(),
        }];
        if let Some(read_after) = report.read_after {
            events.extend(self.confirmed_by_report(
                &report.node,
                read_after,
                report.full,
                &report.devices,
                &report.gone,
            ));
        }
        Ok(Decision {
            events,
            outcome: Outcome::Reported(report.number),
        })
    }

    pub(super) fn in_session(&self, name: &NodeName, session: SessionId) -> Result<&Node, Denied> {
        // A node that was only declared has no session to speak in.
        let newest = self.node(name).filter(|node| {
            (node.session == session || planted(Mutant::HearOldSession))
                && node.state != NodeState::Expected
        });
        newest.ok_or(Denied::StaleSession)
    }

    fn check_ownership(&self, report: &NodeReport) -> Result<(), Denied> {
        let mut seen: BTreeSet<&DeviceKey> = BTreeSet::new();
        let devices = report.devices.iter();
        let named = devices.map(|device| (&device.key, device.gpu()));
        let gone = report.gone.iter().map(|key| (key, None));
        for (key, gpu) in named.chain(gone) {
            // All parts of a GPU are one node's.
            let gpu = gpu.into_iter().flat_map(|gpu| self.parts_of(gpu));
            let mut known = self.device(key).into_iter().chain(gpu);
            if let Some(device) = known.find(|device| device.node != report.node) {
                return Err(Denied::DeviceOfOtherNode {
                    device: device.report.key.clone(),
                    owner: device.node.clone(),
                });
            }
            if !seen.insert(key) {
                return Err(Denied::DeviceTwice {
                    device: key.clone(),
                });
            }
        }
        Ok(())
    }
}

const OLDEST_MS: u64 = 30 * 24 * 60 * 60 * 1000;

// Reports come in order, so none is older than the one before; nobody holds a device since before we can know.
fn observed_at(node: &Node, report: &NodeReport, now: Timestamp) -> Timestamp {
    let earliest = node.observed_at.unwrap_or(now.before(OLDEST_MS));
    let heard = report.heard_at.map_or(now, |heard| heard.min(now));
    heard.before(report.age_ms.unwrap_or(0)).max(earliest)
}

// What a node has after the report, each key standing once in it.
fn check_count(node: &Node, report: &NodeReport) -> Result<(), Denied> {
    let has = |key: &&DeviceKey| node.devices.contains(*key);
    let reported = report.devices.iter().map(|device| &device.key);
    let count = if report.full {
        report.devices.len()
    } else {
        let new = reported.filter(|key| !has(key)).count();
        let gone = report.gone.iter().filter(has).count();
        node.devices.len() + new - gone
    };
    if count > MOST_DEVICES {
        return Err(Denied::TooManyDevices { most: MOST_DEVICES });
    }
    Ok(())
}

// A full report may follow any gap; an increment only the report right before it.
fn check_order(node: &Node, report: &NodeReport) -> Result<(), Denied> {
    let last = match &node.spool {
        Some(mark) if mark.spool == report.spool => mark.number,
        _ => 0,
    };
    let follows = node.spool.as_ref().is_some_and(|mark| {
        mark.spool == report.spool && mark.number.checked_add(1) == Some(report.number)
    });
    if follows || report.full {
        return Ok(());
    }
    Err(Denied::ReportGap {
        last,
        number: report.number,
    })
}
