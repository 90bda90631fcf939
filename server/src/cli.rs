//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use gpuquota_core::ban::Serial;
use gpuquota_core::device::GpuUuid;
use gpuquota_core::id::{Incarnation, NodeName, ProjectId, Seq, TenantName};

use crate::auth::Role;
use crate::journal::archive::Before;

mod ca;

pub use ca::{Ca, CaStep};

/// The central ledger of GPU quotas, and of what the hardware says.
#[derive(Debug, Parser)]
#[command(name = "gpuquota-server", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a server directory: authority, certificates, token key, configuration, ledger
    Init(Init),
    /// Serve REST, agents and metrics until SIGTERM
    Serve(Serve),
    /// Print a token and nothing else
    Token(Token),
    /// Write an agent's certificate, key and configuration
    IssueAgent(IssueAgent),
    /// Print a token by which one node may join once, and on standard error how; also beside a running server
    JoinToken(JoinToken),
    /// Refuse a node or a certificate on every server, also one that is connected; also beside a running server
    Ban(Ban),
    /// Replace the authority of the nodes' certificates, in steps that can be taken back; also beside a running server
    #[command(subcommand)]
    Ca(Ca),
    /// Load the state that the examples of the five quota documents speak of
    LoadExamples(LoadExamples),
    /// Forget a node that is no more, with its devices; also beside a running server
    RetireNode(RetireNode),
    /// Take a GPU away from its node, so that another node may report it; also beside a running server
    ForgetGpu(ForgetGpu),
    /// Look after the journal
    #[command(subcommand)]
    Journal(Journal),
    /// Write a backup of journal and configuration to a new folder and check it; also beside a running server
    Backup(Backup),
    /// Put a backup in place of the ledger; agents may go on running, the server must be stopped
    Restore(Restore),
    /// Take the ledger to another database
    #[command(subcommand)]
    Migrate(Migrate),
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Directory to fill
    #[arg(long)]
    pub dir: PathBuf,
    /// Name or address under which agents reach the server; may be repeated, the first is the one agents are told
    #[arg(long = "host")]
    pub hosts: Vec<String>,
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// The server directory
    #[arg(long)]
    pub dir: PathBuf,
    /// Address for REST, instead of rest.listen
    #[arg(long)]
    pub rest: Option<SocketAddr>,
    /// Address for agents, instead of agents.listen
    #[arg(long)]
    pub agents: Option<SocketAddr>,
    /// Address for metrics, instead of metrics.listen
    #[arg(long)]
    pub metrics: Option<SocketAddr>,
}

/// Arguments of `token`.
#[derive(Debug, Args)]
pub struct Token {
    /// The server directory
    #[arg(long)]
    pub dir: PathBuf,
    /// admin, tenant-admin or viewer
    #[arg(long)]
    pub role: Role,
    /// Tenant that the token is for; may be repeated
    #[arg(long = "tenant", value_parser = |text: &str| TenantName::new(text))]
    pub tenants: Vec<TenantName>,
    /// Project that the token is for; may be repeated
    #[arg(long = "project", value_parser = |text: &str| ProjectId::new(text))]
    pub projects: Vec<ProjectId>,
    /// Name under which the journal keeps what the bearer does
    #[arg(long, default_value = "cli", value_parser = subject)]
    pub subject: String,
    /// User that the instance service shows
    #[arg(long, value_name = "NAME", value_parser = subject)]
    pub user: Option<String>,
    /// Container that the instance service shows
    #[arg(long, value_name = "ID", value_parser = subject)]
    pub container: Option<String>,
    /// How long it counts: a number with s, m, h or d
    #[arg(long, default_value = "24h", value_parser = seconds)]
    pub ttl: i64,
}

/// Arguments of `issue-agent`.
#[derive(Debug, Args)]
pub struct IssueAgent {
    /// The server directory
    #[arg(long)]
    pub dir: PathBuf,
    /// Name of the node
    #[arg(long, value_parser = |text: &str| NodeName::new(text))]
    pub node: NodeName,
    /// Directory for the agent
    #[arg(long)]
    pub out: PathBuf,
    /// Days until the certificate ends
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=825))]
    pub days: u32,
}

/// Arguments of `join-token`.
#[derive(Debug, Args)]
pub struct JoinToken {
    /// The server directory
    #[arg(long)]
    pub dir: PathBuf,
    /// Name of the node that the bearer becomes
    #[arg(long, value_parser = |text: &str| NodeName::new(text))]
    pub node: NodeName,
}

/// Arguments of `ban`.
#[derive(Debug, Args)]
pub struct Ban {
    /// The server directory
    #[arg(long)]
    pub dir: PathBuf,
    /// Name of the node, whatever its certificate
    #[arg(long, value_parser = |text: &str| NodeName::new(text), required_unless_present = "serial", conflicts_with = "serial")]
    pub node: Option<NodeName>,
    /// Serial number of one certificate, hexadecimal, as the server's log and the audit show it
    #[arg(long, value_parser = |text: &str| Serial::new(text))]
    pub serial: Option<Serial>,
    /// Refuse it no more
    #[arg(long)]
    pub lift: bool,
    /// Why, for the audit
    #[arg(long)]
    pub reason: Option<String>,
}

/// Arguments of `load-examples`.
#[derive(Debug, Args)]
pub struct LoadExamples {
    /// The server directory; a server may run on it or not
    #[arg(long, required_unless_present = "url", conflicts_with = "url")]
    pub dir: Option<PathBuf>,
    /// REST address of a running server, such as http://127.0.0.1:8080
    #[arg(long, requires = "token")]
    pub url: Option<String>,
    /// Token with the role admin; `-` reads it from standard input
    #[arg(long, requires = "url")]
    pub token: Option<String>,
    /// Authority of the server's certificate, PEM; the system's when left out
    #[arg(long, requires = "url")]
    pub ca: Option<PathBuf>,
}

/// Arguments of `retire-node`.
#[derive(Debug, Args)]
pub struct RetireNode {
    /// The server directory
    #[arg(long)]
    pub dir: PathBuf,
    /// Name of the node
    #[arg(long, value_parser = |text: &str| NodeName::new(text))]
    pub node: NodeName,
    /// Also while it is heard, and while its devices are leased
    #[arg(long)]
    pub force: bool,
    /// Why, for the audit
    #[arg(long)]
    pub reason: Option<String>,
}

/// Arguments of `forget-gpu`.
#[derive(Debug, Args)]
pub struct ForgetGpu {
    /// The server directory
    #[arg(long)]
    pub dir: PathBuf,
    /// UUID of the GPU
    #[arg(long, value_parser = |text: &str| GpuUuid::new(text))]
    pub gpu: GpuUuid,
    /// Also while its node is heard, and while it is leased
    #[arg(long)]
    pub force: bool,
    /// Why, for the audit
    #[arg(long)]
    pub reason: Option<String>,
}

/// What to do with the journal. Ends with 3 when a check finds something damaged or different, with 1 when the command
/// could not do its work.
#[derive(Debug, Subcommand)]
pub enum Journal {
    /// Check every hash, fold every row and check the invariants; also beside a running server
    Verify {
        /// The server directory
        #[arg(long, required_unless_present = "file")]
        dir: Option<PathBuf>,
        /// Exports and archives, oldest first: each is checked, that it follows the one before, and that the journal
        /// goes on from the last
        #[arg(long, num_args = 1..)]
        file: Vec<PathBuf>,
    },
    /// Write rows as JSON lines; also beside a running server, as far as the journal goes at the start
    Export {
        /// The server directory
        #[arg(long)]
        dir: PathBuf,
        /// First row; the oldest that the journal has when left out
        #[arg(long, value_name = "SEQ", value_parser = row)]
        from: Option<Seq>,
        /// Last row; the newest when left out
        #[arg(long, value_name = "SEQ", value_parser = row)]
        to: Option<Seq>,
        /// File to write, which gets its name when it is complete; `-` is standard output
        #[arg(long, default_value = "-")]
        out: PathBuf,
    },
    /// Fold all rows anew and replace snapshots that say something else; the server must be stopped
    Rebuild {
        /// The server directory
        #[arg(long)]
        dir: PathBuf,
        /// Only compare, change nothing, and name what differs; also beside a running server
        #[arg(long)]
        check: bool,
        /// Why, for the audit
        #[arg(long)]
        reason: Option<String>,
    },
    /// Move old rows into a file, leaving a base that stands for them; the server must be stopped
    Archive {
        /// The server directory
        #[arg(long)]
        dir: PathBuf,
        /// Rows before this date (2026-01-31), time (2026-01-31T12:00:00Z) or row number
        #[arg(long, value_name = "DATE|SEQ")]
        before: Before,
        /// File to write; keep it
        #[arg(long)]
        out: PathBuf,
        /// Why, for the audit
        #[arg(long)]
        reason: Option<String>,
    },
    /// Give out numbers that were never given out, after a database was put back by other means than `restore`; the
    /// servers must be stopped
    NewIncarnation {
        /// The server directory
        #[arg(long)]
        dir: PathBuf,
        /// Lowest incarnation to begin; one more than the last when left out
        #[arg(long, default_value = "0", value_parser = incarnation)]
        incarnation: Incarnation,
        /// Why, for the audit
        #[arg(long)]
        reason: Option<String>,
    },
}

/// Arguments of `backup`.
#[derive(Debug, Args)]
pub struct Backup {
    /// The server directory
    #[arg(long)]
    pub dir: PathBuf,
    /// Folder to make
    #[arg(long)]
    pub out: PathBuf,
    /// Private keys and secrets too; whoever has that backup can be the server
    #[arg(long)]
    pub with_secrets: bool,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// The server directory; a new one gets the configuration of the backup
    #[arg(long)]
    pub dir: PathBuf,
    /// Folder that `backup` wrote
    #[arg(long)]
    pub from: PathBuf,
    /// Lowest incarnation to begin, when the ledger that was restored last is lost: one more than its own
    #[arg(long, default_value = "0", value_parser = incarnation)]
    pub incarnation: Incarnation,
    /// Why, for the audit
    #[arg(long)]
    pub reason: Option<String>,
}

fn row(text: &str) -> Result<Seq, &'static str> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.map(Seq).ok_or("a row number, 1 or higher")
}

fn incarnation(text: &str) -> Result<Incarnation, &'static str> {
    let number = text.parse().map(Incarnation).ok();
    let number = number.filter(|number| *number <= Incarnation::LARGEST);
    number.ok_or("a number of at most 1000000")
}

/// From where to where.
#[derive(Debug, Subcommand)]
pub enum Migrate {
    /// Copy the journal into an empty PostgreSQL database and check the copy; safe to repeat
    SqliteToPostgres {
        /// The server directory; no server may run on it
        #[arg(long)]
        dir: PathBuf,
        /// File that holds the database's URL
        #[arg(long)]
        url_file: PathBuf,
    },
}

fn subject(text: &str) -> Result<String, String> {
    if (1..=255).contains(&text.len()) && !text.contains(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("1 to 255 bytes without control characters".into())
    }
}

pub(crate) fn seconds(text: &str) -> Result<i64, String> {
    let rule = "a number above 0 with s, m, h or d, such as 24h";
    let unit = text.chars().last().ok_or(rule)?;
    let number = text.strip_suffix(unit).ok_or(rule)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(rule.into()),
    };
    let number: i64 = number.parse().map_err(|_| rule)?;
    // Ten years; a longer token is a password.
    let total = number
        .checked_mul(factor)
        .filter(|s| (1..=315_360_000).contains(s));
    total.ok_or_else(|| "from 1s to 3650d".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_has_a_unit() {
        assert_eq!(seconds("24h"), Ok(86_400));
        assert_eq!(seconds("90s"), Ok(90));
        for bad in ["", "24", "h", "-1h", "0s", "1y", "99999999d", "1.5h", "9ä"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
