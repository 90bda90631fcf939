//! What of a request the audit keeps: where it came from, why it was made, and that it was turned away.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use gpuquota_core::id::TenantName;
use http::request::Parts;
use http::{HeaderMap, StatusCode};

use super::call::Api;
use super::status::{Kind, Problem};
use crate::auth::Principal;
use crate::service::audit::{Denial, Last};

/// Why a change is made, for the audit.
/// Header for why.
pub(crate) const REASON: &str = "x-audit-reason";
const LONGEST_REASON: usize = 255;

/// What is known of a request, as far as it came.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Whose it is.
    pub(super) actor: Option<String>,
    /// Method and pattern of the path.
    pub(super) route: Option<String>,
    /// The tenant that its path names, else the only one that the caller acts for.
    pub(super) tenant: Option<TenantName>,
}

impl Asked {
    /// Notes whose it is and whom it is about.
    pub(super) fn by(&mut self, principal: &Principal, segments: &[(String, String)]) {
        self.actor = Some(principal.actor());
        let mut segments = segments.iter();
        let named = segments.find(|(name, _)| name == "tenant");
        let named = named.and_then(|(_, value)| TenantName::new(value).ok());
        let only = || match principal.tenants.len() {
            1 => principal.tenants.first().cloned(),
            _ => None,
        };
        self.tenant = named.or_else(only);
    }
}

/// Whoever is turned away is in the audit; what the ledger grants is in its journal.
pub(super) fn turned_away(
    api: &Api,
    parts: &Parts,
    asked: Asked,
    request_id: &str,
    problem: &Problem,
) {
    let denied = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::CONFLICT,
    ];
    if !denied.contains(&problem.kind.code().0) {
        return;
    }
    let rule = problem.explain.as_ref().and_then(|it| it["rule"].as_str());
    let denial = Denial {
        actor: asked.actor.unwrap_or_else(|| "anybody".into()),
        rule: rule.unwrap_or(problem.kind.name()).to_owned(),
        tenant: problem.about.as_deref().cloned().or(asked.tenant),
        from: address(parts).map(|address| address.to_string()),
    };
    let last = Last {
        request_id: request_id.to_owned(),
        message: problem.message.clone(),
        route: asked.route,
        // What is no reason is not kept.
        reason: reason(&parts.headers).ok().flatten(),
    };
    let denials = api.ledger.denials();
    denials.count(api.clock.wall(), denial, last);
}

/// Address of the other end of the connection.
pub(super) fn address(parts: &Parts) -> Option<IpAddr> {
    let address = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    address.map(|info| info.0.ip())
}

/// Why, in the caller's words.
///
/// # Errors
/// When it stands twice, is too long or holds control characters.
pub(super) fn reason(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(REASON).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = std::str::from_utf8(value.as_bytes()).ok();
    let text = text.filter(|text| {
        (1..=LONGEST_REASON).contains(&text.len()) && !text.contains(char::is_control)
    });
    match text.filter(|_| values.next().is_none()) {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(Problem::new(
            Kind::InvalidField,
            format!(
                "{REASON} must stand once and be 1 to {LONGEST_REASON} bytes of UTF-8 without control characters"
            ),
        )),
    }
}
