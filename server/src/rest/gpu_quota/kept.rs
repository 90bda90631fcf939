//! Tenants' items as text, kept until something of the tenant changes: a page is then cut and joined, not counted again.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use gpuquota_core::State;
use gpuquota_core::id::{Seq, TenantName};

use crate::rest::status::Problem;

/// The items of tenants that somebody asked for; at most one text a tenant.
#[derive(Debug, Default)]
pub(in crate::rest) struct KeptItems(RwLock<HashMap<TenantName, Kept>>);

#[derive(Clone, Debug)]
struct Kept {
    /// The state that it was written from.
    seq: Seq,
    text: Arc<str>,
}

impl KeptItems {
    /// Items of these tenants, one text a tenant; `write` makes a text where the kept one is not that of this state.
    pub(super) fn of(
        &self,
        state: &State,
        tenants: &[&TenantName],
        write: fn(&State, &TenantName) -> Result<String, Problem>,
    ) -> Result<Vec<Arc<str>>, Problem> {
        let fresh = |tenant: &TenantName, kept: &&Kept| {
            let changed = state.changes().of_tenant(tenant);
            (changed..=state.seq()).contains(&kept.seq)
        };
        // A text is put in whole, so a panic elsewhere leaves nothing half done.
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let texts: Vec<Option<Arc<str>>> = tenants
            .iter()
            .map(|tenant| known.get(*tenant).filter(|kept| fresh(tenant, kept)))
            .map(|kept| kept.map(|kept| kept.text.clone()))
            .collect();
        drop(known);
        let texts = texts
            .into_iter()
            .zip(tenants)
            .map(|(text, tenant)| match text {
                Some(text) => Ok(text),
                None => {
                    let text: Arc<str> = write(state, tenant)?.into();
                    self.keep(tenant, state.seq(), text.clone());
                    Ok(text)
                }
            });
        texts.collect()
    }

    fn keep(&self, tenant: &TenantName, seq: Seq, text: Arc<str>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(tenant.clone(), Kept { seq, text });
    }
}
