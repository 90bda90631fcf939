//! A server of its own for each test: made by `init`, its configuration edited, then really started.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::program::{Running, free_address, program, succeed};
use crate::rest::Rest;
use crate::scrape::Scrape;

/// Heartbeats every second and silence after three: the shortest that the configuration takes.
pub const QUICK: &[(&str, &str)] = &[("silent_after_seconds = 10", "silent_after_seconds = 3")];

/// Where a server's ledger is.
#[derive(Clone, Debug)]
pub enum Place {
    /// A file in its directory.
    File,
    /// A PostgreSQL database, by URL.
    Database(String),
}

/// A server directory and the process that serves it.
#[derive(Debug)]
pub struct Server {
    home: TempDir,
    /// `--dir`.
    pub dir: PathBuf,
    /// The process; `None` while it is stopped.
    pub process: Option<Running>,
    /// REST listener.
    pub rest: SocketAddr,
    /// Agents' listener.
    pub agents: SocketAddr,
    /// Metrics listener.
    pub metrics: SocketAddr,
    /// Further environment of the process.
    pub environment: Vec<(String, String)>,
    token: String,
}

impl Server {
    /// With the default configuration.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With texts of the default configuration replaced.
    pub async fn with(edits: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("server");
        Self::in_dir(home, dir, edits).await
    }

    /// With its ledger at this place.
    pub async fn at(place: &Place, edits: &[(&str, &str)]) -> Self {
        match place {
            Place::File => Self::with(edits).await,
            Place::Database(url) => {
                let named = format!("path = \"ledger.db\"\ndatabase = \"{url}\"");
                let edits = [&[("path = \"ledger.db\"", named.as_str())], edits].concat();
                Self::with(&edits).await
            }
        }
    }

    /// With its ledger in a database, for agents of other hosts that know it by this name.
    pub async fn reached_as(name: &str, database: &str, edits: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("server");
        init(&dir, &["--host", name]);
        let named = format!("path = \"ledger.db\"\ndatabase = \"{database}\"");
        let edits = [&[("path = \"ledger.db\"", named.as_str())], edits].concat();
        let mut server = Self::stopped(home, dir, &edits);
        server.agents.set_ip(std::net::Ipv4Addr::UNSPECIFIED.into());
        server.serve().await;
        server
    }

    /// In a directory elsewhere, such as on a small disk.
    pub async fn in_dir(home: TempDir, dir: PathBuf, edits: &[(&str, &str)]) -> Self {
        init(&dir, &[]);
        let mut server = Self::stopped(home, dir, edits);
        server.serve().await;
        server
    }

    fn stopped(home: TempDir, dir: PathBuf, edits: &[(&str, &str)]) -> Self {
        edit(&dir.join("server.toml"), edits);
        let token = token(&dir, &["--role", "admin"]);
        Self {
            home,
            dir,
            process: None,
            rest: free_address(),
            agents: free_address(),
            metrics: free_address(),
            environment: Vec::new(),
            token,
        }
    }

    /// Starts the stopped server, on the ports it had before.
    pub async fn serve(&mut self) {
        assert!(self.process.is_none(), "the server runs already");
        let mut process = Running::start("server", &mut self.command());
        let line = process.line_with(" serving ").await;
        self.rest = address(&line, "rest.address=");
        self.agents = address(&line, "agents.address=");
        self.metrics = address(&line, "metrics.address=");
        self.process = Some(process);
    }

    /// The command that serves this directory.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(program("gpuquota-server"));
        command.arg("serve").arg("--dir").arg(&self.dir);
        command.arg("--rest").arg(self.rest.to_string());
        command.arg("--agents").arg(self.agents.to_string());
        command.arg("--metrics").arg(self.metrics.to_string());
        command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
        command.envs(self.environment.iter().cloned());
        command
    }

    /// The running process.
    pub fn process(&mut self) -> &mut Running {
        self.process.as_mut().expect("the server runs")
    }

    /// SIGKILL.
    pub fn kill9(&mut self) {
        self.process().kill9();
        self.process = None;
    }

    /// SIGTERM; the server must end well.
    pub async fn stop(&mut self) {
        let status = self.process().terminate().await;
        assert!(status.success(), "the server ended with {status}");
        self.process = None;
    }

    /// A caller with the role admin.
    #[must_use]
    pub fn admin(&self) -> Rest {
        Rest::new(self.rest, Some(&self.token))
    }

    /// The admin's token.
    #[must_use]
    pub fn admin_token(&self) -> &str {
        &self.token
    }

    /// A token made by `gpuquota-server token`.
    #[must_use]
    pub fn token(&self, args: &[&str]) -> String {
        token(&self.dir, args)
    }

    /// A caller with such a token.
    #[must_use]
    pub fn caller(&self, args: &[&str]) -> Rest {
        Rest::new(self.rest, Some(&self.token(args)))
    }

    /// A scrape of the server.
    pub async fn scrape(&self) -> Scrape {
        Scrape::of(self.metrics).await.unwrap()
    }

    /// Last row of the journal, as the metrics tell.
    pub async fn seq(&self) -> u64 {
        let seq = self
            .scrape()
            .await
            .value("gpuquota_journal_seq", &[])
            .unwrap();
        format!("{seq}").parse().unwrap()
    }

    /// What must stay the same when nothing may change: the journal's head and all quotas.
    pub async fn fingerprint(&self) -> (String, String) {
        let scrape = self.scrape().await;
        let head = ["gpuquota_journal_seq", "gpuquota_journal_head_prefix"]
            .map(|name| scrape.value(name, &[]).unwrap().to_string());
        let quotas = self.admin().list("?page_size=100").await;
        assert_eq!(quotas.status, 200);
        (head.join("/"), quotas.text)
    }

    /// `issue-agent`: certificates and configuration of a node in a new folder.
    #[must_use]
    pub fn issue_agent(&self, node: &str) -> PathBuf {
        let out = self.home.path().join(format!("agent-{node}"));
        let mut command = Command::new(program("gpuquota-server"));
        command
            .args(["issue-agent", "--node", node, "--dir"])
            .arg(&self.dir);
        succeed(command.arg("--out").arg(&out));
        let local = format!("https://localhost:{}", self.agents.port());
        edit(
            &out.join("agent.toml"),
            &[("https://localhost:8443", &local)],
        );
        out
    }

    /// A folder for files of the test.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The journal's file.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.dir.join("ledger.db")
    }

    /// Starts a further server on this directory that must not come up; what it says.
    pub async fn refused_start(&self) -> String {
        let mut command = self.command();
        let mut process = Running::start("refused server", command.env("RUST_LOG", "warn"));
        let status = process.ended().await;
        let text = process.log().join("\n");
        assert!(!status.success(), "it came up: {text}");
        text
    }
}

fn init(dir: &Path, more: &[&str]) {
    let mut command = Command::new(program("gpuquota-server"));
    succeed(command.arg("init").arg("--dir").arg(dir).args(more));
}

fn token(dir: &Path, args: &[&str]) -> String {
    let mut command = Command::new(program("gpuquota-server"));
    let text = succeed(command.arg("token").arg("--dir").arg(dir).args(args));
    let token = text.strip_suffix('\n').unwrap();
    assert!(
        token.bytes().all(|b| b.is_ascii_graphic()),
        "not only a token: {text:?}"
    );
    token.to_owned()
}

/// Replaces texts of a file; each must be there.
pub fn edit(path: &Path, edits: &[(&str, &str)]) {
    let mut text = std::fs::read_to_string(path).unwrap();
    for (from, to) in edits {
        assert!(
            text.contains(from),
            "{from:?} is not in {}: {text}",
            path.display()
        );
        text = text.replace(from, to);
    }
    std::fs::write(path, text).unwrap();
}

fn address(line: &str, key: &str) -> SocketAddr {
    let (_, rest) = line
        .split_once(key)
        .unwrap_or_else(|| panic!("no {key} in {line}"));
    let text = rest.split_ascii_whitespace().next().unwrap();
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}
