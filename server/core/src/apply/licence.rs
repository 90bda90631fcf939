//! Licence quotas and seats change the state.

use crate::id::{LicenceQuotaId, SeatId, Timestamp};
use crate::licence::{LicenceQuota, LicenceTerms, Seat};
use crate::state::State;

impl State {
    pub(super) fn set_licence_quota(&mut self, at: Timestamp, terms: &LicenceTerms) {
        let old = self.rows.licence_quotas.get(&terms.quota).cloned();
        if let Some(old) = &old {
            self.index.remove_licence(old);
        }
        let quota = LicenceQuota {
            terms: terms.clone(),
            expired: terms.expires_at.is_some_and(|end| end <= at),
            created_at: old.map_or(at, |old| old.created_at),
            updated_at: at,
            changed: self.rows.seq,
        };
        self.index.add_licence(&quota);
        let next = self.rows.next_licence_quota.max(terms.quota.0 + 1);
        self.rows.next_licence_quota = next;
        self.rows.licence_quotas.insert(terms.quota, quota);
    }

    pub(super) fn expire_licence_quota(&mut self, quota: LicenceQuotaId) {
        if let Some(old) = self.rows.licence_quotas.get(&quota).cloned() {
            self.index.remove_licence(&old);
            let expired = LicenceQuota {
                expired: true,
                changed: self.rows.seq,
                ..old
            };
            self.index.add_licence(&expired);
            self.rows.licence_quotas.insert(quota, expired);
        }
    }

    pub(super) fn set_seat(&mut self, seat: &Seat) {
        self.end_seat(seat.seat);
        self.index.add_seat(seat);
        self.rows.next_seat = self.rows.next_seat.max(seat.seat.0 + 1);
        self.rows.seats.insert(seat.seat, seat.clone());
    }

    pub(super) fn end_seat(&mut self, seat: SeatId) {
        if let Some(old) = self.rows.seats.remove(&seat) {
            self.index.remove_seat(&old);
        }
    }
}
