//! Licences: no seat is granted beyond what the tenant's quotas of the product let it have.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::device::LicenceState;
use gpuquota_core::event::Event;
use gpuquota_core::id::{LicenceQuotaId, ProductId, SeatId, TenantName};
use gpuquota_core::licence::{LicenceTerms, Product, Seat};
use gpuquota_core::licence_usage::licences_used;

use super::super::Rule;
use super::super::fold::Durable;
use super::Broken;
use super::devices::Devices;

#[derive(Default)]
pub(super) struct Licences {
    products: BTreeMap<ProductId, Product>,
    quotas: BTreeMap<LicenceQuotaId, (LicenceTerms, bool)>,
    seats: BTreeMap<SeatId, Seat>,
    given_out: BTreeSet<SeatId>,
    /// Seats of this row; they are judged once all of it is taken.
    new: Vec<Seat>,
}

impl Licences {
    pub(super) fn take(&mut self, event: &Event, row: &Durable, broken: &mut Broken) {
        match event {
            Event::ProductSet(product) => {
                self.products.insert(product.id, product.clone());
            }
            Event::ProductRemoved { product } => {
                self.products.remove(product);
            }
            Event::LicenceQuotaSet(terms) => {
                let ended = terms.expires_at.is_some_and(|end| end.0 <= row.at);
                self.quotas.insert(terms.quota, (terms.clone(), ended));
            }
            Event::LicenceQuotaExpired { quota } => {
                if let Some((_, expired)) = self.quotas.get_mut(quota) {
                    *expired = true;
                }
            }
            Event::SeatSet(seat) => {
                let renewed = self.seats.insert(seat.seat, seat.clone()).is_some();
                if !renewed {
                    self.new.push(seat.clone());
                }
                if !renewed && !self.given_out.insert(seat.seat) {
                    broken.add(Rule::Bank, format!("seat {} lives again", seat.seat.0));
                }
            }
            Event::SeatReleased { seat } | Event::SeatExpired { seat } => {
                let lived = self.seats.remove(seat);
                if lived.is_none() {
                    broken.add(Rule::Bank, format!("seat {} ends twice", seat.0));
                }
            }
            _ => {}
        }
    }

    /// Judges the row's grants, and the ledger's own figures after it.
    pub(super) fn recount(&mut self, row: &Durable, devices: &Devices, broken: &mut Broken) {
        for seat in std::mem::take(&mut self.new) {
            let granted = self.granted(&seat, row.at);
            let used = self.used(&seat.tenant, seat.product, devices);
            if used > granted {
                let text = format!("seat {seat:?} is granted: {used} used of {granted}");
                broken.add(Rule::Bank, text);
            }
        }
        for (tenant, _) in row.state.tenants() {
            let counted = licences_used(&row.state, tenant);
            for product in self.products.keys() {
                let counted = counted.get(product).copied().unwrap_or(0);
                let used = self.used(tenant, *product, devices);
                if counted != used {
                    let text = format!("{tenant} uses {used} licences, the ledger says {counted}");
                    broken.add(Rule::Bank, text);
                }
            }
        }
    }

    fn granted(&self, seat: &Seat, at: i64) -> u64 {
        let granting = self.quotas.values().filter(|(terms, expired)| {
            terms.tenant == seat.tenant
                && terms.product == seat.product
                && terms.is_active
                && !expired
                && terms.expires_at.is_none_or(|end| end.0 > at)
        });
        granting.map(|(terms, _)| u64::from(terms.max)).sum()
    }

    fn used(&self, tenant: &TenantName, product: ProductId, devices: &Devices) -> u64 {
        let seats = self.seats.values();
        let seats = seats.filter(|seat| seat.tenant == *tenant && seat.product == product);
        let licensed = devices.reports().filter(|device| {
            let mut products = self.products.values();
            device.licence == Some(LicenceState::Licensed)
                && device.tenants.contains(tenant)
                && products
                    .find(|product| product.licenses(&device.model))
                    .is_some_and(|found| found.id == product)
        });
        (seats.count() + licensed.count()) as u64
    }
}
