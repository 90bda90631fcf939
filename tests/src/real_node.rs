//! A node with real systemd: PID 1 in a container, cgroup version 2 alone, a network of its own that the host reaches. Device
//! rules, delegation and `cgroup.kill` act as on a machine. `real_node/boot.sh` says how.

mod base;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::program::{descendants, output, succeed};
use crate::repository;
use crate::skip::skipped;
use crate::wait::until;

/// It boots in two seconds, on a machine that does much else in more.
const BOOTS: Duration = Duration::from_secs(90);

/// A direction of the link between node and host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What the node sends.
    FromNode,
    /// What the node is sent.
    ToNode,
}

/// A running node; it ends with this value.
#[derive(Debug)]
pub struct RealNode {
    name: String,
    number: u8,
    first: u32,
    process: Child,
    console: Arc<Mutex<Vec<u8>>>,
}

impl RealNode {
    /// Boots one with this host name. Where the machine cannot, it says aloud that `test` was left out.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn boot(test: &str, name: &str) -> Option<Self> {
        let (nodes, base) = match base::base() {
            Ok(found) => found,
            Err(why) => {
                skipped(test, &why);
                return None;
            }
        };
        let mut boot = Command::new("sh");
        boot.arg(repository::root().join("tests/src/real_node/boot.sh"));
        boot.arg(name).arg(base).arg(base::own_folder(nodes));
        boot.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = boot.spawn().unwrap();
        let mut stderr = process.stderr.take().unwrap();
        let console = Arc::<Mutex<Vec<u8>>>::default();
        let kept = console.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut piece) {
                kept.lock().unwrap().extend(&piece[..length]);
            }
        });
        let mut said = String::new();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        stdout.read_line(&mut said).unwrap();
        let mut node = Self {
            name: name.to_owned(),
            number: 0,
            first: 0,
            process,
            console,
        };
        let number = said.trim().strip_prefix("number ");
        let number = number.and_then(|number| number.parse().ok());
        node.number = number.unwrap_or_else(|| panic!("{name} has no network: {}", node.console()));
        node.come_up().await;
        Some(node)
    }

    async fn come_up(&mut self) {
        let what = format!("{} boots", self.name);
        until(&what, BOOTS, async || {
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("{what}: ended with {status}: {}", self.console());
            }
            let below = descendants(self.process.id());
            let first = below.into_iter().find(|pid| is_first_systemd(*pid));
            self.first = first.ok_or_else(|| self.console())?;
            let state = self.run("systemctl is-system-running");
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            // What failed to start has failed for good: that is a node as well, and the tests' own to judge.
            if state == "running" || state == "degraded" {
                Ok(())
            } else {
                Err(format!("{state}: {}", self.console()))
            }
        })
        .await;
    }

    /// Runs a shell command as a service of the node, as root, to its end.
    #[must_use]
    pub fn run(&self, command: &str) -> Output {
        let run = ["systemd-run", "--pipe", "--wait", "--quiet", "--collect"];
        let mut enter = self.enter();
        enter.args(run).args(["sh", "-c", command]);
        output(&mut enter)
    }

    /// The same, for what must succeed; its standard output.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn succeed(&self, command: &str) -> String {
        let output = self.run(command);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (said, wrong) = (text(&output.stdout), text(&output.stderr));
        let status = output.status;
        assert!(
            status.success(),
            "{}: {command}: {status}\n{said}{wrong}",
            self.name
        );
        said
    }

    /// Whether a command succeeds.
    #[must_use]
    pub fn holds(&self, command: &str) -> bool {
        self.run(command).status.success()
    }

    /// Waits until a command succeeds; its standard output.
    pub async fn becomes(&self, command: &str, within: Duration) -> String {
        let what = format!("{}: {command}", self.name);
        until(&what, within, async || {
            let output = self.run(command);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let wrong = String::from_utf8_lossy(&output.stderr);
            let succeeded = output.status.success();
            succeeded.then(|| said.clone()).ok_or(said + &wrong)
        })
        .await
    }

    /// Copies a file of the host to an absolute path on the node, mode 0755.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn copy_in(&self, from: &Path, to: &str) {
        self.put(from, to, "755");
    }

    /// Writes a file on the node, mode 0644.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, to: &str, text: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        self.put(file.path(), to, "644");
    }

    fn put(&self, from: &Path, to: &str, mode: &str) {
        let mut install = self.enter();
        install.args(["install", "-D", "-m", mode, "/dev/stdin", to]);
        install.stdin(fs::File::open(from).unwrap());
        let installed = install.status().unwrap();
        assert!(installed.success(), "{}: {to}: {installed}", self.name);
    }

    /// Where the host and nothing else reaches it.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.number, 2)
    }

    /// Where it reaches the host.
    #[must_use]
    pub fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.number, 1)
    }

    /// From now on whatever goes this way between node and host is lost without a word; the other way stays.
    ///
    /// # Panics
    /// When the link cannot be told so.
    pub fn cut(&self, way: Way) {
        // Frames for an address that nobody has.
        let nobody = "lladdr 02:00:00:00:00:01 nud permanent";
        self.neighbour("replace", way, nobody);
    }

    /// It arrives again.
    ///
    /// # Panics
    /// When the link cannot be told so.
    pub fn mend(&self, way: Way) {
        self.neighbour("delete", way, "");
    }

    fn neighbour(&self, verb: &str, way: Way, how: &str) {
        let number = self.number;
        let (of, to, link) = match way {
            Way::FromNode => (
                format!("-n gpuquota-{number}"),
                self.host(),
                "host0".to_owned(),
            ),
            Way::ToNode => (String::new(), self.address(), format!("gq{number}")),
        };
        let line = format!("{of} neighbour {verb} {to} dev {link} {how}");
        succeed(Command::new("ip").args(line.split_whitespace()));
    }

    /// Its root file system, as the host sees it.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.first))
    }

    fn enter(&self) -> Command {
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &self.first.to_string(), "--all", "--"]);
        // The node's own paths, not those of the tests.
        enter.env_clear().env("PATH", "/usr/sbin:/usr/bin");
        enter.stdin(Stdio::null());
        enter
    }

    fn console(&self) -> String {
        String::from_utf8_lossy(&self.console.lock().unwrap()).into_owned()
    }
}

impl Drop for RealNode {
    fn drop(&mut self) {
        if std::thread::panicking() && self.first != 0 {
            let log = self.run("journalctl --no-pager | grep -v run-p | tail -n 60");
            let log = String::from_utf8_lossy(&log.stdout).into_owned();
            eprintln!("--- {} ---\n{}\n{log}", self.name, self.console());
        }
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

// The first process of the innermost pid namespace, once systemd has taken the place of what started it.
fn is_first_systemd(pid: u32) -> bool {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let status = read("status");
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let innermost = ids.and_then(|ids| ids.split_whitespace().last()) == Some("1");
    innermost && read("comm").trim() == "systemd"
}
