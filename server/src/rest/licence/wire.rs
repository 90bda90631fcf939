//! Bodies of the licence dialect, with every oddity of it.
//!
//! A quota names tenant and product by number when it is written and shows them as objects when it is read.

use gpuquota_core::command::{ChangeLicenceQuota, CreateLicenceQuota};
use gpuquota_core::id::{LicenceQuotaId, ProductId, Seq, TenantNumber, Timestamp};
use serde::Serialize;

use super::row::Row;
use crate::rest::json::{Fields, LARGEST_COUNT, invalid, missing};
use crate::rest::status::{Kind, Problem};
use crate::rest::time;

/// A success.
#[derive(Debug, Serialize)]
pub(super) struct Answer<T> {
    success: bool,
    data: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
}

impl<T> Answer<T> {
    /// With what was asked for.
    pub(super) fn shown(data: T) -> Self {
        Self {
            success: true,
            data,
            message: None,
        }
    }

    /// With what was made.
    pub(super) fn created(data: T) -> Self {
        Self {
            message: Some("租户配额创建成功"),
            ..Self::shown(data)
        }
    }

    /// With what was changed.
    pub(super) fn updated(data: T) -> Self {
        Self {
            message: Some("租户配额更新成功"),
            ..Self::shown(data)
        }
    }
}

/// The tenant that a new quota is for.
pub(super) fn tenant(fields: &Fields) -> Result<TenantNumber, Problem> {
    let number = id(fields, "tenant")?.ok_or_else(|| missing("tenant"))?;
    Ok(TenantNumber(number))
}

/// A new quota for a tenant.
pub(super) fn creation(
    tenant: TenantNumber,
    fields: &Fields,
) -> Result<CreateLicenceQuota, Problem> {
    let product = id(fields, "software_product")?.ok_or_else(|| missing("software_product"))?;
    let max = fields.count("max_licenses")?;
    Ok(CreateLicenceQuota {
        tenant,
        product: ProductId(product),
        max: max.ok_or_else(|| missing("max_licenses"))?,
        expires_at: time_of(fields, "expires_at")?,
        is_active: switch(fields, "is_active")?.unwrap_or(true),
    })
}

/// What a PATCH asks for. Fields that are only ever read are not looked at.
#[derive(Debug)]
pub(super) struct Patch {
    max: Option<u32>,
    expires_at: Option<Option<Timestamp>>,
    is_active: Option<bool>,
    tenant: Option<Option<u32>>,
    product: Option<Option<u32>>,
}

impl Patch {
    pub(super) fn read(fields: &Fields) -> Result<Self, Problem> {
        let reference = |name| match fields.has(name) {
            true => id(fields, name).map(Some),
            false => Ok(None),
        };
        Ok(Self {
            max: given("max_licenses", fields, fields.count("max_licenses")?)?,
            expires_at: match fields.has("expires_at") {
                true => Some(time_of(fields, "expires_at")?),
                false => None,
            },
            is_active: switch(fields, "is_active")?,
            tenant: reference("tenant")?,
            product: reference("software_product")?,
        })
    }

    /// The change of this row.
    ///
    /// # Errors
    /// When it names another tenant or product (dialects D4.11).
    pub(super) fn of(
        &self,
        row: &Row,
        expected: Option<Seq>,
    ) -> Result<ChangeLicenceQuota, Problem> {
        let same = |name: &str, given: Option<Option<u32>>, id: u32| match given {
            Some(given) if given != Some(id) => {
                let message = format!("{name} of a quota never changes; make another quota");
                Err(Problem::new(Kind::Contradiction, message).of_field(name))
            }
            _ => Ok(()),
        };
        same("tenant", self.tenant, row.tenant.id)?;
        same("software_product", self.product, row.product.id)?;
        Ok(ChangeLicenceQuota {
            quota: row.id,
            max: self.max,
            expires_at: self.expires_at,
            is_active: self.is_active,
            expected,
        })
    }
}

/// The id in a path; anything else names no quota.
pub(super) fn quota_id(text: &str) -> Option<LicenceQuotaId> {
    let digits = (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let canonical = digits && !text.starts_with('0');
    text.parse().ok().filter(|_| canonical).map(LicenceQuotaId)
}

fn id(fields: &Fields, name: &str) -> Result<Option<u32>, Problem> {
    let rule = format!("must be a whole number from 1 to {LARGEST_COUNT}");
    match fields.count(name) {
        Ok(Some(0)) | Err(_) => Err(invalid(name, rule)),
        Ok(id) => Ok(id),
    }
}

fn switch(fields: &Fields, name: &str) -> Result<Option<bool>, Problem> {
    given(name, fields, fields.flag(name)?)
}

// What is there must not be null.
fn given<T>(name: &str, fields: &Fields, value: Option<T>) -> Result<Option<T>, Problem> {
    if value.is_none() && fields.has(name) {
        return Err(invalid(name, "must not be null"));
    }
    Ok(value)
}

fn time_of(fields: &Fields, name: &str) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = fields.text(name)? else {
        return Ok(None);
    };
    let rule =
        "must be an RFC 3339 time such as 2026-12-31T23:59:59Z, a date such as 2026-12-31, or null";
    let time = time::parse(text).ok_or_else(|| invalid(name, rule))?;
    Ok(Some(time))
}
