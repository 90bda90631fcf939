//! All licence quotas with their use, computed once after each row that changes them and shared by everybody who reads it:
//! counting a thousand tenants' licences again for every page would cost more than all the rest of the answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwapOption;
use gpuquota_core::State;
use gpuquota_core::id::{ProductId, Seq, TenantName};
use gpuquota_core::licence_usage::licence_usage;
use tokio::sync::Mutex;

use super::filter::Selection;
use super::row::{Party, Row};
use super::statistics::Written;
use crate::auth::Principal;
use crate::service::Ledger;

/// Selections whose rows are kept, for one table.
const MOST_SELECTIONS: usize = 64;

/// The newest table.
#[derive(Debug, Default)]
pub(in crate::rest) struct LicenceTables {
    newest: ArcSwapOption<Table>,
    // Whoever finds it outdated makes the next; the others wait for that one.
    making: Mutex<()>,
}

impl LicenceTables {
    /// The table of the ledger as it is, or newer.
    pub(super) async fn current(&self, ledger: &Ledger) -> Arc<Table> {
        let seq = ledger.read().state.changes().of_licences();
        let newest = || self.newest.load_full().filter(|table| table.seq >= seq);
        if let Some(table) = newest() {
            return table;
        }
        let _making = self.making.lock().await;
        if let Some(table) = newest() {
            return table;
        }
        // Many thousand rows take a while; no task of the runtime waits for them.
        let committed = ledger.read();
        let made = tokio::task::spawn_blocking(move || Table::of(&committed.state)).await;
        let table = Arc::new(made.unwrap_or_else(|_| Table::of(&ledger.read().state)));
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
    // Places of all rows that a selection takes, in its order, for selections that somebody asked for.
    selected: RwLock<HashMap<Selection, Arc<[usize]>>>,
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
            selected: RwLock::default(),
            statistics: ArcSwapOption::empty(),
        }
    }

    /// Tenants that the principal sees, by number.
    pub(super) fn seen_by(&self, principal: &Principal) -> impl Iterator<Item = &Holder> {
        let holders = self.holders.values();
        holders.filter(|holder| principal.sees(&holder.tenant))
    }

    /// How many rows of all tenants a selection takes, and so many of them from `first` on.
    pub(super) fn cut(
        &self,
        selection: &Selection,
        first: usize,
        size: usize,
    ) -> (usize, Vec<&Row>) {
        if selection.is_everything() {
            let rows = self.rows.iter().skip(first).take(size);
            return (self.rows.len(), rows.collect());
        }
        let places = self.places(selection);
        let shown = places.iter().skip(first).take(size);
        let rows = shown.filter_map(|place| self.rows.get(*place));
        (places.len(), rows.collect())
    }

    fn places(&self, selection: &Selection) -> Arc<[usize]> {
        // Places are put in whole, so a panic elsewhere leaves nothing half done.
        let known = self.selected.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = known.get(selection) {
            return places.clone();
        }
        drop(known);
        let rows = self.rows.iter().enumerate();
        let mut rows: Vec<(usize, &Row)> = rows.filter(|(_, row)| selection.takes(row)).collect();
        rows.sort_by(|(_, a), (_, b)| selection.compare(a, b));
        let places: Arc<[usize]> = rows.into_iter().map(|(place, _)| place).collect();
        let mut known = self
            .selected
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if known.len() < MOST_SELECTIONS {
            known.insert(selection.clone(), places.clone());
        }
        places
    }

    /// Rows of a holder, by id.
    pub(super) fn rows_of(&self, holder: &Holder) -> impl Iterator<Item = &Row> {
        let places = holder.rows.iter();
        places.filter_map(|place| self.rows.get(*place))
    }
}
