//! One licence quota as the dialect shows it.

use std::sync::{Arc, OnceLock};

use gpuquota_core::State;
use gpuquota_core::command::CreateLicenceQuota;
use gpuquota_core::id::{LicenceQuotaId, Seq, Timestamp};
use gpuquota_core::licence::{LicenceQuota, Product};
use gpuquota_core::licence_usage::licence_usage;
use gpuquota_core::tenant::TenantProfile;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::rate::Rate;
use crate::rest::names;
use crate::rest::time;

/// A tenant or a product in the long form.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Licence::Party)]
pub(super) struct Party {
    #[schema(value_type = names::Number)]
    pub(super) id: u32,
    pub(super) name: String,
    code: String,
}

impl Party {
    pub(super) fn tenant(profile: &TenantProfile) -> Arc<Self> {
        Arc::new(Self {
            id: profile.number.0,
            name: profile.display_name().to_owned(),
            code: profile.code().to_owned(),
        })
    }

    pub(super) fn product(product: &Product) -> Arc<Self> {
        Arc::new(Self {
            id: product.id.0,
            name: product.name.as_str().to_owned(),
            code: product.code.as_str().to_owned(),
        })
    }
}

/// A licence quota with its use.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: LicenceQuotaId,
    pub(super) tenant: Arc<Party>,
    pub(super) product: Arc<Party>,
    pub(super) rate: Rate,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) is_active: bool,
    /// Its end is recorded; whoever asks later sees it sooner, by the clock.
    pub(super) expired: bool,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) changed: Seq,
    json: OnceLock<String>,
}

impl Row {
    pub(super) fn new(
        quota: &LicenceQuota,
        used: u64,
        tenant: &Arc<Party>,
        product: &Arc<Party>,
    ) -> Self {
        let terms = &quota.terms;
        let max = u64::from(terms.max);
        Self {
            id: terms.quota,
            tenant: tenant.clone(),
            product: product.clone(),
            rate: Rate { used, max },
            expires_at: terms.expires_at,
            is_active: terms.is_active,
            expired: quota.expired,
            created_at: quota.created_at,
            updated_at: quota.updated_at,
            changed: quota.changed,
            json: OnceLock::new(),
        }
    }

    /// The row of one quota; `None` when its tenant or product is not known, which the ledger rules out.
    pub(super) fn of(state: &State, quota: &LicenceQuota) -> Option<Self> {
        let tenant = Party::tenant(&state.tenant(&quota.terms.tenant)?.profile);
        let product = Party::product(state.product(quota.terms.product)?);
        let usage = licence_usage(state, &quota.terms.tenant);
        let used = usage.get(&quota.terms.quota).copied().unwrap_or(0);
        Some(Self::new(quota, used, &tenant, &product))
    }

    /// Its JSON, written once: pages show the same rows again and again.
    pub(super) fn json(&self) -> &str {
        // Numbers, texts and maps of them can always be written.
        let write = || serde_json::to_string(self).unwrap_or_default();
        self.json.get_or_init(write)
    }
}

/// A row, written.
#[derive(Serialize, ToSchema)]
#[schema(as = Licence::Row)]
pub(in crate::rest) struct Long<'a> {
    #[schema(value_type = names::LicenceQuotaId)]
    id: u64,
    tenant: &'a Party,
    software_product: &'a Party,
    #[schema(value_type = names::Count)]
    max_licenses: u64,
    used_licenses: u64,
    /// Percent, two decimals.
    #[schema(minimum = 0)]
    usage_rate: f64,
    remaining_licenses: u64,
    /// Null where it does not end.
    #[schema(value_type = Option<names::Time>, required)]
    expires_at: Option<String>,
    is_active: bool,
    #[schema(value_type = names::Time)]
    created_at: String,
    #[schema(value_type = names::Time)]
    updated_at: String,
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let long = Long {
            id: self.id.0,
            tenant: &self.tenant,
            software_product: &self.product,
            max_licenses: self.rate.max,
            used_licenses: self.rate.used,
            usage_rate: self.rate.percent(),
            remaining_licenses: self.rate.remaining(),
            expires_at: self.expires_at.map(time::format),
            is_active: self.is_active,
            created_at: time::format(self.created_at),
            updated_at: time::format(self.updated_at),
        };
        long.serialize(serializer)
    }
}

/// What a creation answers: without codes and without the times of the record (dialects D4.9).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Licence::ShortRow)]
pub(in crate::rest) struct Short<'a> {
    #[schema(value_type = names::LicenceQuotaId)]
    id: u64,
    tenant: Named<'a>,
    software_product: Named<'a>,
    #[schema(value_type = names::Count)]
    max_licenses: u64,
    used_licenses: u64,
    /// Percent, two decimals.
    #[schema(minimum = 0)]
    usage_rate: f64,
    remaining_licenses: u64,
    /// Null where it does not end.
    #[schema(value_type = Option<names::Time>, required)]
    expires_at: Option<String>,
    is_active: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Licence::Named)]
struct Named<'a> {
    #[schema(value_type = names::Number)]
    id: u32,
    name: &'a str,
}

impl<'a> Short<'a> {
    /// The row as it was asked for: a repeated request is answered alike, whatever became of the quota since.
    pub(super) fn of(row: &'a Row, asked: &CreateLicenceQuota) -> Self {
        let rate = Rate {
            max: asked.max.into(),
            ..row.rate
        };
        let named = |party: &'a Party| Named {
            id: party.id,
            name: &party.name,
        };
        Self {
            id: row.id.0,
            tenant: named(&row.tenant),
            software_product: named(&row.product),
            max_licenses: rate.max,
            used_licenses: rate.used,
            usage_rate: rate.percent(),
            remaining_licenses: rate.remaining(),
            expires_at: asked.expires_at.map(time::format),
            is_active: asked.is_active,
        }
    }
}
