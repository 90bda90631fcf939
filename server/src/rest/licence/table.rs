//! All licence quotas with their use, computed once for each state of the ledger and shared by everybody who reads it:
//! counting a thousand tenants' licences again for every page would cost more than all the rest of the answer.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwapOption;
use gpuquota_core::State;
use gpuquota_core::id::{ProductId, Seq, TenantName};
use gpuquota_core::licence::licence_usage;
use tokio::sync::Mutex;

use super::filter::Order;
use super::row::{Party, Row};
use super::statistics::Written;
use crate::auth::Principal;
use crate::service::Ledger;

/// The newest table.
#[derive(Debug, Default)]
pub struct LicenceTables {
    newest: ArcSwapOption<Table>,
    // Whoever finds it outdated makes the next; the others wait for that one.
    making: Mutex<()>,
}

impl LicenceTables {
    /// The table of the ledger as it is, or newer.
    pub(super) async fn current(&self, ledger: &Ledger) -> Arc<Table> {
        let seq = ledger.read().state.seq();
        let newest = || self.newest.load_full().filter(|table| table.seq >= seq);
        if let Some(table) = newest() {
            return table;
        }
        let _making = self.making.lock().await;
        if let Some(table) = newest() {
            return table;
        }
        let table = Arc::new(Table::of(&ledger.read().state));
        self.newest.store(Some(table.clone()));
        table
    }
}

/// A tenant that has licence quotas.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) tenant: TenantName,
    pub(super) party: Arc<Party>,
    /// Places of its rows in the table, ascending.
    pub(super) rows: Vec<usize>,
}

/// All rows, by id.
#[derive(Debug)]
pub(super) struct Table {
    seq: Seq,
    pub(super) rows: Vec<Row>,
    /// By the tenants' numbers.
    pub(super) holders: BTreeMap<u32, Holder>,
    // Places of all rows in the orders that somebody asked for.
    orders: RwLock<BTreeMap<Order, Arc<[usize]>>>,
    /// The statistics of all rows, once somebody asked for them.
    pub(super) statistics: ArcSwapOption<Written>,
}

impl Table {
    fn of(state: &State) -> Self {
        let products: BTreeMap<ProductId, Arc<Party>> = state
            .products()
            .map(|product| (product.id, Party::product(product)))
            .collect();
        let mut rows = Vec::new();
        let mut holders = BTreeMap::new();
        for (name, tenant) in state.tenants() {
            let mut quotas = state.licence_quotas_of(name).peekable();
            if quotas.peek().is_none() {
                continue;
            }
            let party = Party::tenant(&tenant.profile);
            let usage = licence_usage(state, name);
            for quota in quotas {
                if let Some(product) = products.get(&quota.terms.product) {
                    let used = usage.get(&quota.terms.quota).copied().unwrap_or(0);
                    rows.push(Row::new(quota, used, &party, product));
                }
            }
            let holder = Holder {
                tenant: name.clone(),
                party: party.clone(),
                rows: Vec::new(),
            };
            holders.insert(party.id, holder);
        }
        rows.sort_unstable_by_key(|row| row.id);
        for (place, row) in rows.iter().enumerate() {
            if let Some(holder) = holders.get_mut(&row.tenant.id) {
                holder.rows.push(place);
            }
        }
        Self {
            seq: state.seq(),
            rows,
            holders,
            orders: RwLock::default(),
            statistics: ArcSwapOption::empty(),
        }
    }

    /// Tenants that the principal sees, by number.
    pub(super) fn seen_by(&self, principal: &Principal) -> impl Iterator<Item = &Holder> {
        let holders = self.holders.values();
        holders.filter(|holder| principal.sees(&holder.tenant))
    }

    /// All rows in this order, which is found once.
    pub(super) fn in_order(&self, order: Order) -> impl Iterator<Item = &Row> {
        let places = (!order.is_creation()).then(|| self.places(order));
        (0..self.rows.len()).filter_map(move |at| {
            let place = match &places {
                Some(places) => *places.get(at)?,
                None => at,
            };
            self.rows.get(place)
        })
    }

    fn places(&self, order: Order) -> Arc<[usize]> {
        // An order is put in whole, so a panic elsewhere leaves nothing half done.
        let known = self.orders.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = known.get(&order) {
            return places.clone();
        }
        drop(known);
        let mut rows: Vec<(usize, &Row)> = self.rows.iter().enumerate().collect();
        rows.sort_unstable_by(|(_, a), (_, b)| order.compare(a, b));
        let places: Arc<[usize]> = rows.into_iter().map(|(place, _)| place).collect();
        let mut known = self.orders.write().unwrap_or_else(PoisonError::into_inner);
        known.entry(order).or_insert(places).clone()
    }

    /// Rows of a holder, by id.
    pub(super) fn rows_of(&self, holder: &Holder) -> impl Iterator<Item = &Row> {
        let places = holder.rows.iter();
        places.filter_map(|place| self.rows.get(*place))
    }
}
