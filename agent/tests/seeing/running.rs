//! The program as a service runs it, without a server, and what its metrics say.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use gpuquota_fake_nvml::SCENARIO_VARIABLE;

use crate::node::{Node, PATIENCE};

const REGISTERED: &str = "[attribution]\nregistered = true\n";

/// The running program; it ends with this value.
pub(crate) struct Running {
    pub(crate) child: Child,
    metrics: SocketAddr,
}

impl Node {
    /// The agent's directory; made at the first call.
    pub(crate) fn agent_dir(&self) -> PathBuf {
        let dir = self.path().join("agent");
        if fs::create_dir(&dir).is_ok() {
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        }
        dir
    }

    /// The program with its environment.
    pub(crate) fn agent(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gpuquota-agent"));
        command
            .env(SCENARIO_VARIABLE, self.scenario())
            .env("RUST_LOG", "info")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LD_LIBRARY_PATH");
        command
    }

    /// Starts it with this configuration, ten readings a second, and waits until it says where its metrics are.
    pub(crate) fn run_agent(&self, config: &str) -> Running {
        self.run_agent_with(config, &[])
    }

    /// The same with more arguments; `--interval` among them is taken as it is.
    pub(crate) fn run_agent_with(&self, config: &str, more: &[&str]) -> Running {
        self.start_agent(self.agent(), config, more)
    }

    /// The same by another command, which becomes the program.
    pub(crate) fn start_agent(&self, mut by: Command, config: &str, more: &[&str]) -> Running {
        let dir = self.agent_dir();
        let text = format!("call_deadline = \"400ms\"\n{config}\n{REGISTERED}");
        fs::write(dir.join("agent.toml"), text).unwrap();
        let often: &[&str] = if more.contains(&"--interval") {
            &[]
        } else {
            &["--interval", "100ms"]
        };
        let mut child = by
            .args(["run", "--standalone"])
            .args(often)
            .args(["--metrics", "127.0.0.1:0", "--dir"])
            .arg(&dir)
            .arg("--nvml-library")
            .arg(self.library())
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (said, hear) = mpsc::channel();
        // Reads to the end, so that the program never waits for somebody to read.
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let address = line
                    .split_once("metrics.address=")
                    .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
                if let Some(address) = address {
                    let _ = said.send(address);
                }
            }
        });
        let metrics = hear.recv_timeout(PATIENCE).unwrap();
        Running { child, metrics }
    }

    /// Says whose a process is.
    pub(crate) fn register(&self, pid: u32, tenant: &str) {
        let config = self.agent_dir().join("agent.toml");
        if !config.exists() {
            fs::write(config, REGISTERED).unwrap();
        }
        let status = self
            .agent()
            .args([
                "register",
                "--tenant",
                tenant,
                "--pid",
                &pid.to_string(),
                "--dir",
            ])
            .arg(self.agent_dir())
            .status();
        assert!(status.unwrap().success());
    }
}

impl Running {
    /// What `/metrics` says now.
    pub(crate) fn scrape(&self) -> String {
        self.ask("/metrics", "text/plain")
    }

    /// The answer to a request for this path, in this format.
    pub(crate) fn ask(&self, path: &str, accept: &str) -> String {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// Scrapes until all these lines are there.
    pub(crate) fn wait_for(&self, rows: &[&str]) -> String {
        let mut text = String::new();
        for _ in 0..PATIENCE.as_millis() / 20 {
            text = self.scrape();
            if rows.iter().all(|row| text.lines().any(|line| line == *row)) {
                return text;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("not all of {rows:?} in {text}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
