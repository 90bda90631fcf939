//! A private PostgreSQL server: its own data directory and port, fsync on, gone with the process that asked for it.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The server refuses to run as root.
const USERS: [&str; 2] = ["postgres", "nobody"];
const DATA: &str = "data";
/// Looks at something that must happen, 50 ms apart.
const LOOKS: u32 = 600;
const LOOK: Duration = Duration::from_millis(50);

// Ends the server and takes its files away when standard input closes, however the test process ends.
const GUARD: &str = r#"
cat >/dev/null
id=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$id" ] && grep -q postgres "/proc/$id/comm" 2>/dev/null; then
    kill -QUIT "$id"
    while [ -e "/proc/$id" ]; do sleep 0.05; done
fi
rm -rf "$1"
"#;

/// A running server.
#[derive(Debug)]
pub struct Cluster {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    user: Option<(u32, u32)>,
    tls: bool,
    environment: Vec<(String, String)>,
    guard: Child,
    databases: AtomicU32,
}

impl Cluster {
    /// The one that all tests of this program share.
    ///
    /// # Errors
    /// When there is no PostgreSQL here, with the reason.
    pub fn shared() -> Result<&'static Self, String> {
        static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
        SHARED
            .get_or_init(Self::start)
            .as_ref()
            .map_err(Clone::clone)
    }

    /// One for a test that ends it.
    ///
    /// # Errors
    /// When there is no PostgreSQL here, with the reason.
    pub fn start() -> Result<Self, String> {
        Self::start_with(&[], |_| ())
    }

    /// One with this in its environment; `prepare` may put a disk of its own where its data will be. Its log of writes is
    /// elsewhere.
    ///
    /// # Errors
    /// When there is no PostgreSQL here, with the reason.
    pub fn start_with(
        environment: &[(String, String)],
        prepare: impl FnOnce(&Path),
    ) -> Result<Self, String> {
        let cluster = Self::made(environment, prepare)?;
        cluster.up();
        Ok(cluster)
    }

    /// One that offers TLS with this certificate and key, both PEM.
    ///
    /// # Errors
    /// When there is no PostgreSQL here, with the reason.
    pub fn start_with_tls(certificate: &str, key: &str) -> Result<Self, String> {
        let mut cluster = Self::made(&[], |_| ())?;
        for (name, pem) in [("server.crt", certificate), ("server.key", key)] {
            let path = cluster.data().join(name);
            let text = |e: std::io::Error| e.to_string();
            fs::write(&path, pem).map_err(text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(text)?;
            if let Some((user, group)) = cluster.user {
                chown(&path, Some(user), Some(group)).map_err(text)?;
            }
        }
        cluster.tls = true;
        cluster.up();
        Ok(cluster)
    }

    fn made(environment: &[(String, String)], prepare: impl FnOnce(&Path)) -> Result<Self, String> {
        let programs =
            programs().ok_or("there is no PostgreSQL; install the package postgresql")?;
        let folder = tempfile::Builder::new()
            .prefix("gpuquota-postgres-")
            .tempdir();
        let folder = folder.map_err(|e| e.to_string())?.keep();
        let user = rustix::process::geteuid()
            .is_root()
            .then(unprivileged)
            .flatten();
        let data = folder.join(DATA);
        fs::create_dir(&data).map_err(|e| e.to_string())?;
        prepare(&data);
        if let Some((user, group)) = user {
            for folder in [&folder, &data] {
                chown(folder, Some(user), Some(group)).map_err(|e| e.to_string())?;
            }
        }
        let guard = Command::new("sh")
            .args(["-c", GUARD, "sh"])
            .arg(&folder)
            .stdin(Stdio::piped())
            // A Ctrl-C in the terminal is for the tests; the guard has work to do then.
            .process_group(0)
            .spawn()
            .map_err(|e| e.to_string())?;
        let cluster = Self {
            programs,
            folder,
            port: free_port(),
            user,
            tls: false,
            environment: environment.to_vec(),
            guard,
            databases: AtomicU32::new(0),
        };
        let made = cluster
            .program("initdb")
            .args([
                "--no-sync",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--username=gpuquota",
            ])
            .arg("--pgdata")
            .arg(cluster.data())
            .arg("--waldir")
            .arg(cluster.folder.join("wal"))
            .output()
            .map_err(|e| e.to_string())?;
        if !made.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr)));
        }
        Ok(cluster)
    }

    /// Starts the server on its directory and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn up(&self) {
        let mut server = self.spawn();
        let up = (0..LOOKS).any(|_| {
            if self.psql("postgres", "SELECT 1").is_ok() {
                return true;
            }
            // Processes of one that was killed may still hold its memory.
            if server.try_wait().unwrap().is_some() {
                server = self.spawn();
            }
            std::thread::sleep(LOOK);
            false
        });
        let log = || fs::read_to_string(self.log()).unwrap_or_default();
        assert!(up, "PostgreSQL does not come up: {}", log());
        // Reaped whenever it ends.
        std::thread::spawn(move || server.wait());
    }

    fn spawn(&self) -> Child {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let mut server = self.program("postgres");
        server.envs(self.environment.iter().cloned());
        server
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(&self.folder);
        server.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        for setting in [
            "fsync=on",
            "max_connections=100",
            "shared_buffers=32MB",
            "restart_after_crash=on",
            // After a crash one call for the file system, not one for each of a thousand files.
            "recovery_init_sync_method=syncfs",
        ] {
            server.args(["-c", setting]);
        }
        if self.tls {
            server.args(["-c", "ssl=on", "-c", "log_connections=on"]);
        }
        server
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        server.process_group(0).spawn().unwrap()
    }

    /// Sends the server's first process a signal, such as `-KILL`, and waits until it is gone.
    ///
    /// # Panics
    /// When it stays.
    pub fn end(&self, signal: &str) {
        let id = self.server_id();
        let killed = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(killed.success());
        let gone = (0..LOOKS).any(|_| {
            std::thread::sleep(LOOK);
            !Path::new("/proc").join(&id).exists()
        });
        assert!(gone, "PostgreSQL stays");
    }

    /// An empty database; its URL.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{number}");
        self.psql("postgres", &format!("CREATE DATABASE {name}"))
            .unwrap();
        self.url(&name)
    }

    /// URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://gpuquota@127.0.0.1:{}/{database}", self.port)
    }

    /// URL of a database by the socket in the file system.
    pub fn socket_url(&self, database: &str) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://gpuquota@{folder}:{}/{database}", self.port)
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs statements; rows as lines, columns divided by `|`.
    ///
    /// # Errors
    /// With what the server says.
    pub fn psql(&self, database: &str, statements: &str) -> Result<String, String> {
        let mut psql = Command::new(self.installed("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        psql.arg(self.url(database)).env("PGCONNECT_TIMEOUT", "5");
        psql.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut psql = psql.spawn().map_err(|e| e.to_string())?;
        let mut input = psql.stdin.take().unwrap();
        // It may have ended already for want of a server.
        let _ = input.write_all(statements.as_bytes());
        drop(input);
        let done = psql.wait_with_output().map_err(|e| e.to_string())?;
        if done.status.success() {
            Ok(String::from_utf8_lossy(&done.stdout).trim_end().to_owned())
        } else {
            Err(String::from_utf8_lossy(&done.stderr).into_owned())
        }
    }

    /// Path of a program that belongs to the server.
    pub fn installed(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    fn server_id(&self) -> String {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        file.lines().next().unwrap().to_owned()
    }

    fn data(&self) -> PathBuf {
        self.folder.join(DATA)
    }

    /// What it logs.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn program(&self, name: &str) -> Command {
        let mut program = Command::new(self.installed(name));
        program.current_dir(&self.folder);
        if let Some((user, group)) = self.user {
            program.uid(user).gid(group);
        }
        program
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let installed = versions.map(|version| version.path().join("bin"));
    let paths = std::env::var_os("PATH");
    let paths = paths
        .iter()
        .flat_map(std::env::split_paths)
        .collect::<Vec<_>>();
    let mut folders = installed.chain(paths);
    folders.find(|folder| {
        ["postgres", "initdb", "psql"]
            .iter()
            .all(|name| folder.join(name).exists())
    })
}

fn unprivileged() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    USERS.iter().find_map(|wanted| {
        let line = users
            .lines()
            .find(|line| line.split(':').next() == Some(wanted))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
