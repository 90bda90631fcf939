//! A node of its own for each test: a scenario of the fake NVML, certificates, workloads, and the program.

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use gpuquota_fake_nvml::scenario::Process;
use gpuquota_fake_nvml::{SCENARIO_VARIABLE, file, link, preset};
use gpuquota_proto::tls::TlsFiles;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fake_server::Authority;

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Node {
    folder: tempfile::TempDir,
    pub(crate) server_files: TlsFiles,
    workloads: RefCell<Vec<Child>>,
}

/// The running program; it ends with this value.
pub(crate) struct Agent {
    child: RefCell<Child>,
    metrics: Option<SocketAddr>,
}

impl Node {
    pub(crate) fn new(preset: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        file::write(
            &path.join("node.toml"),
            &preset::build(preset, "telling").unwrap(),
        )
        .unwrap();
        link::link(&path.join("lib"), link::How::Copy).unwrap();
        let authority = Authority::new();
        let server_files = authority.server(path);
        fs::create_dir(path.join("agent")).unwrap();
        authority.agent(&path.join("agent"), "node1", 2);
        Self {
            folder,
            server_files,
            workloads: RefCell::default(),
        }
    }

    pub(crate) fn library(&self) -> PathBuf {
        self.folder.path().join("lib").join(link::SONAME)
    }

    fn agent(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gpuquota-agent"));
        command
            .env(SCENARIO_VARIABLE, self.folder.path().join("node.toml"))
            .env("RUST_LOG", "info")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LD_LIBRARY_PATH");
        command
    }

    /// Starts the program with these lines more in its configuration, and waits until it says where it listens.
    pub(crate) fn start(&self, server: SocketAddr, more: &str) -> Agent {
        let dir = self.folder.path().join("agent");
        let config = format!(
            "server = \"https://{server}\"\ninterval = \"100ms\"\n{more}\
             [metrics]\nlisten = \"127.0.0.1:0\"\n[attribution]\nregistered = true\n"
        );
        fs::write(dir.join("agent.toml"), config).unwrap();
        let mut child = self
            .agent()
            .arg("run")
            .arg("--dir")
            .arg(&dir)
            .arg("--nvml-library")
            .arg(self.library())
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
        Agent {
            child: RefCell::new(child),
            metrics: hear.recv_timeout(PATIENCE).ok(),
        }
    }

    /// A real process of a tenant on a GPU.
    pub(crate) fn run_on(&self, gpu: &str, tenant: &str) -> u32 {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = child.id();
        self.workloads.borrow_mut().push(child);
        let registered = self
            .agent()
            .args(["register", "--tenant", tenant, "--pid", &pid.to_string()])
            .arg("--dir")
            .arg(self.folder.path().join("agent"))
            .status();
        assert!(registered.unwrap().success());
        let scenario = self.folder.path().join("node.toml");
        file::edit(&scenario, |node| node.add_process(Process::new(gpu, pid))).unwrap();
        pid
    }

    /// Runs a command that asks the running agent; the server of the test goes on meanwhile. Whether it succeeded.
    pub(crate) async fn order(&self, words: &[&str]) -> bool {
        let mut command = tokio::process::Command::from(self.agent());
        command.args(words).arg("--dir");
        command.arg(self.folder.path().join("agent"));
        command.status().await.unwrap().success()
    }

    pub(crate) fn kill(&self, pid: u32) {
        for child in self.workloads.borrow_mut().iter_mut() {
            if child.id() == pid {
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
    }

    /// What `/metrics` says now.
    pub(crate) async fn scrape(&self, agent: &Agent) -> String {
        let mut stream = TcpStream::connect(agent.metrics.unwrap()).await.unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    pub(crate) async fn wait_for_scrape(&self, agent: &Agent, row: &str) {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let text = self.scrape(agent).await;
            if text.lines().any(|line| line == row) {
                return;
            }
            assert!(tokio::time::Instant::now() < end, "no {row} in {text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Agent {
    /// Sends SIGTERM and waits for the end.
    pub(crate) async fn terminate(&self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child.borrow()), Signal::TERM).unwrap();
        self.ended().await
    }

    pub(crate) fn kill(self) {
        drop(self);
    }

    /// Waits for the end; the server of the test goes on meanwhile.
    pub(crate) async fn ended(&self) -> ExitStatus {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.borrow_mut().try_wait().unwrap() {
                return status;
            }
            assert!(tokio::time::Instant::now() < end, "it does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for child in self.workloads.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
