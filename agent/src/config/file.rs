//! The format of `agent.toml`.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::act::EnforcementConfig;
use crate::attribute::AttributionConfig;
use crate::exec::config::ExecConfig;
use crate::metrics::dcgm::HostLabel;

use super::ConfigError;

/// `state` where the file does not say.
pub const DEFAULT_STATE: &str = "state";

/// The file, not checked beyond its form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) server: Option<String>,
    pub(super) node: Option<String>,
    #[serde(deserialize_with = "duration")]
    pub(super) interval: Duration,
    #[serde(deserialize_with = "duration")]
    pub(super) call_deadline: Duration,
    pub(super) nvml_library: Option<PathBuf>,
    pub(super) ca: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) renew: Option<bool>,
    pub(super) node_identity: Option<String>,
    pub(super) server_identity: Option<String>,
    pub(super) state: PathBuf,
    pub(super) kernel_log: PathBuf,
    pub(super) metrics: MetricsTable,
    pub(super) spool: SpoolTable,
    pub(super) attribution: AttributionConfig,
    pub(super) enforcement: EnforcementConfig,
    pub(super) exec: ExecConfig,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MetricsTable {
    pub(super) listen: SocketAddr,
    pub(super) bearer_token_file: Option<PathBuf>,
    pub(super) dcgm_host_label: HostLabel,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SpoolTable {
    pub(super) max_bytes: u64,
    pub(super) max_records: usize,
}

impl Default for File {
    fn default() -> Self {
        Self {
            server: None,
            node: None,
            interval: Duration::from_secs(1),
            call_deadline: Duration::from_secs(2),
            nvml_library: None,
            ca: "ca.crt".into(),
            certificate: "agent.crt".into(),
            key: "agent.key".into(),
            renew: None,
            node_identity: None,
            server_identity: None,
            state: DEFAULT_STATE.into(),
            kernel_log: "/dev/kmsg".into(),
            metrics: MetricsTable::default(),
            spool: SpoolTable::default(),
            attribution: AttributionConfig::default(),
            enforcement: EnforcementConfig::default(),
            exec: ExecConfig::default(),
        }
    }
}

impl Default for MetricsTable {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9401)),
            bearer_token_file: None,
            dcgm_host_label: HostLabel::default(),
        }
    }
}

impl Default for SpoolTable {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_records: 50_000,
        }
    }
}

/// Reads it; a file that is not there says nothing but defaults.
pub(super) fn read_file(path: &Path) -> Result<File, ConfigError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => {
            return Err(ConfigError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    toml::from_str(&text).map_err(|source| ConfigError::Parse {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

/// A whole number with `ms`, `s` or `m`.
///
/// # Errors
/// With a text for a person when it is anything else.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let count: u32 = digits
        .parse()
        .map_err(|_| format!("{text:?} is not a duration such as 500ms, 1s or 2m"))?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(count.into())),
        "s" => Ok(Duration::from_secs(count.into())),
        "m" => Ok(Duration::from_secs(u64::from(count) * 60)),
        _ => Err(format!("{text:?} needs the unit ms, s or m")),
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(serde::de::Error::custom)
}
