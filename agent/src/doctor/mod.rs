//! The command `doctor`: what the agent needs on this node, and every way round the limits that this node leaves open, each graded
//! with what to do.

mod accounts;
mod bypass;
mod creators;
mod denied;
mod driver;
mod enforcer;
mod files;
mod namespaces;
mod node;
mod rules;
mod server;
mod sockets;
mod tenants;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use crate::config::{Config, ConfigError, Overrides};
use accounts::Accounts;
use files::Root;
use tenants::Ways;

/// Command line of `doctor`.
#[derive(Clone, Debug, clap::Args)]
pub struct DoctorOptions {
    /// The agent's directory; without it only the node is looked at.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// NVML to load instead of the system's.
    #[arg(long, value_name = "PATH")]
    pub nvml_library: Option<PathBuf>,
    /// Look at the node below this folder.
    #[arg(long, value_name = "PATH", hide = true, default_value = "/")]
    pub root: PathBuf,
}

/// How a thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// It cannot be told from here.
    Unknown,
    /// The agent works, with something missing or open.
    Warn,
    /// The agent cannot do its work, or says what is not true.
    Fail,
}

impl Grade {
    fn text(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    fn exit(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Unknown | Self::Warn => 1,
            Self::Fail => 2,
        }
    }
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// What the agent needs.
    Precondition,
    /// A way round what the agent sees or enforces.
    Bypass,
    /// Which ways round a tenant has.
    Tenant,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A name that stays, for programs.
    pub id: &'static str,
    /// Which list it stands in.
    pub about: About,
    /// How it stands.
    pub grade: Grade,
    /// What was found.
    pub found: String,
    /// Which tenant it is about, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// What to do; nothing when it is as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    fn new(id: &'static str, about: About, grade: Grade, found: impl Into<String>) -> Self {
        Self {
            id,
            about,
            grade,
            found: found.into(),
            tenant: None,
            advice: None,
        }
    }

    fn advise(mut self, advice: &str) -> Self {
        self.advice = Some(advice.to_owned());
        self
    }
}

#[derive(Debug, Serialize)]
struct Document<'f> {
    grade: Grade,
    findings: &'f [Finding],
}

/// Looks and prints. 0: all is well; 1: something is open or cannot be told; 2: the agent cannot work here.
pub async fn doctor(options: DoctorOptions) -> ExitCode {
    let findings = examine(&options).await;
    let worst = findings.iter().map(|finding| finding.grade).max();
    let worst = worst.unwrap_or(Grade::Unknown);
    let printed = if options.json {
        print_json(worst, &findings)
    } else {
        print_list(&findings)
    };
    match printed {
        // A reader that stops reading is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            ExitCode::from(Grade::Fail.exit())
        }
        _ => ExitCode::from(worst.exit()),
    }
}

async fn examine(options: &DoctorOptions) -> Vec<Finding> {
    let root = Root::new(&options.root);
    let mut findings = Vec::new();
    let mut config = None;
    if let Some(dir) = &options.dir {
        match load(dir, options) {
            Ok(loaded) => config = Some(loaded),
            Err(error) => findings.push(
                Finding::new(
                    "config",
                    About::Precondition,
                    Grade::Fail,
                    error.to_string(),
                )
                .advise("mend agent.toml, or the files that it names"),
            ),
        }
    }
    findings.extend(driver::examine(&root, config.as_ref(), options).await);
    findings.extend(node::examine(&root, config.as_ref()));
    findings.extend(rules::examine(config.as_ref()).await);
    findings.extend(server::examine(config.as_ref()).await);
    let (enforcer, denies) = enforcer::examine(config.as_ref()).await;
    findings.extend(enforcer);
    findings.extend(denied::examine(config.as_ref()).await);
    let accounts = Accounts::read(&root);
    let ways = Ways::read(&root, &accounts);
    findings.extend(bypass::examine(&root, &accounts, &ways, denies));
    if let Some(config) = &config {
        findings.extend(tenants::examine(&config.attribution, &accounts, &ways));
    }
    findings
}

fn load(dir: &std::path::Path, options: &DoctorOptions) -> Result<Config, ConfigError> {
    let overrides = |standalone| Overrides {
        nvml_library: options.nvml_library.clone(),
        standalone,
        ..Overrides::default()
    };
    match Config::load(dir, overrides(false)) {
        Err(ConfigError::NoServer(_)) => Config::load(dir, overrides(true)),
        config => config,
    }
}

fn print_json(grade: Grade, findings: &[Finding]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &Document { grade, findings })?;
    writeln!(out)
}

fn print_list(findings: &[Finding]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (about, title) in [
        (About::Precondition, "What the agent needs"),
        (About::Bypass, "Ways round the limits on this node"),
        (About::Tenant, "Ways round the limits, by tenant"),
    ] {
        let mut findings = findings
            .iter()
            .filter(|finding| finding.about == about)
            .peekable();
        if findings.peek().is_some() {
            writeln!(out, "{title}")?;
        }
        for finding in findings {
            let Finding {
                id, found, tenant, ..
            } = finding;
            let id = tenant.as_deref().unwrap_or(id);
            writeln!(out, "  {:8}{id:18}{found}", finding.grade.text())?;
            if let Some(advice) = &finding.advice {
                writeln!(out, "{:28}-> {advice}", "")?;
            }
        }
    }
    writeln!(
        out,
        "Whoever is root, or has CAP_SYS_ADMIN, can pass any limit, and what is open already stays open."
    )
}
