//! The table `[tokens]`: our own tokens, foreign issuers, access keys.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use gpuquota_core::id::{ProjectId, TenantName};
use serde::Deserialize;

use super::address;
use crate::auth::{Algorithm, OWN_ISSUER, Role, limiter};

/// Tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// The signing key.
    pub key: PathBuf,
    /// How our own tokens are signed.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// Whose tokens count besides our own.
    #[serde(default)]
    pub issuer: Vec<Issuer>,
    /// Keys that sign requests of dialects 001 and 004.
    #[serde(default)]
    pub access_key: Vec<AccessKey>,
    /// Wrong credentials of one address a second that are answered as such.
    #[serde(default = "wrong_per_second")]
    pub wrong_per_second: NonZeroU32,
    /// Wrong credentials of one address at once that are answered as such.
    #[serde(default = "wrong_burst")]
    pub wrong_burst: NonZeroU32,
}

/// A foreign issuer and how its claims are read.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Its `iss`, compared exactly; absent for the one whose tokens carry none.
    pub issuer: Option<String>,
    /// What `aud` must be or hold.
    pub audience: Option<String>,
    /// The one algorithm that its tokens may have.
    pub algorithm: Algorithm,
    /// Secret of HS256.
    pub secret_file: Option<PathBuf>,
    /// Public key, SPKI in PEM.
    pub public_key_file: Option<PathBuf>,
    /// Key set; read again when it changes.
    pub jwks_file: Option<PathBuf>,
    /// Address of a key set.
    pub jwks_url: Option<String>,
    /// Authorities (PEM) that the address's certificate may end in, instead of the system's.
    pub jwks_ca_file: Option<PathBuf>,
    /// Seconds between two fetches.
    #[serde(default = "refresh_seconds")]
    pub jwks_refresh_seconds: u32,
    /// Seconds for which the last good set counts when fetches fail.
    #[serde(default = "keep_seconds")]
    pub jwks_keep_seconds: u32,
    /// The `kid` that tokens for a single key file may carry.
    pub kid: Option<String>,
    /// Claim that says who.
    #[serde(default = "subject_claim")]
    pub subject_claim: String,
    /// Claim that says which role.
    #[serde(default = "role_claim")]
    pub role_claim: String,
    /// Roles by values of that claim.
    #[serde(default)]
    pub roles: BTreeMap<String, Role>,
    /// Role of tokens whose claim names none of them.
    pub default_role: Option<Role>,
    /// Claim that says for which tenants.
    #[serde(default = "tenants_claim")]
    pub tenants_claim: String,
    /// Tenants by values of that claim; without it a value is the tenant.
    pub tenant_map: Option<BTreeMap<String, TenantName>>,
    /// Claim that says in which projects.
    #[serde(default = "projects_claim")]
    pub projects_claim: String,
    /// Claim that names the user.
    pub user_claim: Option<String>,
    /// Claim that names the container.
    pub container_claim: Option<String>,
}

/// A key pair that signs requests (SDK-HMAC-SHA256).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessKey {
    /// The public half.
    pub id: String,
    /// The secret half.
    pub secret_file: PathBuf,
    /// Who, for the journal.
    pub subject: String,
    /// What its requests may do.
    pub role: Role,
    /// For which tenants.
    #[serde(default)]
    pub tenants: BTreeSet<TenantName>,
    /// In which projects.
    #[serde(default)]
    pub projects: BTreeSet<ProjectId>,
}

fn wrong_per_second() -> NonZeroU32 {
    limiter::PER_SECOND
}
fn wrong_burst() -> NonZeroU32 {
    limiter::BURST
}
fn refresh_seconds() -> u32 {
    300
}
fn keep_seconds() -> u32 {
    86_400
}
fn subject_claim() -> String {
    "sub".into()
}
fn role_claim() -> String {
    "role".into()
}
fn tenants_claim() -> String {
    "tenants".into()
}
fn projects_claim() -> String {
    "projects".into()
}

impl Tokens {
    /// Makes its paths absolute and refuses what contradicts itself; files are read later.
    ///
    /// # Errors
    /// With what to do.
    pub(crate) fn prepare(&mut self, dir: &Path) -> Result<(), String> {
        self.below(dir);
        self.check()
    }

    fn below(&mut self, dir: &Path) {
        let issuers = self.issuer.iter_mut().flat_map(|issuer| {
            [
                issuer.secret_file.as_mut(),
                issuer.public_key_file.as_mut(),
                issuer.jwks_file.as_mut(),
                issuer.jwks_ca_file.as_mut(),
            ]
        });
        let keys = self.access_key.iter_mut().map(|key| &mut key.secret_file);
        let paths = issuers
            .flatten()
            .chain(keys)
            .chain(std::iter::once(&mut self.key));
        for path in paths {
            *path = dir.join(&*path);
        }
    }

    fn check(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for issuer in &self.issuer {
            let name = issuer.name();
            if !seen.insert(issuer.issuer.as_deref()) {
                return Err(format!("tokens.issuer: {name} stands there twice"));
            }
            issuer
                .check()
                .map_err(|reason| format!("tokens.issuer {name}: {reason}"))?;
        }
        let mut seen = BTreeSet::new();
        for key in &self.access_key {
            if !seen.insert(&key.id) {
                return Err(format!("tokens.access_key {}: stands there twice", key.id));
            }
            key.check()
                .map_err(|reason| format!("tokens.access_key {}: {reason}", key.id))?;
        }
        Ok(())
    }
}

impl Issuer {
    /// How texts for operators name it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.issuer.as_deref().unwrap_or("without issuer")
    }

    fn check(&self) -> Result<(), String> {
        if self.issuer.as_deref() == Some(OWN_ISSUER) {
            return Err(format!("issuer {OWN_ISSUER} is this server's own"));
        }
        if self.issuer.is_some() && self.audience.is_none() {
            return Err("audience is missing: tokens for others must not count here".into());
        }
        let shared = self.algorithm == Algorithm::Hs256;
        let sources = [
            self.secret_file.is_some(),
            self.public_key_file.is_some(),
            self.jwks_file.is_some(),
            self.jwks_url.is_some(),
        ];
        if sources.iter().filter(|given| **given).count() != 1 {
            return Err(
                "give exactly one of secret_file, public_key_file, jwks_file and jwks_url".into(),
            );
        }
        if shared && (self.public_key_file.is_some() || self.jwks_url.is_some()) {
            return Err("HS256 has a secret: secret_file, or jwks_file with oct keys".into());
        }
        if !shared && self.secret_file.is_some() {
            return Err("secret_file is for HS256 only".into());
        }
        if self.kid.is_some() && (self.jwks_file.is_some() || self.jwks_url.is_some()) {
            return Err("kid is for a single key file; a key set names its own".into());
        }
        if let Some(url) = &self.jwks_url {
            address::check("jwks_url", url)?;
        }
        let https = |url: &String| url.starts_with("https:");
        if self.jwks_ca_file.is_some() && !self.jwks_url.as_ref().is_some_and(https) {
            return Err("jwks_ca_file is for a jwks_url with https".into());
        }
        if !(1..=86_400).contains(&self.jwks_refresh_seconds)
            || self.jwks_keep_seconds < self.jwks_refresh_seconds
        {
            return Err(
                "jwks_refresh_seconds must be 1 to 86400 and jwks_keep_seconds not less".into(),
            );
        }
        if self.default_role == Some(Role::Admin) {
            return Err("default_role may not be admin: every token of this issuer would be one; map a claim with roles".into());
        }
        if self.roles.is_empty() && self.default_role.is_none() {
            return Err("roles maps no claim to a role and there is no default_role, so every token would be refused".into());
        }
        let names = [
            Some(&self.subject_claim),
            Some(&self.role_claim),
            Some(&self.tenants_claim),
            Some(&self.projects_claim),
            self.user_claim.as_ref(),
            self.container_claim.as_ref(),
            self.issuer.as_ref(),
            self.audience.as_ref(),
            self.kid.as_ref(),
        ];
        if names.into_iter().flatten().any(|name| !plain(name)) {
            return Err("names and claims have 1 to 255 bytes without control characters".into());
        }
        Ok(())
    }
}

impl AccessKey {
    fn check(&self) -> Result<(), String> {
        let part = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
        if !(1..=128).contains(&self.id.len()) || !self.id.bytes().all(part) {
            return Err("id must be 1 to 128 of A-Z a-z 0-9 _ -".into());
        }
        if !plain(&self.subject) {
            return Err("subject must be 1 to 255 bytes without control characters".into());
        }
        if self.role != Role::Admin && self.tenants.is_empty() && self.projects.is_empty() {
            return Err("without tenants and projects it could do nothing".into());
        }
        Ok(())
    }
}

fn plain(text: &str) -> bool {
    (1..=255).contains(&text.len()) && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMED: &str = "[[issuer]]\nissuer = \"https://idp\"\naudience = \"gpu\"\n";
    const ROLE: &str = "default_role = \"viewer\"\n";

    fn prepared(text: &str) -> Result<Tokens, String> {
        let text = format!("key = \"token.key\"\n{text}");
        let mut tokens: Tokens = toml::from_str(&text).map_err(|e| e.to_string())?;
        tokens.prepare(Path::new("/d"))?;
        Ok(tokens)
    }

    #[test]
    fn an_issuer_has_one_algorithm_one_source_of_keys_and_a_way_to_a_role() {
        let url = |url: &str| format!("{NAMED}{ROLE}algorithm = \"RS256\"\njwks_url = \"{url}\"\n");
        for good in [
            String::new(),
            url("https://idp.example/keys"),
            url("http://127.0.0.1:8081/keys"),
            url("http://[::1]:8081/keys"),
            format!("{NAMED}{ROLE}algorithm = \"EdDSA\"\npublic_key_file = \"k\"\nkid = \"1\""),
            format!("[[issuer]]\n{ROLE}algorithm = \"HS256\"\nsecret_file = \"k\""),
        ] {
            let tokens = prepared(&good).unwrap();
            let file = tokens.issuer.first().and_then(|i| i.secret_file.clone());
            assert!(file.is_none_or(|path| path == Path::new("/d/k")));
        }
        let one = url("https://idp.example/keys");
        for (bad, reason) in [
            (url("http://idp.example/keys"), "jwks_url must be"),
            (url("http://127.0.0.1.example/keys"), "jwks_url must be"),
            (url("https://user@idp.example/keys"), "jwks_url must be"),
            (url("file:///etc/passwd"), "jwks_url must be"),
            (url("/keys"), "jwks_url must be"),
            (one.replace("audience", "# audience"), "audience is missing"),
            (
                one.replace("https://idp\"", "gpuquota\""),
                "this server's own",
            ),
            (one.replace(ROLE, ""), "no default_role"),
            (one.replace("viewer", "admin"), "may not be admin"),
            (one.replace("RS256", "HS256"), "HS256 has a secret"),
            (one.replace("RS256", "none"), "unknown variant"),
            (one.replace("RS256", "PS256"), "unknown variant"),
            (format!("{one}jwks_file = \"k\""), "exactly one of"),
            (one.replace("jwks_url", "# "), "exactly one of"),
            (format!("{one}kid = \"1\""), "single key file"),
            (format!("{one}jwks_keep_seconds = 299"), "jwks_keep_seconds"),
            (
                format!("{one}jwks_refresh_seconds = 0"),
                "jwks_refresh_seconds",
            ),
            (format!("{one}subject_claim = \"\""), "1 to 255"),
            (
                format!("{one}tenant_map = {{ a = \"no name!\" }}"),
                "tenant",
            ),
            (format!("{one}typo = 1"), "unknown field"),
            (format!("{one}{one}"), "stands there twice"),
        ] {
            let error = prepared(&bad).unwrap_err();
            assert!(error.contains(reason), "{bad}: {error}");
        }
    }

    #[test]
    fn an_access_key_says_for_whom_it_is() {
        let key = "[[access_key]]\nid = \"AK1\"\nsecret_file = \"s\"\nsubject = \"sdk\"\nrole = \"viewer\"\nprojects = [\"p\"]\n";
        let tokens = prepared(key).unwrap();
        assert_eq!(tokens.access_key[0].secret_file, Path::new("/d/s"));
        for bad in [
            key.replace("projects", "# projects"),
            key.replace("AK1", "A K"),
            key.replace("sdk", ""),
            format!("{key}{key}"),
        ] {
            assert!(prepared(&bad).is_err(), "{bad}");
        }
    }
}
