//! The bank rule, by a recount of its own: from the events alone, without the ledger's indexes and sums.

mod devices;
mod leases;
mod licences;
mod sessions;
mod steps;

use std::collections::BTreeSet;

use gpuquota_core::Group;
use gpuquota_core::event::Event;
use gpuquota_core::id::TenantName;

use super::fold::{Durable, Journal};
use super::{Rule, Violation};

use devices::Devices;
use leases::Leases;
use licences::Licences;
use sessions::Sessions;
use steps::Steps;

/// What one row breaks.
#[derive(Default)]
struct Broken(Vec<(Rule, String)>);

impl Broken {
    fn add(&mut self, rule: Rule, text: String) {
        self.0.push((rule, text));
    }
}

/// What the events so far say.
#[derive(Default)]
struct Bank {
    licences: Licences,
    leases: Leases,
    devices: Devices,
    sessions: Sessions,
    steps: Steps,
    /// Tenants that were given time to end what is over.
    draining: BTreeSet<(TenantName, Group)>,
}

impl Bank {
    fn take(&mut self, event: &Event, row: &Durable, broken: &mut Broken) {
        let may_not_grow = match event {
            Event::LeaseGranted { .. } => true,
            Event::QuotaSet {
                key, expires_at, ..
            } => expires_at.is_none_or(|end| end.0 > row.at) && !self.drains(&key.tenant, row),
            Event::QuotaSwitched { quota, .. } => {
                let whose = self.devices.entitled(*quota);
                whose.is_some_and(|tenant| !self.drains(tenant, row))
            }
            Event::QuotaReleased { forced, .. } => !forced,
            _ => false,
        };
        let over = |bank: &Self| match may_not_grow {
            true => bank.devices.over(&bank.leases, row.at),
            false => 0,
        };
        let before = over(self);
        match event {
            Event::DrainBegun { tenant, group, .. } => {
                self.draining.insert((tenant.clone(), group.clone()));
            }
            Event::DrainEnded { tenant, group, .. } => {
                self.draining.remove(&(tenant.clone(), group.clone()));
            }
            _ => {}
        }
        let before_it = (&self.devices, &self.leases);
        self.steps.take(event, row, before_it, broken);
        self.licences.take(event, row, broken);
        self.leases.take(event, row, &self.devices, broken);
        self.devices.take(event, row);
        self.sessions.take(event, row, broken);
        let after = over(self);
        if after > before {
            let text = format!("{before} devices were over the quotas, now {after}: {event:?}");
            broken.add(Rule::Bank, text);
        }
    }

    // A quota may shrink below use where the tenant has time to leave, from this row on or already.
    fn drains(&self, tenant: &TenantName, row: &Durable) -> bool {
        let begun = row
            .record
            .events
            .iter()
            .any(|event| matches!(event, Event::DrainBegun { tenant: of, .. } if of == tenant));
        begun || self.draining.iter().any(|(of, _)| of == tenant)
    }
}

pub(super) fn check(journal: &Journal, found: &mut Vec<Violation>) {
    let mut bank = Bank::default();
    for row in &journal.rows {
        let mut broken = Broken::default();
        for event in &row.record.events {
            bank.take(event, row, &mut broken);
        }
        bank.licences.recount(row, &bank.devices, &mut broken);
        bank.devices.recount(row, &bank.leases, &mut broken);
        for (rule, text) in broken.0 {
            let text = format!("row {}: {text}", row.seq);
            found.push(Violation::new(rule, text));
        }
    }
}
