//! `agent.toml` and the flags that win over it: read once, checked once, then only resolved values.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gpuquota_proto::form::FormError;
use gpuquota_proto::tls::TlsFiles;
use tonic::codegen::http::Uri;

use crate::act::EnforcementConfig;
use crate::attribute::{self, AttributionConfig, Attributor, VmRules};
use crate::exec::config::ExecConfig;
use crate::gpu::library::{LibraryRefused, check_library};
use crate::join::pair;
use crate::metrics::dcgm::HostLabel;
use crate::spool::Limits;
use crate::uplink::dial::{Credentials, DialError, Server, own_identity};

mod file;
mod identity;

pub use file::{DEFAULT_STATE, parse_duration};
use file::{File, read_file};

/// The commented default file, which is the manual.
pub const DEFAULT_FILE: &str = include_str!("../agent.default.toml");

/// Flags of `run`.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--interval`.
    pub interval: Option<Duration>,
    /// `--metrics`.
    pub metrics: Option<SocketAddr>,
    /// `--nvml-library`.
    pub nvml_library: Option<PathBuf>,
    /// `--standalone`.
    pub standalone: bool,
    /// `--proc-root`.
    pub proc_root: Option<PathBuf>,
}

/// Why the agent cannot start as configured.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file is missing or unreadable.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}: {source}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// How certificates name somebody.
    #[error("`{key}`: {source}")]
    BadIdentity {
        /// Which key.
        key: &'static str,
        /// Why.
        source: FormError,
    },
    /// Our own server's certificates and another authority's ids.
    #[error(
        "`node_identity` says that another authority makes this node's certificate, so `{0}` has nobody to ask: leave it out and let \
         that authority's tool put the files where `ca`, `certificate` and `key` say, or take `node_identity` away"
    )]
    Foreign(&'static str),
    /// There is nobody to report to.
    #[error("no server is configured: set `server` in {0}, or run with --standalone")]
    NoServer(PathBuf),
    /// The server's address does not parse.
    #[error("`server` must look like https://HOST:PORT, not {0:?}")]
    BadServer(String),
    /// The interval makes no sense.
    #[error("the interval must be between 100ms and 60s")]
    BadInterval,
    /// The call deadline makes no sense.
    #[error("`call_deadline` must be between 10ms and 30s")]
    BadDeadline,
    /// The spool could not hold anything.
    #[error("`spool.max_bytes` must be at least 65536 and `spool.max_records` at least 16")]
    BadSpool,
    /// The table of enforcement makes no sense.
    #[error(
        "`enforcement.ended_per_minute` must be at least 1 (to end nobody, set `enforcement.most`), and `enforcement.socket` an absolute path"
    )]
    BadEnforcement,
    /// The table of leases for commands makes no sense.
    #[error("`exec.socket` must be an absolute path, or empty")]
    BadExec,
    /// Certificate or node name.
    #[error(transparent)]
    Identity(#[from] DialError),
    /// Somebody else can read a secret.
    #[error("{0} must not be accessible to group or others (chmod 600)")]
    Exposed(PathBuf),
    /// Metrics for everybody on the network.
    #[error("metrics off loopback ({0}) need `metrics.bearer_token_file`")]
    OpenMetrics(SocketAddr),
    /// The token file holds nothing usable.
    #[error("{0} must hold one token of 16 to 1024 visible ASCII characters")]
    BadToken(PathBuf),
    /// A rule of attribution is unclear.
    #[error(transparent)]
    Attribution(#[from] attribute::ConfigError),
    /// The NVML library is refused.
    #[error(transparent)]
    Library(#[from] LibraryRefused),
}

/// Everything `run` needs, resolved and checked.
#[derive(Debug)]
pub struct Config {
    /// How often the GPUs are read.
    pub interval: Duration,
    /// Deadline of one NVML call.
    pub call_deadline: Duration,
    /// NVML to load, `None` for the system's.
    pub nvml_library: Option<PathBuf>,
    /// Where to report to; `None` when standalone.
    pub uplink: Option<UplinkTarget>,
    /// Folder for what outlives a restart.
    pub state: PathBuf,
    /// Listener of `/metrics`.
    pub metrics: SocketAddr,
    /// Token that scrapers must send.
    pub metrics_token: Option<String>,
    /// What rows with DCGM's names call the label with the host's name.
    pub dcgm_host_label: HostLabel,
    /// How much the spool may hold.
    pub spool: Limits,
    /// Where the proc file system is, as far as it tells of the node as a whole.
    pub proc_root: PathBuf,
    /// The kernel log to follow; `None`: none.
    pub kernel_log: Option<PathBuf>,
    /// By which evidence processes are given to tenants.
    pub attribution: AttributionConfig,
    /// How far policies may go on this node.
    pub enforcement: EnforcementConfig,
    /// Where processes ask for leases.
    pub exec: ExecConfig,
}

/// The server and who this node is to it.
#[derive(Clone, Debug)]
pub struct UplinkTarget {
    /// Where it is.
    pub server: Server,
    /// Own files and name.
    pub credentials: Credentials,
    /// Whether the agent asks the server for its next certificate.
    pub renew: bool,
}

impl Config {
    /// Reads `dir/agent.toml` (absent: all defaults), applies the flags and checks the outcome.
    ///
    /// # Errors
    /// With the first thing that is wrong.
    pub fn load(dir: &Path, overrides: Overrides) -> Result<Self, ConfigError> {
        let path = dir.join("agent.toml");
        let file = read_file(&path)?;
        let interval = overrides.interval.unwrap_or(file.interval);
        if !(Duration::from_millis(100)..=Duration::from_secs(60)).contains(&interval) {
            return Err(ConfigError::BadInterval);
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(30)).contains(&file.call_deadline) {
            return Err(ConfigError::BadDeadline);
        }
        if file.spool.max_bytes < 65_536 || file.spool.max_records < 16 {
            return Err(ConfigError::BadSpool);
        }
        let metrics = overrides.metrics.unwrap_or(file.metrics.listen);
        let metrics_token = match &file.metrics.bearer_token_file {
            Some(token) => Some(read_token(&dir.join(token))?),
            None if metrics.ip().is_loopback() => None,
            None => return Err(ConfigError::OpenMetrics(metrics)),
        };
        let nvml_library = overrides
            .nvml_library
            .or_else(|| file.nvml_library.as_ref().map(|library| dir.join(library)))
            .map(|library| check_library(&library).map(|_| library))
            .transpose()?;
        if file.enforcement.ended_per_minute == 0 || !file.enforcement.socket.is_absolute() {
            return Err(ConfigError::BadEnforcement);
        }
        let socket = &file.exec.socket;
        if !socket.as_os_str().is_empty() && !socket.is_absolute() {
            return Err(ConfigError::BadExec);
        }
        Attributor::new(&file.attribution)?;
        VmRules::new(&file.attribution.vms).map_err(attribute::ConfigError::from)?;
        let uplink = if overrides.standalone {
            None
        } else {
            Some(uplink_target(dir, &path, &file)?)
        };
        Ok(Self {
            interval,
            call_deadline: file.call_deadline,
            nvml_library,
            uplink,
            state: dir.join(&file.state),
            metrics,
            metrics_token,
            dcgm_host_label: file.metrics.dcgm_host_label,
            spool: Limits {
                bytes: file.spool.max_bytes,
                records: file.spool.max_records,
            },
            proc_root: overrides.proc_root.unwrap_or_else(|| "/proc".into()),
            kernel_log: Some(file.kernel_log).filter(|path| !path.as_os_str().is_empty()),
            attribution: file.attribution,
            enforcement: file.enforcement,
            exec: file.exec,
        })
    }
}

/// Where the agent with this directory keeps its state.
///
/// # Errors
/// When `agent.toml` is there and not right.
pub fn state_folder(dir: &Path) -> Result<PathBuf, ConfigError> {
    read_file(&dir.join("agent.toml")).map(|file| dir.join(file.state))
}

/// What `agent.toml` says of joining, where it is there.
#[derive(Debug)]
pub struct JoinFiles {
    /// The files of the agent's identity.
    pub files: TlsFiles,
    /// The node that they must name.
    pub node: Option<String>,
    /// The server's address.
    pub server: Option<String>,
}

/// Reads it.
///
/// # Errors
/// When `agent.toml` is there and not right.
pub fn join_files(dir: &Path) -> Result<JoinFiles, ConfigError> {
    let file = read_file(&dir.join("agent.toml"))?;
    if file.node_identity.is_some() {
        return Err(ConfigError::Foreign("join"));
    }
    Ok(JoinFiles {
        files: identity_files(dir, &file),
        node: file.node,
        server: file.server,
    })
}

fn identity_files(dir: &Path, file: &File) -> TlsFiles {
    TlsFiles {
        ca: dir.join(&file.ca),
        certificate: dir.join(&file.certificate),
        key: dir.join(&file.key),
    }
}

fn uplink_target(dir: &Path, path: &Path, file: &File) -> Result<UplinkTarget, ConfigError> {
    let server = file
        .server
        .as_deref()
        .ok_or_else(|| ConfigError::NoServer(path.to_owned()))?;
    let server = parse_server(server).ok_or_else(|| ConfigError::BadServer(server.to_owned()))?;
    let files = identity_files(dir, file);
    pair::mend(&files);
    check_secret(&files.key)?;
    let (forms, renew) = identity::of(file)?;
    let found = own_identity(&files, &forms.node)?.node;
    if let Some(expected) = &file.node
        && *expected != found
    {
        let expected = expected.clone();
        return Err(DialError::OtherNode { expected, found }.into());
    }
    Ok(UplinkTarget {
        server,
        credentials: Credentials {
            files,
            node: found,
            forms,
        },
        renew,
    })
}

pub(crate) fn parse_server(text: &str) -> Option<Server> {
    let uri: Uri = text.parse().ok()?;
    let plain = uri.path() == "/" && uri.query().is_none() && !text.contains('@');
    if uri.scheme_str() != Some("https") || !plain {
        return None;
    }
    let host = uri.host()?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    Some(Server {
        host: host.to_owned(),
        port: uri.port_u16()?,
    })
}

// Only its owner and root may have access: the agent's user, or root. Root may look at what is the agent's user's.
fn check_secret(path: &Path) -> Result<(), ConfigError> {
    let metadata = fs::metadata(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let user = rustix::process::geteuid();
    let own = user.is_root() || [0, user.as_raw()].contains(&metadata.uid());
    if !own || metadata.permissions().mode() & 0o077 != 0 {
        return Err(ConfigError::Exposed(path.to_owned()));
    }
    Ok(())
}

fn read_token(path: &Path) -> Result<String, ConfigError> {
    check_secret(path)?;
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let token = text.trim_end_matches(['\r', '\n']);
    if !(16..=1024).contains(&token.len()) || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(ConfigError::BadToken(path.to_owned()));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests;
