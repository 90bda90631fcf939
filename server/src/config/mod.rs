//! The configuration file `server.toml`. Its commented default is the manual; unknown keys are refused.

mod address;
mod declared;
mod dialects;
mod files;
mod identity;
mod ledger;
mod life;
mod number;
mod rest;
mod tokens;
mod webhook;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use declared::{
    DeclaredCardLimit, DeclaredGroup, DeclaredHostLimit, DeclaredHostResource, DeclaredModel,
    DeclaredNode, DeclaredProduct, DeclaredRegion, DeclaredSettings, DeclaredTenant,
};
use gpuquota_core::id::Region;
use gpuquota_proto::form::NodeForm;
use gpuquota_proto::tls::{HttpsFiles, TlsFiles};
use serde::Deserialize;

pub use declared::Declaration;
pub use dialects::Dialects;
pub use ledger::{LedgerSettings, read_url};
pub use life::Life;
pub use rest::Rest;
pub use tokens::{AccessKey, Issuer, Tokens};
pub use webhook::Webhook;

/// Name of the file in the server's directory.
pub const FILE: &str = "server.toml";
/// The default file, as `init` writes it.
pub const DEFAULT: &str = include_str!("../../server.default.toml");

/// All of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Region of a node that nobody declared.
    pub default_region: Region,
    /// The REST listener.
    pub rest: Rest,
    /// What the documents of the dialects leave open.
    #[serde(default)]
    pub dialects: Dialects,
    /// The agents' listener.
    pub agents: Agents,
    /// The metrics listener.
    pub metrics: Metrics,
    /// The journal.
    pub ledger: LedgerSettings,
    /// Tokens.
    pub tokens: Tokens,
    /// Who is told of steps.
    #[serde(default)]
    pub webhook: Option<Webhook>,
    /// The log.
    pub log: Log,
    /// How the ledger decides where the operator may choose.
    pub settings: Option<DeclaredSettings>,
    /// Tenants.
    #[serde(default)]
    pub tenant: Vec<DeclaredTenant>,
    /// Regions and their sites.
    #[serde(default)]
    pub region: Vec<DeclaredRegion>,
    /// Resource groups.
    #[serde(default)]
    pub resource_group: Vec<DeclaredGroup>,
    /// Cards of a tenant on one node.
    #[serde(default)]
    pub card_limit: Vec<DeclaredCardLimit>,
    /// Kinds of dedicated hosts.
    #[serde(default)]
    pub host_resource: Vec<DeclaredHostResource>,
    /// Hosts of a tenant.
    #[serde(default)]
    pub host_limit: Vec<DeclaredHostLimit>,
    /// The model catalogue.
    #[serde(default)]
    pub model: Vec<DeclaredModel>,
    /// Software products.
    #[serde(default)]
    pub software_product: Vec<DeclaredProduct>,
    /// Where nodes stand and belong.
    #[serde(default)]
    pub node: Vec<DeclaredNode>,
}

/// The agents' listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agents {
    /// Address.
    pub listen: SocketAddr,
    /// Address as agents know it.
    pub url: String,
    /// Certificates that agents' chains end in.
    pub ca: PathBuf,
    /// The server's chain.
    pub certificate: PathBuf,
    /// The server's key.
    pub key: PathBuf,
    /// Key of the first certificate in `ca`; where the file is not there, the server signs nothing.
    #[serde(default = "ca_key")]
    pub ca_key: PathBuf,
    /// How certificates name nodes; not in our own form where another authority makes them.
    #[serde(default, deserialize_with = "identity::form")]
    pub node_identity: NodeForm,
    /// How long a certificate lasts that the server signs: 10 s to 825 days.
    #[serde(default = "certificate_life")]
    pub certificate_life: Life<10, { 825 * 86_400 }>,
    /// How long a join token counts: 1 s to 1 h.
    #[serde(default = "join_token_life")]
    pub join_token_life: Life<1, 3600>,
    /// Leases that one node may have taken at a time for processes that start there; 0: none.
    #[serde(default = "leases_per_node")]
    pub leases_per_node: u32,
    /// How long such a lease lasts unless its agent renews it: 1 minute to 1 day.
    #[serde(default = "lease_life")]
    pub lease_life: Life<60, 86_400>,
    /// How often agents send heartbeats.
    pub heartbeat_seconds: u32,
    /// After how long a node counts as silent.
    pub silent_after_seconds: u32,
}

fn ca_key() -> PathBuf {
    "ca.key".into()
}

fn certificate_life() -> Life<10, { 825 * 86_400 }> {
    Life::or(7 * 86_400)
}

fn join_token_life() -> Life<1, 3600> {
    Life::or(600)
}

fn leases_per_node() -> u32 {
    64
}

fn lease_life() -> Life<60, 86_400> {
    Life::or(1800)
}

/// The metrics listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Address.
    pub listen: SocketAddr,
    /// File with the bearer token that scrapes must carry.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Own chain; with it the listener speaks HTTPS only.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// Own private key.
    #[serde(default)]
    pub key: Option<PathBuf>,
}

impl Metrics {
    /// The files of HTTPS; `None` is plain HTTP.
    #[must_use]
    pub fn https(&self) -> Option<HttpsFiles> {
        rest::https(self.certificate.as_ref(), self.key.as_ref())
    }
}

/// The log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// Which lines there are.
    pub filter: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {0}: {1}; make a server directory with `gpuquota-server init --dir DIR`")]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// The file says something that is not known or not valid.
    #[error("{0}: {1}")]
    Invalid(PathBuf, String),
}

impl Config {
    /// Reads `server.toml` in `dir` and makes its paths absolute.
    ///
    /// # Errors
    /// When it cannot be read or used.
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join(FILE);
        let text =
            fs::read_to_string(&path).map_err(|e| ConfigError::Unreadable(path.clone(), e))?;
        Self::parse(&text, dir).map_err(|reason| ConfigError::Invalid(path, reason))
    }

    fn parse(text: &str, dir: &Path) -> Result<Self, String> {
        let mut config: Self = toml::from_str(text).map_err(|e| e.to_string())?;
        for path in [
            Some(&mut config.agents.ca),
            Some(&mut config.agents.certificate),
            Some(&mut config.agents.key),
            Some(&mut config.agents.ca_key),
            config.rest.certificate.as_mut(),
            config.rest.key.as_mut(),
            config.metrics.token_file.as_mut(),
            config.metrics.certificate.as_mut(),
            config.metrics.key.as_mut(),
            Some(&mut config.ledger.path),
            config.ledger.url_file.as_mut(),
        ]
        .into_iter()
        .flatten()
        .chain(config.webhook.iter_mut().flat_map(Webhook::files))
        {
            *path = dir.join(&*path);
        }
        config.tokens.prepare(dir)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if !(1..=300).contains(&self.agents.heartbeat_seconds) {
            return Err("agents.heartbeat_seconds must be 1 to 300".into());
        }
        if self.agents.silent_after_seconds <= 2 * self.agents.heartbeat_seconds {
            return Err("agents.silent_after_seconds must be more than two heartbeats".into());
        }
        self.ledger.check()?;
        let metrics = &self.metrics;
        rest::both(
            "metrics",
            metrics.certificate.as_ref(),
            metrics.key.as_ref(),
        )?;
        self.dialects.check()?;
        self.webhook.as_ref().map_or(Ok(()), Webhook::check)?;
        self.rest.check()
    }

    /// Refuses listeners that would show figures to the whole network.
    ///
    /// # Errors
    /// With what to do.
    pub fn check_listeners(&self) -> Result<(), String> {
        let metrics = &self.metrics;
        let guarded = metrics.token_file.is_some() || metrics.certificate.is_some();
        if !metrics.listen.ip().is_loopback() && !guarded {
            return Err(format!(
                "metrics on {} need metrics.token_file, or metrics.certificate and metrics.key; or listen on 127.0.0.1",
                metrics.listen
            ));
        }
        self.rest.check_listener()
    }

    /// All that the file declares, in an order in which everything is there before it is referred to.
    pub fn declarations(&self) -> impl Iterator<Item = &dyn Declaration> {
        fn each<T: Declaration>(list: &[T]) -> impl Iterator<Item = &dyn Declaration> {
            list.iter().map(|it| it as &dyn Declaration)
        }
        each(self.settings.as_slice())
            .chain(each(&self.tenant))
            .chain(each(&self.region))
            .chain(each(&self.resource_group))
            .chain(each(&self.card_limit))
            .chain(each(&self.host_resource))
            .chain(each(&self.host_limit))
            .chain(each(&self.model))
            .chain(each(&self.software_product))
            .chain(each(&self.node))
    }

    /// TLS files of the agents' listener.
    #[must_use]
    pub fn tls_files(&self) -> TlsFiles {
        TlsFiles {
            ca: self.agents.ca.clone(),
            certificate: self.agents.certificate.clone(),
            key: self.agents.key.clone(),
        }
    }

    /// How often agents send heartbeats.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        Duration::from_secs(self.agents.heartbeat_seconds.into())
    }

    /// After how long a node counts as silent.
    #[must_use]
    pub fn silent_after(&self) -> Duration {
        Duration::from_secs(self.agents.silent_after_seconds.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_file_is_complete_and_unknown_keys_are_refused() {
        let config = Config::parse(DEFAULT, Path::new("/d")).unwrap();
        assert_eq!(config.tokens.key, Path::new("/d/token.key"));
        assert!(config.check_listeners().is_ok());
        let parse = |text: &str| Config::parse(text, Path::new("/d"));
        assert!(parse(&format!("typo = 1\n{DEFAULT}")).is_err());
        assert!(parse(&DEFAULT.replace("heartbeat_seconds = 1", "heartbeat_seconds = 9")).is_err());
        let commented = DEFAULT
            .lines()
            .skip_while(|line| !line.starts_with("# Declarations"));
        let uncommented: String = commented
            .filter_map(|line| line.strip_prefix("#: "))
            .map(|line| format!("{line}\n"))
            .collect();
        let all = parse(&format!("{DEFAULT}\n{uncommented}")).unwrap();
        assert_eq!(all.declarations().count(), 10, "{uncommented}");
        let nodes = format!("{DEFAULT}\n[[node]]\nname = \"gpu02\"\nregion = \"US\"\n");
        assert_eq!(parse(&nodes).unwrap().node.len(), 1);
    }

    #[test]
    fn off_loopback_a_listener_needs_what_protects_it() {
        let parse = |edits: &[(&str, &str)]| {
            let mut text = DEFAULT.to_owned();
            for (from, to) in edits {
                assert!(text.contains(from), "{from}");
                text = text.replace(from, to);
            }
            Config::parse(&text, Path::new("/d"))
        };
        let metrics = ("127.0.0.1:9402", "0.0.0.0:9402");
        let refused = parse(&[metrics]).unwrap().check_listeners().unwrap_err();
        assert!(refused.contains("metrics.token_file"), "{refused}");
        let rest = ("127.0.0.1:8080", "0.0.0.0:8080");
        let refused = parse(&[rest]).unwrap().check_listeners().unwrap_err();
        assert!(refused.contains("rest.certificate"), "{refused}");
        let plain = ("plain_http = false", "plain_http = true");
        assert!(parse(&[rest, plain]).unwrap().check_listeners().is_ok());
        // Both tables show the same two lines.
        let certificate = ("# certificate = ", "certificate = ");
        let key = ("# key = ", "key = ");
        let both = parse(&[rest, metrics, certificate, key]).unwrap();
        assert!(both.check_listeners().is_ok());
        let files = both.rest.https().unwrap();
        assert_eq!(files.certificate, Path::new("/d/server.crt"));
        assert_eq!(files.key, Path::new("/d/server.key"));
        assert!(both.metrics.https().is_some());
        for half in [&[certificate][..], &[key], &[certificate, key, plain]] {
            assert!(parse(half).is_err(), "{half:?}");
        }
    }
}
