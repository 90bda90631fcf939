//! Reading the meter hour by hour.

use std::collections::BTreeMap;

use super::{Hour, Metered, Stretch, UsageRow, WallRow};
use crate::id::Timestamp;
use crate::state::State;

impl State {
    /// The hours `from..to` as far as they lie before `until`: of each device what it was and for how long. Hours that
    /// were stored and dropped are empty.
    #[must_use]
    pub fn metered(&self, from: Hour, to: Hour, until: Timestamp) -> Metered {
        let window = Stretch {
            since: from.start(),
            end: to.start().min(until),
        };
        let meter = &self.rows.meter;
        let mut was: BTreeMap<_, u64> = BTreeMap::new();
        let mut wall: BTreeMap<_, u64> = BTreeMap::new();
        let mut check: BTreeMap<_, (u64, u64)> = BTreeMap::new();
        for (key, stretch, place, class) in meter.spans(window) {
            for (hour, ms) in stretch.hours(window) {
                for (class, tenant, ms) in class.shares(ms) {
                    *was.entry((hour, key, place, class, tenant)).or_default() += ms;
                    check.entry((hour, key)).or_default().0 += ms;
                }
            }
        }
        for (key, stretch, place) in meter.lives(window) {
            for (hour, ms) in stretch.hours(window) {
                *wall.entry((hour, &place.region, &place.model)).or_default() += ms;
                check.entry((hour, key)).or_default().1 += ms;
            }
        }
        let errors = check.values().map(|(was, existed)| was.abs_diff(*existed));
        let rows = was.into_iter().filter(|(_, ms)| *ms > 0);
        Metered {
            error_ms: errors.sum(),
            rows: rows
                .map(|((hour, device, place, class, tenant), ms)| UsageRow {
                    hour,
                    device: device.clone(),
                    place: place.clone(),
                    class,
                    tenant: tenant.cloned(),
                    ms,
                })
                .collect(),
            wall: wall
                .into_iter()
                .map(|((hour, region, model), ms)| WallRow {
                    hour,
                    region: region.clone(),
                    model: model.clone(),
                    ms,
                })
                .collect(),
        }
    }

    /// Hours before it are closed: no row of the journal will say anything of them any more.
    #[must_use]
    pub fn closed_before(&self) -> Hour {
        self.rows.meter.closed
    }

    /// Hours before it are stored outside the ledger and dropped from it.
    #[must_use]
    pub fn stored_before(&self) -> Hour {
        self.rows.meter.stored
    }

    /// When the open hour is to be closed; `None` while there is nothing to meter.
    #[must_use]
    pub fn hour_due(&self) -> Option<Timestamp> {
        self.rows.meter.due()
    }

    /// The first hour that is closed and not stored yet, if something was metered in it or later.
    #[must_use]
    pub fn first_unstored(&self) -> Option<Hour> {
        let meter = &self.rows.meter;
        let first = meter.first().map(|at| Hour::of(at).max(meter.stored));
        first.filter(|hour| *hour < meter.closed)
    }

    /// Devices that are metered now.
    #[must_use]
    pub fn metered_devices(&self) -> usize {
        self.rows.meter.running.len()
    }
}
