//! Everything that is charged to a tenant, laid upon quotas.

use std::collections::BTreeMap;

use super::in_order;
use super::laid::{Kind, Laid, Place};
use super::unit::{Unit, bearing, units};
use crate::id::TenantName;
use crate::quota::Quota;
use crate::state::{Group, State};

/// What is charged to a tenant, and where.
pub(crate) struct Charged<'a, 'q> {
    /// The quotas in the order in which they are filled.
    pub(crate) order: Vec<&'q Quota>,
    /// Its devices, the longest held or leased first.
    pub(crate) rows: Vec<Row<'a>>,
    /// What is leased as a number and no held device covers, by group.
    pub(crate) numbers: Vec<Number>,
    /// All of it, to which more may be laid.
    pub(crate) laid: Laid,
}

/// One device.
pub(crate) struct Row<'a> {
    pub(crate) unit: Unit<'a>,
    /// Quotas that it may be charged to.
    pub(crate) fitting: Vec<Place>,
    pub(crate) group: Group,
    /// By a lease of its own, or covered by one that names no devices.
    pub(crate) leased: bool,
    /// The quota that bears it.
    pub(crate) place: Option<Place>,
    kind: Kind,
}

/// What is leased as a number in one group.
pub(crate) struct Number {
    pub(crate) group: Group,
    /// Quotas that it may be charged to.
    pub(crate) fitting: Vec<Place>,
    pub(crate) count: u64,
    /// What quotas bear of it, and which.
    pub(crate) borne: u64,
    pub(crate) shares: Vec<(Place, u64)>,
    kind: Kind,
}

impl<'a, 'q> Charged<'a, 'q> {
    pub(crate) fn of(state: &'a State, tenant: &TenantName, quotas: &[&'q Quota]) -> Self {
        let order = in_order(state, quotas);
        let mut laid = Laid::upon(&order);
        let mut unplaced: BTreeMap<Group, u64> = state
            .demands(tenant)
            .filter(|(_, demand)| demand.unplaced > 0)
            .map(|(group, demand)| (group.clone(), demand.unplaced))
            .collect();
        let row = |unit: Unit<'a>| {
            let fitting = unit.fitting(&order);
            let group = unit.group(&order, &fitting);
            // It runs without a lease of its own, and one that names no devices covers it.
            let leased = unit.charge.leased || take_one(&mut unplaced, &group);
            let kind = laid.kind(&fitting);
            Row {
                place: laid.lay_one(kind),
                unit,
                fitting,
                group,
                leased,
                kind,
            }
        };
        let rows = units(state, tenant).into_iter().map(row).collect();
        let number = |(group, count): (Group, u64)| {
            let fitting = bearing(&order, &group);
            let kind = laid.kind(&fitting);
            let (borne, shares) = laid.lay(kind, count);
            Number {
                group,
                fitting,
                count,
                borne,
                shares,
                kind,
            }
        };
        let numbers = unplaced.into_iter().map(number).collect();
        let mut charged = Self {
            order,
            rows,
            numbers,
            laid,
        };
        charged.settle();
        charged
    }

    /// Whether quotas bear one more device of the tenant there.
    pub(crate) fn bears_one_more(mut self, unit: &Unit<'_>) -> bool {
        let fitting = unit.fitting(&self.order);
        let kind = self.laid.kind(&fitting);
        self.laid.lay_one(kind).is_some()
    }

    // Where something was moved, what was charged before it is charged elsewhere now.
    fn settle(&mut self) {
        if !self.laid.moved() {
            return;
        }
        let mut laid = self.laid.clone();
        for row in self.rows.iter_mut().filter(|row| row.place.is_some()) {
            let places = laid.settle(row.kind, 1);
            row.place = places.first().map(|(place, _)| *place);
        }
        for number in &mut self.numbers {
            number.shares = laid.settle(number.kind, number.borne);
        }
    }
}

fn take_one(unplaced: &mut BTreeMap<Group, u64>, group: &Group) -> bool {
    match unplaced.get_mut(group) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        Some(_) | None => false,
    }
}
