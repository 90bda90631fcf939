//! The table `[dialects]`: what the documents leave to the operator.

use serde::Deserialize;

/// What the documents leave to the operator.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dialects {
    /// A tenant administrator may make and change licence quotas of its own tenants.
    pub tenant_admin_sets_licences: bool,
    /// Scheme, host and port for links in answers.
    pub public_url: Option<String>,
    /// Hosts by which callers may reach the server, with the port where it is not the scheme's own; besides
    /// `public_url`'s and the listener's.
    pub hosts: Vec<String>,
    /// Sites are written as numbers where their id is one.
    pub site_id_as_number: bool,
}

impl Dialects {
    pub(super) fn check(&self) -> Result<(), String> {
        let Some(url) = &self.public_url else {
            return Ok(());
        };
        let rule = "dialects.public_url must be like https://quota.example:8443, without a path";
        let uri: http::Uri = url.parse().map_err(|_| rule)?;
        let web = matches!(uri.scheme_str(), Some("http" | "https"));
        let bare = uri.path_and_query().is_none_or(|path| path == "/") && !url.ends_with('/');
        if web && bare && uri.authority().is_some() {
            Ok(())
        } else {
            Err(rule.into())
        }
    }
}
