//! The bank rule, by a recount of its own: from the events alone, without the ledger's indexes and sums.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::device::{DeviceKey, DeviceReport, LicenceState};
use gpuquota_core::event::Event;
use gpuquota_core::id::{
    GpuModel, LicenceQuotaId, NodeName, ProductId, QuotaId, Region, SeatId, TenantName,
};
use gpuquota_core::licence::{LicenceTerms, Product, Seat};
use gpuquota_core::licence_usage::licences_used;
use gpuquota_core::limit::Limit;
use gpuquota_core::quota::{QuotaKey, QuotaType};

use super::fold::{Durable, Journal};
use super::{Rule, Violation};

pub(super) fn check(journal: &Journal, found: &mut Vec<Violation>) {
    let mut bank = Bank::default();
    for row in &journal.rows {
        let mut broken = bank.take(row);
        broken.extend(bank.recount(row));
        for (rule, text) in broken {
            let text = format!("row {}: {text}", row.seq);
            found.push(Violation::new(rule, text));
        }
    }
}

type Broken = Vec<(Rule, String)>;

struct Held {
    key: QuotaKey,
    limit: Limit,
    expires_at: Option<i64>,
    expired: bool,
}

/// What the events so far say.
#[derive(Default)]
struct Bank {
    products: BTreeMap<ProductId, Product>,
    licences: BTreeMap<LicenceQuotaId, (LicenceTerms, bool)>,
    seats: BTreeMap<SeatId, Seat>,
    given_out: BTreeSet<SeatId>,
    quotas: BTreeMap<QuotaId, Held>,
    devices: BTreeMap<DeviceKey, (NodeName, DeviceReport)>,
    regions: BTreeMap<NodeName, Region>,
    sessions: BTreeMap<NodeName, u64>,
    reports: BTreeSet<(NodeName, String, u64)>,
}

impl Bank {
    fn take(&mut self, row: &Durable) -> Broken {
        let mut broken = Vec::new();
        for event in &row.record.events {
            let before = self.excess(row.at);
            let may_grow = self.apply(event, row, &mut broken);
            let after = self.excess(row.at);
            if !may_grow && after > before {
                let text = format!("a quota shrank below use: {before} were over, now {after}");
                broken.push((Rule::Bank, text));
            }
        }
        broken
    }

    // Whether what is over the quotas may grow by it.
    fn apply(&mut self, event: &Event, row: &Durable, broken: &mut Broken) -> bool {
        match event {
            Event::ProductSet(product) => {
                self.products.insert(product.id, product.clone());
            }
            Event::ProductRemoved { product } => {
                self.products.remove(product);
            }
            Event::LicenceQuotaSet(terms) => {
                let ended = terms.expires_at.is_some_and(|end| end.0 <= row.at);
                self.licences.insert(terms.quota, (terms.clone(), ended));
            }
            Event::LicenceQuotaExpired { quota } => {
                if let Some((_, expired)) = self.licences.get_mut(quota) {
                    *expired = true;
                }
            }
            Event::SeatSet(seat) => self.seat(seat, row, broken),
            Event::SeatReleased { seat } | Event::SeatExpired { seat } => {
                let lived = self.seats.remove(seat);
                if lived.is_none() {
                    broken.push((Rule::Bank, format!("seat {} ends twice", seat.0)));
                }
            }
            Event::QuotaSet {
                quota,
                key,
                limit,
                expires_at,
                ..
            } => {
                let ended = expires_at.is_some_and(|end| end.0 <= row.at);
                let held = Held {
                    key: key.clone(),
                    limit: *limit,
                    expires_at: expires_at.map(|end| end.0),
                    expired: ended,
                };
                self.quotas.insert(*quota, held);
                return ended;
            }
            Event::QuotaReleased { quota, forced } => {
                self.quotas.remove(quota);
                return *forced;
            }
            Event::QuotaExpired { quota } => {
                if let Some(held) = self.quotas.get_mut(quota) {
                    held.expired = true;
                }
                return true;
            }
            Event::SessionOpened {
                node,
                region,
                session,
                ..
            } => {
                self.regions.insert(node.clone(), region.clone());
                let before = self.sessions.insert(node.clone(), session.0);
                if before.is_some_and(|before| before >= session.0) {
                    let text = format!("{node} opens session {} after {before:?}", session.0);
                    broken.push((Rule::Session, text));
                }
            }
            Event::NodeDeclared { node, region, .. } => {
                self.regions.insert(node.clone(), region.clone());
                return true;
            }
            Event::NodeReported {
                node,
                spool,
                number,
                full,
                devices,
                gone,
                ..
            } => {
                let report = (node.clone(), spool.clone(), *number);
                if !self.reports.insert(report) {
                    let text = format!("report {number} of spool {spool} counts twice");
                    broken.push((Rule::Once, text));
                }
                self.in_session(node, row, broken);
                self.devices
                    .retain(|key, (of, _)| of != node || !(*full || gone.contains(key)));
                for device in devices {
                    let entry = (node.clone(), device.clone());
                    self.devices.insert(device.key.clone(), entry);
                }
                return true;
            }
            // Nothing that is counted here.
            _ => {}
        }
        false
    }

    // A report's operation id names the session that it was sent in.
    fn in_session(&self, node: &NodeName, row: &Durable, broken: &mut Broken) {
        let said = row.op.as_deref().and_then(|op| op.strip_prefix("agent/"));
        let said = said.and_then(|op| op.split('/').nth(1)?.parse::<u64>().ok());
        let newest = self.sessions.get(node).copied();
        if said.is_some() && said != newest {
            let text = format!("{node} is heard in session {said:?}; its newest is {newest:?}");
            broken.push((Rule::Session, text));
        }
    }

    fn seat(&mut self, seat: &Seat, row: &Durable, broken: &mut Broken) {
        let renewed = self.seats.insert(seat.seat, seat.clone()).is_some();
        if renewed {
            return;
        }
        if !self.given_out.insert(seat.seat) {
            broken.push((Rule::Bank, format!("seat {} lives again", seat.seat.0)));
        }
        let granted = self.licences.values().filter(|(terms, expired)| {
            terms.tenant == seat.tenant
                && terms.product == seat.product
                && terms.is_active
                && !expired
                && terms.expires_at.is_none_or(|end| end.0 > row.at)
        });
        let granted: u64 = granted.map(|(terms, _)| u64::from(terms.max)).sum();
        let used = self.used(&seat.tenant, seat.product);
        if used > granted {
            let text = format!(
                "seat {} of {} is granted: {used} used of {granted}",
                seat.seat.0, seat.tenant
            );
            broken.push((Rule::Bank, text));
        }
    }

    fn used(&self, tenant: &TenantName, product: ProductId) -> u64 {
        let seats = self.seats.values();
        let seats = seats.filter(|seat| seat.tenant == *tenant && seat.product == product);
        let devices = self.devices.values().filter(|(_, device)| {
            let mut products = self.products.values();
            device.licence == Some(LicenceState::Licensed)
                && device.tenants.contains(tenant)
                && products
                    .find(|product| product.licenses(&device.model))
                    .is_some_and(|found| found.id == product)
        });
        (seats.count() + devices.count()) as u64
    }

    // Devices held beyond what quotas of their region, type and model grant. Dedicated nodes are not counted here: what
    // is held on them depends on which quota binds them, which is the ledger's own matter.
    fn excess(&self, at: i64) -> u64 {
        let dedicated = |held: &Held| held.key.quota_type == QuotaType::Dedicated;
        if self.quotas.values().any(dedicated) {
            return 0;
        }
        let mut used: BTreeMap<(&TenantName, &Region, QuotaType, &GpuModel), u64> = BTreeMap::new();
        for (key, (node, device)) in &self.devices {
            let Some(region) = self.regions.get(node).filter(|_| !device.partitioned) else {
                continue;
            };
            let quota_type = match key {
                DeviceKey::Gpu(_) => QuotaType::Flexible,
                DeviceKey::Mig { .. } => QuotaType::Mig,
                DeviceKey::Vgpu(_) => QuotaType::Vgpu,
            };
            for tenant in &device.tenants {
                let place = (tenant, region, quota_type, &device.gpu_model);
                *used.entry(place).or_insert(0) += 1;
            }
        }
        let over = used
            .iter()
            .map(|((tenant, region, quota_type, model), used)| {
                let mut granted = 0_u64;
                for held in self.quotas.values() {
                    let key = &held.key;
                    let fits = key.tenant == **tenant
                        && key.region == **region
                        && key.quota_type == *quota_type
                        && key.gpu_model == **model
                        && !held.expired
                        && held.expires_at.is_none_or(|end| end > at);
                    granted = match (fits, held.limit) {
                        (false, _) => granted,
                        (true, Limit::Finite(limit)) => granted.saturating_add(limit.into()),
                        (true, Limit::Unlimited) => u64::MAX,
                    };
                }
                used.saturating_sub(granted)
            });
        over.sum()
    }

    // The ledger's own figures after the row.
    fn recount(&self, row: &Durable) -> Broken {
        let mut broken = Vec::new();
        for (tenant, _) in row.state.tenants() {
            let counted = licences_used(&row.state, tenant);
            for product in self.products.keys() {
                let counted = counted.get(product).copied().unwrap_or(0);
                let used = self.used(tenant, *product);
                if counted != used {
                    let text =
                        format!("{tenant} uses {used} licences, the ledger counts {counted}");
                    broken.push((Rule::Bank, text));
                }
            }
            let held = self.devices.values();
            let held = held.filter(|(_, device)| device.tenants.contains(tenant));
            let (held, counted) = (held.count(), row.state.devices_of(tenant).count());
            if held != counted {
                let text = format!("{tenant} holds {held} devices, the ledger counts {counted}");
                broken.push((Rule::Bank, text));
            }
        }
        broken
    }
}
