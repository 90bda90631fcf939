//! Software products, licence quotas, seats.

use crate::command::{ChangeLicenceQuota, CheckOutSeat, CreateLicenceQuota, Decision, Outcome};
use crate::event::Event;
use crate::explain::Denied;
use crate::id::{LicenceQuotaId, ProductId, SeatId, TenantName, Timestamp};
use crate::licence::{LicenceQuota, LicenceTerms, MOST_SEATS, MOST_TYPES, Product, Seat};
use crate::licence_usage::{licence_usage, licences_used};
use crate::mutant::{Mutant, planted};
use crate::state::State;

use super::directory::{changed, too_many, unknown};
use super::{done, unchanged};

impl State {
    pub(super) fn decide_set_product(&self, product: &Product) -> Result<Decision, Denied> {
        if product.vgpu_types.len() > MOST_TYPES {
            return Err(too_many("vGPU types of a product", MOST_TYPES));
        }
        let mut others = self.products().filter(|other| other.id != product.id);
        if let Some(other) = others.find(|other| other.code == product.code) {
            return Err(Denied::CodeTaken {
                code: product.code.clone(),
                holder: format!("software product {}", other.id.0),
            });
        }
        let old = self.product(product.id);
        Ok(done(changed(old, product, Event::ProductSet)))
    }

    pub(super) fn decide_remove_product(&self, product: ProductId) -> Result<Decision, Denied> {
        self.known_product(product)?;
        let quotas = self.licence_quotas();
        let quotas = quotas
            .filter(|quota| quota.terms.product == product)
            .count();
        let seats = self.seats().filter(|seat| seat.product == product).count();
        if quotas + seats > 0 {
            return Err(Denied::ReferredTo {
                what: "software product".into(),
                name: product.0.to_string(),
                used: format!("{quotas} licence quotas and {seats} seats"),
            });
        }
        Ok(done(vec![Event::ProductRemoved { product }]))
    }

    pub(super) fn decide_create_licence_quota(
        &self,
        create: &CreateLicenceQuota,
    ) -> Result<Decision, Denied> {
        let tenant = self
            .tenant_by_number(create.tenant)
            .ok_or_else(|| unknown("tenant", &create.tenant.0.to_string()))?;
        self.known_product(create.product)?;
        let quota = LicenceQuotaId(self.rows.next_licence_quota.max(1));
        Ok(Decision {
            events: vec![Event::LicenceQuotaSet(LicenceTerms {
                quota,
                tenant: tenant.profile.tenant.clone(),
                product: create.product,
                max: create.max,
                expires_at: create.expires_at,
                is_active: create.is_active,
            })],
            outcome: Outcome::LicenceQuota(quota),
        })
    }

    pub(super) fn decide_change_licence_quota(
        &self,
        change: &ChangeLicenceQuota,
    ) -> Result<Decision, Denied> {
        let old = self
            .licence_quota(change.quota)
            .ok_or_else(|| unknown("licence quota", &change.quota.0.to_string()))?;
        unchanged("licence quota", change.expected, old.changed)?;
        let terms = LicenceTerms {
            max: change.max.unwrap_or(old.terms.max),
            expires_at: change.expires_at.unwrap_or(old.terms.expires_at),
            is_active: change.is_active.unwrap_or(old.terms.is_active),
            ..old.terms.clone()
        };
        if terms.max < old.terms.max {
            let usage = licence_usage(self, &terms.tenant);
            let used = usage.get(&terms.quota).copied().unwrap_or(0);
            if u64::from(terms.max) < used {
                return Err(self.licences_in_use(&terms, &old.terms, used));
            }
        }
        Ok(Decision {
            events: changed(Some(&old.terms), &terms, Event::LicenceQuotaSet),
            outcome: Outcome::LicenceQuota(terms.quota),
        })
    }

    pub(super) fn decide_check_out(
        &self,
        check_out: &CheckOutSeat,
        now: Timestamp,
    ) -> Result<Decision, Denied> {
        let tenant = self.known_tenant(&check_out.tenant)?;
        self.known_product(check_out.product)?;
        if tenant.frozen {
            return Err(Denied::Frozen {
                tenant: tenant.tenant.clone(),
            });
        }
        let seats = self.index.seats_of.get(&tenant.tenant);
        if seats.is_some_and(|seats| seats.len() >= MOST_SEATS) {
            return Err(Denied::TooManySeats { most: MOST_SEATS });
        }
        let used = licences_used(self, &tenant.tenant);
        let used = used.get(&check_out.product).copied().unwrap_or(0);
        let granted = self.licences_granted(&tenant.tenant, check_out.product);
        if used >= granted && !planted(Mutant::OneSeatTooMany) {
            return Err(self.exhausted(&tenant.tenant, check_out.product, granted, used));
        }
        Ok(seat_set(Seat {
            seat: SeatId(self.rows.next_seat.max(1)),
            tenant: tenant.tenant.clone(),
            product: check_out.product,
            owner: check_out.owner.clone(),
            expires_at: now.after(check_out.ttl_ms.into()),
        }))
    }

    // A seat that was granted may be kept while anything is granted at all: which of several should go when there are
    // too many is not decided by who renews first.
    pub(super) fn decide_renew_seat(
        &self,
        seat: SeatId,
        ttl_ms: u32,
        now: Timestamp,
    ) -> Result<Decision, Denied> {
        let old = self.known_seat(seat)?;
        if self.known_tenant(&old.tenant)?.frozen {
            return Err(Denied::Frozen {
                tenant: old.tenant.clone(),
            });
        }
        let granted = self.licences_granted(&old.tenant, old.product);
        if granted == 0 {
            let used = licences_used(self, &old.tenant);
            let used = used.get(&old.product).copied().unwrap_or(0);
            return Err(self.nothing_granted(&old.tenant, old.product, used));
        }
        Ok(seat_set(Seat {
            expires_at: now.after(ttl_ms.into()),
            ..old.clone()
        }))
    }

    pub(super) fn decide_release_seat(&self, seat: SeatId) -> Result<Decision, Denied> {
        self.known_seat(seat)?;
        Ok(done(vec![Event::SeatReleased { seat }]))
    }

    fn licences_granted(&self, tenant: &TenantName, product: ProductId) -> u64 {
        self.licence_quotas_of(tenant)
            .filter(|quota| quota.terms.product == product)
            .map(|quota| u64::from(LicenceQuota::grants(quota)))
            .sum()
    }

    fn known_product(&self, product: ProductId) -> Result<&Product, Denied> {
        self.product(product)
            .ok_or_else(|| unknown("software product", &product.0.to_string()))
    }

    fn known_seat(&self, seat: SeatId) -> Result<&Seat, Denied> {
        self.seat(seat)
            .ok_or_else(|| unknown("seat", &seat.0.to_string()))
    }
}

fn seat_set(seat: Seat) -> Decision {
    Decision {
        events: vec![Event::SeatSet(seat.clone())],
        outcome: Outcome::Seat(seat),
    }
}
