//! Who a caller is and what that lets it do.

mod access_key;
mod algorithm;
mod authenticator;
mod canonical;
mod claims;
mod foreign;
mod jwks;
mod known;
mod lifetime;
pub(crate) mod limiter;
mod revocation;
mod signing;
#[cfg(test)]
mod tests;
pub mod token;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use gpuquota_core::State;
use gpuquota_core::id::{ProjectId, TenantName};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use access_key::SIGNATURE_SCHEME;
pub use algorithm::Algorithm;
pub use authenticator::{Authenticator, SetupError};
pub use canonical::SignedRequest;
pub use limiter::Limiter;
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

    /// A caller of what needs no token.
    #[must_use]
    pub fn anybody() -> Self {
        Self {
            subject: "anybody".into(),
            role: Role::Viewer,
            tenants: BTreeSet::new(),
            projects: BTreeSet::new(),
            user: None,
            container: None,
        }
    }

    /// Whether it may read what concerns this project: its own, or one of its tenants'.
    #[must_use]
    pub fn sees_project(&self, state: &State, project: &ProjectId) -> bool {
        let of_tenant = || state.tenant_of_project(project);
        self.role == Role::Admin
            || self.projects.contains(project)
            || of_tenant().is_some_and(|tenant| self.tenants.contains(&tenant.profile.tenant))
    }

    /// The tenants it acts for: its own and those of its projects. An admin acts for none in particular.
    #[must_use]
    pub fn acts_for(&self, state: &State) -> BTreeSet<TenantName> {
        let projects = self.projects.iter();
        let of_projects = projects.filter_map(|project| state.tenant_of_project(project));
        let of_projects = of_projects.map(|tenant| tenant.profile.tenant.clone());
        of_projects.chain(self.tenants.iter().cloned()).collect()
    }

    /// Whose idempotency keys and budget of writes its calls use: a subject of one role that acts for the same. Tokens of
    /// different tenants may bear the same subject, and are two callers.
    #[must_use]
    pub fn caller(&self) -> String {
        if self.role == Role::Admin {
            return self.subject.clone();
        }
        let mut digest = Sha256::new();
        let tenants = self.tenants.iter().map(|tenant| ('t', tenant.as_str()));
        let projects = self.projects.iter().map(|project| ('p', project.as_str()));
        for (kind, name) in tenants.chain(projects) {
            digest.update(format!("{kind}{}:{name}", name.len()));
        }
        let scope = HEXLOWER.encode(&digest.finalize()[..16]);
        format!("{} {}~{scope}", self.subject, self.role)
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
    /// Anybody, without a token; nothing that it tells is anybody's.
    Open,
    /// Any accepted token; the handler shows only what the principal sees.
    Signed,
    /// Role `admin` or `tenant-admin`; the handler shows and touches only what the principal sees.
    Manager,
    /// Role `admin`.
    Admin,
}

impl Access {
    /// Roles that it takes, for people.
    #[must_use]
    pub fn roles(self) -> &'static str {
        match self {
            Self::Open | Self::Signed => "any role",
            Self::Manager => "the role admin or tenant-admin",
            Self::Admin => "the role admin",
        }
    }

    /// Whether the principal may call the route at all.
    #[must_use]
    pub fn allows(self, principal: &Principal) -> bool {
        match self {
            Self::Open | Self::Signed => true,
            Self::Manager => matches!(principal.role, Role::Admin | Role::TenantAdmin),
            Self::Admin => principal.role == Role::Admin,
        }
    }
}
