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
    /// A tenant's items; `write` makes the text where the kept one is not that of this state.
    pub(super) fn of(
        &self,
        state: &State,
        tenant: &TenantName,
        write: fn(&State, &TenantName) -> Result<String, Problem>,
    ) -> Result<Arc<str>, Problem> {
        let changed = state.changes().of_tenant(tenant);
        // A text is put in whole, so a panic elsewhere leaves nothing half done.
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let fresh = |kept: &&Kept| (changed..=state.seq()).contains(&kept.seq);
        if let Some(kept) = known.get(tenant).filter(fresh) {
            return Ok(kept.text.clone());
        }
        drop(known);
        let text: Arc<str> = write(state, tenant)?.into();
        let kept = Kept {
            seq: state.seq(),
            text: text.clone(),
        };
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(tenant.clone(), kept);
        Ok(text)
    }
}
