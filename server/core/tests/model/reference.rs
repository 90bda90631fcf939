//! The ledger told again, as naively as possible: lists searched from end to end, no index, no flag that follows from
//! another field, ends compared with the clock where they are needed. Slow and obvious; it shares only names, numbers
//! and the command types with the crate.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::Command;
use gpuquota_core::command::{DeclareNode, NodeReport, Outcome, QuotaName, ReleaseQuota, SetQuota};
use gpuquota_core::device::{DeviceKey, DeviceReport};
use gpuquota_core::id::{
    GpuModel, NodeName, QuotaId, Reference, Region, Seq, SessionId, TenantName, Timestamp,
};
use gpuquota_core::limit::Limit;
use gpuquota_core::node::NodeState;
use gpuquota_core::quota::{QuotaSource, QuotaType};
use gpuquota_core::settings::Settings;

use crate::charge::Kin;
use crate::promised::{Known, Promise};

pub(crate) const DAY: i64 = 24 * 60 * 60 * 1000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entitled {
    pub(crate) id: QuotaId,
    pub(crate) tenant: TenantName,
    pub(crate) region: Region,
    pub(crate) source: QuotaSource,
    pub(crate) quota_type: QuotaType,
    pub(crate) model: GpuModel,
    pub(crate) limit: Limit,
    pub(crate) end: Option<Timestamp>,
    pub(crate) off: bool,
    pub(crate) reference: Option<Reference>,
    pub(crate) nodes: BTreeSet<NodeName>,
    pub(crate) made: Timestamp,
}

impl Entitled {
    pub(crate) fn ended(&self, now: Timestamp) -> bool {
        self.end.is_some_and(|end| end <= now)
    }

    pub(crate) fn over(&self, now: Timestamp) -> bool {
        self.off || self.ended(now)
    }

    fn named(&self, name: &QuotaName, quota_type: QuotaType) -> bool {
        self.tenant == name.tenant
            && self.region == name.region
            && self.source == name.source
            && self.quota_type == quota_type
            && self.model == name.gpu_model
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) name: NodeName,
    pub(crate) region: Region,
    pub(crate) state: NodeState,
    pub(crate) session: u64,
    /// Every spool it ever reported from, with its last number.
    pub(crate) spools: Vec<(String, u64)>,
    /// When it observed what it last reported.
    pub(crate) observed: Option<Timestamp>,
    /// It said in its newest session, since it is heard, who is on its devices.
    pub(crate) settled: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) node: NodeName,
    pub(crate) report: DeviceReport,
    pub(crate) since: BTreeMap<TenantName, Timestamp>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Charged {
    pub(crate) used: BTreeMap<QuotaId, u64>,
    pub(crate) leased: BTreeMap<QuotaId, u64>,
    pub(crate) observed: BTreeMap<QuotaId, u64>,
    pub(crate) violations: BTreeSet<(&'static str, NodeName, DeviceKey)>,
    pub(crate) excess: u64,
    pub(crate) over: BTreeSet<Kin>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Naive {
    pub(crate) quotas: Vec<Entitled>,
    pub(crate) made: u64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) devices: Vec<Held>,
    pub(crate) revoked: Vec<(String, Timestamp)>,
    pub(crate) tenants: Vec<Known>,
    pub(crate) settings: Settings,
    pub(crate) promises: Vec<Promise>,
    /// Cards of a tenant, or of everybody else, on a node with GPUs.
    pub(crate) cards: Vec<(Option<TenantName>, u32)>,
    /// The row that is written now.
    pub(crate) row: Seq,
}

/// Granted, or the rule that stands against it with the numbers it tells.
pub(crate) type Said = Result<Outcome, String>;

impl Naive {
    /// A row that was written so many rows ago.
    pub(crate) fn row_before(&self, behind: u64) -> Seq {
        Seq(self.row.0.saturating_sub(behind))
    }

    pub(crate) fn obey(&mut self, command: &Command, now: Timestamp) -> Said {
        match command {
            Command::SetQuota(set) => self.set(set, now),
            Command::ReleaseQuota(release) => self.release(release, now),
            Command::SwitchQuota(switch) => self.switch(*switch, now),
            Command::DeclareNode(DeclareNode { node, region, .. }) => {
                self.host_or_new(node, region).region = region.clone();
                Ok(Outcome::Done)
            }
            Command::OpenSession {
                node,
                default_region,
                ..
            } => {
                let host = self.host_or_new(node, default_region);
                let was = host.state;
                host.session += 1;
                host.state = NodeState::Up;
                host.settled = false;
                let session = SessionId(host.session);
                if was != NodeState::Up {
                    self.heard_again(node, now);
                }
                Ok(Outcome::Session(session))
            }
            Command::Report(report) => self.report(report, now),
            Command::MarkSilent { node, session, .. } => {
                let host = self.in_session(node, *session)?;
                (host.state, host.settled) = (NodeState::Silent, false);
                Ok(Outcome::Done)
            }
            Command::MarkHeard { node, session } => {
                let host = self.in_session(node, *session)?;
                if host.state != NodeState::Up {
                    host.state = NodeState::Up;
                    self.heard_again(node, now);
                }
                Ok(Outcome::Done)
            }
            Command::RevokeToken { token, until } => {
                self.revoked.push((token.clone(), *until));
                Ok(Outcome::Done)
            }
            Command::Sweep | Command::NoteSnapshot { .. } => Ok(Outcome::Done),
            other => self.obey_of_leases(other, now),
        }
    }

    pub(crate) fn bound(&self, node: &NodeName, now: Timestamp) -> Option<&TenantName> {
        let mut binding = self.quotas.iter().filter(|q| !q.over(now));
        let quota = binding.find(|q| q.nodes.contains(node))?;
        Some(&quota.tenant)
    }

    fn host_or_new(&mut self, name: &NodeName, region: &Region) -> &mut Host {
        let at = self.hosts.iter().position(|host| host.name == *name);
        let at = at.unwrap_or_else(|| {
            self.hosts.push(Host {
                name: name.clone(),
                region: region.clone(),
                state: NodeState::Expected,
                session: 0,
                spools: Vec::new(),
                observed: None,
                settled: false,
            });
            self.hosts.len() - 1
        });
        &mut self.hosts[at]
    }

    pub(crate) fn in_session(
        &mut self,
        name: &NodeName,
        session: SessionId,
    ) -> Result<&mut Host, String> {
        let mut hosts = self.hosts.iter_mut();
        let host = hosts.find(|h| h.name == *name && h.session == session.0 && h.session > 0);
        host.ok_or_else(|| "stale_session".to_owned())
    }

    fn referred(&self, name: &QuotaName) -> Option<&Entitled> {
        let wanted = name.reference?;
        let mut quotas = self.quotas.iter();
        quotas.find(|q| q.tenant == name.tenant && q.reference == Some(wanted))
    }

    fn type_of(&self, name: &QuotaName, with_nodes: bool) -> Result<QuotaType, String> {
        let referred = self.referred(name);
        let quota_type = if with_nodes {
            if name.quota_type.is_some_and(|t| t != QuotaType::Dedicated) {
                return Err("nodes_without_dedicated".into());
            }
            QuotaType::Dedicated
        } else if let Some(said) = name.quota_type {
            said
        } else if let Some(referred) = referred {
            referred.quota_type
        } else if name.gpu_model.as_str() == "nvidia.com/gpu" {
            QuotaType::Flexible
        } else if name.gpu_model.as_str().starts_with("nvidia.com/mig-") {
            QuotaType::Mig
        } else {
            QuotaType::Vgpu
        };
        if referred.is_some_and(|q| !q.named(name, quota_type)) {
            return Err("reference_taken".into());
        }
        Ok(quota_type)
    }

    fn set(&mut self, set: &SetQuota, now: Timestamp) -> Said {
        let name = &set.name;
        let quota_type = self.type_of(name, set.nodes.is_some())?;
        let mut nodes = BTreeSet::new();
        if quota_type == QuotaType::Dedicated {
            let known = self.referred(name).map(|q| q.nodes.clone());
            nodes = set.nodes.clone().or(known).unwrap_or_default();
            if nodes.is_empty() {
                return Err("dedicated_without_nodes".into());
            }
        }
        let old = self.quotas.iter().position(|q| q.named(name, quota_type));
        let off = old.is_some_and(|at| self.quotas[at].off);
        let foreign = |node| self.bound(node, now).is_some_and(|t| *t != name.tenant);
        if !off && nodes.iter().any(foreign) {
            return Err("node_bound".into());
        }
        let ends_now = set.expires_at.is_some_and(|end| end <= now);
        if !(ends_now || off) && self.others_lease(&name.tenant, &nodes, now) {
            return Err("leased_by_others".into());
        }
        let mut after = self.clone();
        let at = old.unwrap_or_else(|| {
            after.quotas.push(Entitled {
                id: QuotaId(self.made),
                tenant: name.tenant.clone(),
                region: name.region.clone(),
                source: name.source,
                quota_type,
                model: name.gpu_model.clone(),
                limit: Limit::Finite(0),
                end: set.expires_at,
                off: false,
                reference: None,
                nodes: BTreeSet::new(),
                made: now,
            });
            after.made += 1;
            self.quotas.len()
        });
        let new = &mut after.quotas[at];
        let id = new.id;
        let (lived, lived_until) = (!new.ended(now), new.end);
        new.limit = set.limit;
        new.nodes = nodes;
        new.reference = name.reference.or(new.reference);
        // An end in the past is always taken (D0.6): what it leaves unjustified is not the limit's doing.
        new.end = set.expires_at;
        let mut judged = after.clone();
        if lived && judged.quotas[at].ended(now) {
            judged.quotas[at].end = lived_until;
        }
        self.check_excess(&judged, &name.tenant, now)?;
        *self = after;
        self.know(&name.tenant);
        Ok(Outcome::Quota(id))
    }

    fn release(&mut self, release: &ReleaseQuota, now: Timestamp) -> Said {
        let missing = |why: &str| match release.must_exist {
            true => Err(why.to_owned()),
            false => Ok(Outcome::Done),
        };
        let quota_type = match self.type_of(&release.name, false) {
            Ok(quota_type) => quota_type,
            Err(rule) => return missing(&rule),
        };
        let mut quotas = self.quotas.iter();
        let Some(at) = quotas.position(|q| q.named(&release.name, quota_type)) else {
            return missing("no_such_quota");
        };
        let quota = &self.quotas[at];
        let wanted = release.name.reference;
        if wanted.is_some_and(|reference| quota.reference != Some(reference)) {
            return missing("no_such_quota");
        }
        let used = self.charge(&quota.tenant, now).used[&quota.id];
        if used > 0 && !release.forced {
            return Err(format!("in_use by {used}"));
        }
        self.quotas.remove(at);
        Ok(Outcome::Done)
    }

    fn report(&mut self, report: &NodeReport, now: Timestamp) -> Said {
        let host = self.in_session(&report.node, report.session)?;
        let newest = host.spools.last().cloned();
        let known = host
            .spools
            .iter()
            .filter(|(spool, _)| *spool == report.spool);
        if let Some(last) = known.map(|(_, last)| *last).max()
            && report.number <= last
        {
            return Ok(Outcome::Reported(last));
        }
        let same = newest.as_ref().is_some_and(|s| s.0 == report.spool);
        let follows = newest.is_some_and(|s| same && s.1 + 1 == report.number);
        if !(follows || report.full) {
            return Err("report_gap".into());
        }
        let mut seen = Vec::new();
        let named = report.devices.iter().map(|d| (&d.key, d.gpu()));
        for (key, gpu) in named.chain(report.gone.iter().map(|key| (key, None))) {
            let same = |d: &Held| match &d.report.key {
                own if own == key => true,
                DeviceKey::Gpu(_) | DeviceKey::Mig { .. } => gpu.is_some() && d.report.gpu() == gpu,
                DeviceKey::Vgpu(_) => false,
            };
            if self
                .devices
                .iter()
                .any(|d| same(d) && d.node != report.node)
            {
                return Err("device_of_other_node".into());
            }
            if seen.contains(&key) {
                return Err("device_twice".into());
            }
            seen.push(key);
        }
        let host = self.in_session(&report.node, report.session)?;
        if same {
            host.spools.pop();
        }
        host.spools.push((report.spool.clone(), report.number));
        let age = i64::try_from(report.age_ms.unwrap_or(0)).unwrap_or(0);
        let earliest = host.observed.map_or(i64::MIN, |last| last.0);
        let observed = Timestamp((now.0 - age).max(earliest));
        host.observed = Some(observed);
        host.settled |= report.read_after.is_some() && host.state == NodeState::Up;
        let known = self.devices.clone();
        let named = |key| report.devices.iter().any(|d| d.key == key);
        self.devices.retain(|d| {
            let gone = report.full || report.gone.contains(&d.report.key);
            d.node != report.node || !(gone || named(d.report.key.clone()))
        });
        for device in &report.devices {
            let old = known.iter().find(|d| d.report.key == device.key);
            let since = |t: &TenantName| old.and_then(|o| o.since.get(t).copied());
            let held = device.tenants.iter();
            let held = held.map(|t| (t.clone(), since(t).unwrap_or(observed)));
            self.devices.push(Held {
                node: report.node.clone(),
                report: device.clone(),
                since: held.collect(),
            });
        }
        self.read(&report.node, report.read_after, now);
        Ok(Outcome::Reported(report.number))
    }
}
