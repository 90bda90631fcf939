//! Who a caller is and what that lets it do.

mod access_key;
mod algorithm;
mod authenticator;
mod canonical;
mod claims;
mod foreign;
mod jwks;
mod lifetime;
mod limiter;
mod revocation;
mod signing;
#[cfg(test)]
mod tests;
pub mod token;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use gpuquota_core::id::{ProjectId, TenantName};
use serde::{Deserialize, Serialize};

pub use access_key::SIGNATURE_SCHEME;
pub use algorithm::Algorithm;
pub use authenticator::{Authenticator, SetupError};
pub use canonical::SignedRequest;
pub use limiter::FailureLimiter;
pub(crate) use limiter::network;
pub(crate) use token::OWN_ISSUER;

/// What a token lets its bearer do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Everything.
    Admin,
    /// Its own tenants' matters; never raising a quota.
    TenantAdmin,
    /// Reading what concerns its own tenants.
    Viewer,
}

impl Role {
    /// The word of tokens and the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::TenantAdmin => "tenant-admin",
            Self::Viewer => "viewer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Admin, Self::TenantAdmin, Self::Viewer]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| "a role is admin, tenant-admin or viewer".to_owned())
    }
}

/// A caller whose token was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Who, for the journal.
    pub subject: String,
    /// What it may do.
    pub role: Role,
    /// Whom it may do it for; an admin may for all.
    pub tenants: BTreeSet<TenantName>,
    /// Projects it may act in besides those of its tenants; an admin may in all.
    pub projects: BTreeSet<ProjectId>,
    /// The user that its token names, 1 to 255 bytes; only shown (document 002).
    pub user: Option<String>,
    /// The container that its token names, 1 to 255 bytes; only shown (document 002).
    pub container: Option<String>,
}

impl Principal {
    /// Whether it may read what concerns this tenant.
    #[must_use]
    pub fn sees(&self, tenant: &TenantName) -> bool {
        match self.role {
            Role::Admin => true,
            Role::TenantAdmin | Role::Viewer => self.tenants.contains(tenant),
        }
    }

    /// How the journal names it.
    #[must_use]
    pub fn actor(&self) -> String {
        format!("{}:{}", self.role, self.subject)
    }
}

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Any accepted token; the handler shows only what the principal sees.
    Signed,
    /// Role `admin`.
    Admin,
}

impl Access {
    /// Whether the principal may call the route at all.
    #[must_use]
    pub fn allows(self, principal: &Principal) -> bool {
        match self {
            Self::Signed => true,
            Self::Admin => principal.role == Role::Admin,
        }
    }
}
