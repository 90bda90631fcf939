//! The systemd units, and what both programs tell the service manager.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use gpuquota_tests::node::Node;
use gpuquota_tests::program::{Running, output, succeed};
use gpuquota_tests::repository;
use gpuquota_tests::server::Server;
use gpuquota_tests::skip::{root, skipped};
use gpuquota_tests::wait::{SOON, until};

const UNITS: [&str; 3] = ["gpuquota-agent", "gpuquota-enforcer", "gpuquota-server"];

fn copy_all(from: &Path, to: &Path, endings: &[&str]) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let path = entry.path();
        let wanted = path
            .extension()
            .is_some_and(|end| endings.iter().any(|known| end == *known));
        if wanted && path.is_file() {
            std::fs::copy(&path, to.join(entry.file_name())).unwrap();
        }
    }
}

// A system as the packages leave it, as far as systemd looks at it.
fn installed(root: &Path) {
    let system = ["/usr/lib/systemd/system", "/lib/systemd/system"].map(Path::new);
    let system = system
        .into_iter()
        .find(|path| path.is_dir())
        .expect("systemd is not installed");
    copy_all(
        system,
        &root.join("usr/lib/systemd/system"),
        &["target", "slice"],
    );
    copy_all(
        &repository::root().join("systemd"),
        &root.join("usr/lib/systemd/system"),
        &["service", "socket"],
    );
    std::fs::create_dir_all(root.join("usr/bin")).unwrap();
    for unit in UNITS {
        let stub = root.join("usr/bin").join(unit);
        std::fs::write(&stub, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&stub, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn the_units_are_what_systemd_understands() {
    let home = tempfile::tempdir().unwrap();
    installed(home.path());
    for unit in UNITS {
        let mut verify = Command::new("systemd-analyze");
        verify
            .arg("verify")
            .arg("--root")
            .arg(home.path())
            .arg(format!("{unit}.service"));
        let output = output(&mut verify);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        // Before systemd 254 it is ignored, and the agent makes the group itself.
        let known = |line: &&str| !line.contains("Unknown key 'DelegateSubgroup'");
        let said: String = said.lines().filter(known).collect();
        // What it does not understand is only a warning to it.
        assert!(output.status.success() && said.is_empty(), "{unit}: {said}");
        let text =
            std::fs::read_to_string(repository::root().join(format!("systemd/{unit}.service")))
                .unwrap();
        for line in [
            "Type=notify",
            "Restart=always",
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
        ] {
            assert!(
                text.lines().any(|known| known == line),
                "{unit} has no {line}"
            );
        }
        // The privileged half waits for orders; nothing in it goes round.
        let watched = text.lines().any(|known| known == "WatchdogSec=30");
        assert_eq!(watched, unit != "gpuquota-enforcer");
        let security = format!(
            "--threshold={}",
            if unit == "gpuquota-server" { 25 } else { 40 }
        );
        let mut verify = Command::new("systemd-analyze");
        verify.args(["security", "--offline=true", "--no-pager", &security]);
        let path = home
            .path()
            .join(format!("usr/lib/systemd/system/{unit}.service"));
        succeed(verify.arg(path));
    }
}

#[test]
fn users_and_folders_are_made_as_the_units_need_them() {
    if !root() {
        return skipped(
            "sysusers and tmpfiles",
            "they make users and folders, which needs root",
        );
    }
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join("etc")).unwrap();
    std::fs::create_dir_all(home.path().join("var/lib")).unwrap();
    for (unit, user, folder) in [
        ("gpuquota-agent", "gpuquota-agent", "var/lib/gpuquota-agent"),
        ("gpuquota-server", "gpuquota", "var/lib/gpuquota"),
    ] {
        let file = |kind: &str| repository::root().join(format!("systemd/{unit}.{kind}.conf"));
        for (program, kind) in [
            ("systemd-sysusers", "sysusers"),
            ("systemd-tmpfiles", "tmpfiles"),
        ] {
            let mut command = Command::new(program);
            command.arg("--root").arg(home.path());
            if kind == "tmpfiles" {
                command.arg("--create");
            }
            succeed(command.arg(file(kind)));
        }
        let users = std::fs::read_to_string(home.path().join("etc/passwd")).unwrap();
        assert!(
            users
                .lines()
                .any(|line| line.starts_with(&format!("{user}:"))),
            "{users}"
        );
        let mode = std::fs::metadata(home.path().join(folder))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o700, "{folder}");
        let text =
            std::fs::read_to_string(repository::root().join(format!("systemd/{unit}.service")))
                .unwrap();
        assert!(
            text.contains(&format!("User={user}\n"))
                && text.contains(&format!("--dir /{folder}\n")),
            "{text}"
        );
    }
}

/// The service manager's end of `sd_notify`.
struct ServiceManager {
    socket: UnixDatagram,
    path: PathBuf,
    heard: Vec<String>,
}

impl ServiceManager {
    fn new(folder: &Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self {
            socket,
            path,
            heard: Vec::new(),
        }
    }

    // With a watchdog that wants a sign every 600 ms.
    fn starts(&self, name: &str, command: &mut Command) -> Running {
        command
            .env("NOTIFY_SOCKET", &self.path)
            .env("WATCHDOG_USEC", "600000");
        Running::start(name, command.env_remove("WATCHDOG_PID"))
    }

    async fn hears(&mut self, what: &str, times: usize) {
        until(&format!("{what} is told {times} times"), SOON, async || {
            let mut buffer = [0; 4096];
            while let Ok(length) = self.socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                self.heard.extend(text.lines().map(ToOwned::to_owned));
            }
            let told = self
                .heard
                .iter()
                .filter(|line| line.starts_with(what))
                .count();
            if told >= times {
                Ok(())
            } else {
                Err(format!("{:?}", self.heard))
            }
        })
        .await;
    }

    fn told_before_ready(&self, what: &str) -> bool {
        let place = |what: &str| self.heard.iter().position(|line| line == what);
        place(what) < place("READY=1")
    }
}

#[tokio::test]
async fn the_server_says_when_it_is_ready_alive_and_stopping() {
    let mut server = Server::start().await;
    server.stop().await;
    let mut manager = ServiceManager::new(server.home());
    let mut process = manager.starts("server", &mut server.command());
    manager.hears("READY=1", 1).await;
    // Ready means that it answers at once.
    assert_eq!(server.admin().list("").await.status, 200);
    manager.hears("WATCHDOG=1", 4).await;
    assert!(process.terminate().await.success());
    manager.hears("STOPPING=1", 1).await;
    assert!(!manager.told_before_ready("STOPPING=1"));
}

#[tokio::test]
async fn the_agent_says_when_it_is_ready_alive_how_it_is_and_stopping() {
    let mut server = Server::start().await;
    let node = Node::new(&server, "n1", "h100x4");
    let mut manager = ServiceManager::new(server.home());
    let mut process = manager.starts("agent", &mut node.command());
    manager.hears("READY=1", 1).await;
    manager.hears("WATCHDOG=1", 4).await;
    manager
        .hears("STATUS=nvml ok, 4 devices, server connected", 1)
        .await;
    server.kill9();
    manager
        .hears("STATUS=nvml ok, 4 devices, server away", 1)
        .await;
    assert!(process.terminate().await.success());
    manager.hears("STOPPING=1", 1).await;
    assert!(!manager.told_before_ready("STOPPING=1"));
}

#[tokio::test]
async fn a_server_that_cannot_start_never_says_that_it_is_ready() {
    let mut server = Server::start().await;
    server.stop().await;
    std::fs::write(server.dir.join("token.key"), "short").unwrap();
    let mut manager = ServiceManager::new(server.home());
    let mut process = manager.starts("server", &mut server.command());
    assert!(!process.ended().await.success());
    manager.hears("", 0).await;
    assert!(manager.heard.is_empty(), "{:?}", manager.heard);
}
