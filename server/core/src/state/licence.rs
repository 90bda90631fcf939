//! Reading software products, licence quotas and seats.

use super::State;
use crate::id::{LicenceQuotaId, ProductId, SeatId, TenantName};
use crate::licence::{LicenceQuota, Product, Seat};

impl State {
    /// Software products by number.
    pub fn products(&self) -> impl Iterator<Item = &Product> {
        self.rows.products.values()
    }

    /// One software product.
    #[must_use]
    pub fn product(&self, product: ProductId) -> Option<&Product> {
        self.rows.products.get(&product)
    }

    /// All licence quotas, in order of creation.
    pub fn licence_quotas(&self) -> impl Iterator<Item = &LicenceQuota> {
        self.rows.licence_quotas.values()
    }

    /// One licence quota.
    #[must_use]
    pub fn licence_quota(&self, quota: LicenceQuotaId) -> Option<&LicenceQuota> {
        self.rows.licence_quotas.get(&quota)
    }

    /// A tenant's licence quotas, in order of creation.
    pub fn licence_quotas_of(&self, tenant: &TenantName) -> impl Iterator<Item = &LicenceQuota> {
        let ids = self.index.licences_of.get(tenant).into_iter().flatten();
        ids.filter_map(|quota| self.rows.licence_quotas.get(quota))
    }

    /// All seats, in order of creation.
    pub fn seats(&self) -> impl Iterator<Item = &Seat> {
        self.rows.seats.values()
    }

    /// One seat.
    #[must_use]
    pub fn seat(&self, seat: SeatId) -> Option<&Seat> {
        self.rows.seats.get(&seat)
    }

    /// A tenant's seats, in order of creation.
    pub fn seats_of(&self, tenant: &TenantName) -> impl Iterator<Item = &Seat> {
        let ids = self.index.seats_of.get(tenant).into_iter().flatten();
        ids.filter_map(|seat| self.rows.seats.get(seat))
    }
}
