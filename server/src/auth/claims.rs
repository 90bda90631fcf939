//! What a foreign issuer's claims mean here. What cannot be read makes the token refused; nothing is guessed.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::id::{ProjectId, TenantName};
use serde_json::{Map, Value};

use super::token::{TokenError, plain};
use super::{Principal, Role};
use crate::config::Issuer;

/// A token's claims as they stand in it.
pub(super) type Claims = Map<String, Value>;

/// Where to find what, for one issuer.
pub(super) struct ClaimMap {
    issuer: String,
    subject: String,
    role: String,
    roles: BTreeMap<String, Role>,
    default_role: Option<Role>,
    tenants: String,
    tenant_map: Option<BTreeMap<String, TenantName>>,
    projects: String,
    user: Option<String>,
    container: Option<String>,
}

impl ClaimMap {
    pub(super) fn new(settings: &Issuer) -> Self {
        Self {
            issuer: settings.issuer.clone().unwrap_or_default(),
            subject: settings.subject_claim.clone(),
            role: settings.role_claim.clone(),
            roles: settings.roles.clone(),
            default_role: settings.default_role,
            tenants: settings.tenants_claim.clone(),
            tenant_map: settings.tenant_map.clone(),
            projects: settings.projects_claim.clone(),
            user: settings.user_claim.clone(),
            container: settings.container_claim.clone(),
        }
    }

    /// The principal that the claims speak of. Its subject carries the issuer, so that two issuers' users stay two.
    pub(super) fn principal(&self, claims: &Claims) -> Result<Principal, TokenError> {
        let subject = name(claims, &self.subject)?.ok_or(TokenError::Unmapped)?;
        let optional = |claim: &Option<String>| match claim {
            None => Ok(None),
            Some(claim) => name(claims, claim),
        };
        Ok(Principal {
            subject: format!("{}|{subject}", self.issuer),
            role: self.role_of(claims)?,
            tenants: self.tenants_of(claims)?,
            projects: texts(claims, &self.projects)?
                .iter()
                .map(|id| ProjectId::new(id).map_err(|_| TokenError::Unmapped))
                .collect::<Result<_, _>>()?,
            user: optional(&self.user)?,
            container: optional(&self.container)?,
        })
    }

    // The strongest of those that are mapped.
    fn role_of(&self, claims: &Claims) -> Result<Role, TokenError> {
        let values = texts(claims, &self.role)?;
        let mapped = values.iter().filter_map(|value| self.roles.get(value));
        let strongest = mapped.copied().min_by_key(|role| match role {
            Role::Admin => 0,
            Role::TenantAdmin => 1,
            Role::Viewer => 2,
        });
        strongest.or(self.default_role).ok_or(TokenError::Unmapped)
    }

    // With a map, what it does not name gives nothing; without one, every value must be a tenant's name.
    fn tenants_of(&self, claims: &Claims) -> Result<BTreeSet<TenantName>, TokenError> {
        let values = texts(claims, &self.tenants)?;
        match &self.tenant_map {
            Some(map) => Ok(values.iter().filter_map(|v| map.get(v).cloned()).collect()),
            None => values
                .iter()
                .map(|value| TenantName::new(value).map_err(|_| TokenError::Unmapped))
                .collect(),
        }
    }
}

// The claim of that very name (names may hold dots), else the one at the end of the dotted path.
fn find<'a>(claims: &'a Claims, path: &str) -> Option<&'a Value> {
    let whole = claims.get(path);
    let found = whole.or_else(|| {
        let (first, rest) = path.split_once('.')?;
        find(claims.get(first)?.as_object()?, rest)
    });
    found.filter(|value| !value.is_null())
}

// A string or whole number, or an array of them, as texts; nothing when absent.
fn texts(claims: &Claims, path: &str) -> Result<Vec<String>, TokenError> {
    match find(claims, path) {
        None => Ok(Vec::new()),
        Some(Value::Array(values)) => values.iter().map(text).collect(),
        Some(value) => Ok(vec![text(value)?]),
    }
}

fn text(value: &Value) -> Result<String, TokenError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Ok(number.to_string()),
        _ => Err(TokenError::Unmapped),
    }
}

// One text that may be shown and journalled.
fn name(claims: &Claims, path: &str) -> Result<Option<String>, TokenError> {
    let Some(value) = find(claims, path) else {
        return Ok(None);
    };
    let text = text(value)?;
    if plain(&text) {
        Ok(Some(text))
    } else {
        Err(TokenError::Unmapped)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(more: &str) -> ClaimMap {
        let text = format!("algorithm = \"HS256\"\nissuer = \"i\"\n{more}");
        ClaimMap::new(&toml::from_str(&text).unwrap())
    }

    fn principal(map: &ClaimMap, claims: Value) -> Result<Principal, TokenError> {
        map.principal(claims.as_object().unwrap())
    }

    #[test]
    fn the_strongest_mapped_role_wins_and_none_is_refused() {
        let map = map("roles = { \"1\" = \"admin\", staff = \"viewer\", lead = \"tenant-admin\" }");
        let role = |role: Value| principal(&map, json!({"sub": "s", "role": role})).map(|p| p.role);
        for (claim, expected) in [
            (json!("1"), Role::Admin),
            (json!(1), Role::Admin),
            (json!(["staff", "lead", "other"]), Role::TenantAdmin),
            (json!(["staff", 1, "lead"]), Role::Admin),
            (json!("staff"), Role::Viewer),
        ] {
            assert_eq!(role(claim.clone()), Ok(expected), "{claim}");
        }
        for bad in [
            json!("admin"),
            json!([]),
            json!(null),
            json!(1.0),
            json!(true),
            json!(["staff", {}]),
            json!({"staff": 1}),
        ] {
            assert_eq!(role(bad.clone()), Err(TokenError::Unmapped), "{bad}");
        }
        let lenient = self::map("default_role = \"viewer\"");
        let guest = principal(&lenient, json!({"sub": "s"})).unwrap();
        assert_eq!(guest.role, Role::Viewer);
    }

    #[test]
    fn claims_are_found_by_name_or_path_and_what_is_no_name_refuses_the_token() {
        let map = map(
            "default_role = \"viewer\"\ntenants_claim = \"realm.tenants\"\nprojects_claim = \"https://a.b/p\"\nuser_claim = \"user\"\ncontainer_claim = \"box\"",
        );
        let claims = json!({
            "sub": 7, "realm": {"tenants": ["a", "b"]}, "https://a.b/p": "p1", "user": "u"
        });
        let found = principal(&map, claims).unwrap();
        assert_eq!(found.subject, "i|7");
        let tenants: Vec<&str> = found.tenants.iter().map(TenantName::as_str).collect();
        assert_eq!((tenants, found.projects.len()), (vec!["a", "b"], 1));
        assert_eq!((found.user.as_deref(), found.container), (Some("u"), None));
        for bad in [
            json!({"sub": "s", "realm": {"tenants": ["a", "../b"]}}),
            json!({"sub": "s", "realm": {"tenants": {"a": 1}}}),
            json!({"sub": "s", "https://a.b/p": "a/b"}),
            json!({"sub": "s", "user": "a\nb"}),
            json!({"sub": "s", "box": "x".repeat(256)}),
            json!({"sub": ""}),
            json!({}),
        ] {
            assert_eq!(
                principal(&map, bad.clone()),
                Err(TokenError::Unmapped),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_tenant_map_gives_what_it_names_and_nothing_else() {
        let map = map("default_role = \"viewer\"\ntenant_map = { g1 = \"a\", g2 = \"b\" }");
        let claims = json!({"sub": "s", "tenants": ["g2", "a", "no name!"]});
        let found = principal(&map, claims).unwrap().tenants;
        assert_eq!(found, [TenantName::new("b").unwrap()].into());
    }
}
