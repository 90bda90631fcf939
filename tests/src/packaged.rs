//! The Debian packages, made from the programs under test, and a real node on which they are installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{output, program, succeed};
use crate::real_node::RealNode;
use crate::repository;
use crate::skip::skipped;
use crate::wait::SOON;

/// Where the fake driver is on a node.
pub const FAKE: &str = "/opt/fake";
/// Where the privileged half listens.
pub const ENFORCER: &str = "/run/gpuquota-enforcer/enforcer.sock";
/// The agent's directory.
pub const AGENT_DIR: &str = "/var/lib/gpuquota-agent";

/// Of the agent's unit: beside the fake driver, so much of a watchdog that a test can wait for it.
pub(crate) const DROP_IN: &str = "[Service]\nEnvironment=GPUQUOTA_FAKE_NVML=/opt/fake/scenario.toml \
    LD_PRELOAD=/opt/fake/first_namespace.so\nWatchdogSec=5\nTimeoutAbortSec=1\n";

// What the guide tells an operator, with the fake driver and a rule for slices.
const SETUP: &str = r#"
set -e
mkdir -p /etc/systemd/system/gpuquota-agent.service.d
mv /opt/fake/unit.conf /etc/systemd/system/gpuquota-agent.service.d/
mknod -m 644 /dev/kmsg c 1 11
runuser -u gpuquota -- gpuquota-server init --dir /var/lib/gpuquota
systemctl start gpuquota-server
gpuquota-server issue-agent --dir /var/lib/gpuquota --node gpu01 --out /root/gpu01
install -m 600 -o gpuquota-agent -g gpuquota-agent /root/gpu01/agent.crt /root/gpu01/agent.key /root/gpu01/ca.crt /var/lib/gpuquota-agent/
sed -i 's|^#server = .*|server = "https://localhost:8443"|; s|^#nvml_library = .*|nvml_library = "/opt/fake/libnvidia-ml.so.1"|' \
    /etc/gpuquota/agent.toml
sed -i '0,/^#\[\[attribution.rule\]\]/s//[[attribution.rule]]/; s|^#slice = "tenant-{tenant}|slice = "tenant-{tenant}|' /etc/gpuquota/agent.toml
GPUQUOTA_FAKE_NVML=/opt/fake/scenario.toml /opt/fake/gpuquota-fake-nvml new --preset h100x4
systemctl start gpuquota-agent
"#;

/// The two packages, as files.
#[derive(Debug)]
pub struct Packages {
    folder: TempDir,
}

impl Packages {
    /// Makes them. Where the machine cannot, it says aloud that `test` was left out.
    ///
    /// # Panics
    /// When they cannot be made though all is there that it takes.
    #[must_use]
    pub fn build(test: &str) -> Option<Self> {
        let server = program("gpuquota-server");
        let target = server.ancestors().nth(2).unwrap();
        if !target.join("tools/bin/cargo-deb").exists() {
            skipped(
                test,
                "cargo-deb is not in the target folder's tools; tests/run installs it",
            );
            return None;
        }
        if output(Command::new("sh").args(["-c", "command -v dpkg-deb dpkg-shlibdeps"]))
            .status
            .success()
        {
            let folder = tempfile::tempdir().unwrap();
            let mut build = Command::new(repository::root().join("deploy/deb/build"));
            build.env("GPUQUOTA_DEB_BUILT", "dev");
            succeed(
                build
                    .env("CARGO_TARGET_DIR", target)
                    .arg(folder.path().join("made")),
            );
            return Some(Self { folder });
        }
        skipped(test, "dpkg-dev is not installed; tests/run installs it");
        None
    }

    /// The package of this name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn package(&self, name: &str) -> PathBuf {
        let made = fs::read_dir(self.folder.path().join("made")).unwrap();
        let mut paths = made.flatten().map(|entry| entry.path());
        let named = |path: &Path| {
            let file = path.file_name().unwrap().to_string_lossy().into_owned();
            file.starts_with(&format!("{name}_"))
        };
        paths.find(|path| named(path)).unwrap()
    }

    /// The same package as its next version, with another default configuration and another unit.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn next(&self, name: &str) -> PathBuf {
        let tree = self.folder.path().join("next");
        let changed = "set -e
            dpkg-deb --raw-extract \"$1\" \"$2\"
            sed -i 's/^Version: .*/Version: 9.9.9-1/' \"$2/DEBIAN/control\"
            for file in \"$2\"/etc/gpuquota/*.toml \"$2\"/usr/lib/systemd/system/*; do echo '# next' >>\"$file\"; done
            dpkg-deb -Znone --root-owner-group --build \"$2\" \"$3\"";
        let next = self.folder.path().join(format!("{name}-next.deb"));
        let mut change = Command::new("sh");
        change.args(["-c", changed, "sh"]).arg(self.package(name));
        succeed(change.arg(&tree).arg(&next));
        next
    }
}

/// Puts the fake driver on a node, and what the agent's unit is to have besides.
pub(crate) fn put_driver(node: &RealNode, unit: &str) {
    let built = tempfile::tempdir().unwrap();
    let fake = |name: &str| format!("{FAKE}/{name}");
    for name in ["first_namespace", "wrong_clock"] {
        let library = built.path().join(name);
        let source = repository::root().join(format!("tests/src/real_node/{name}.c"));
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]);
        succeed(compiler.arg(&library).arg(source));
        node.copy_in(&library, &fake(&format!("{name}.so")));
    }
    let driver = program("libgpuquota_fake_nvml.so");
    node.copy_in(&driver, &fake("libnvidia-ml.so.1"));
    let tool = "gpuquota-fake-nvml";
    node.copy_in(&program(tool), &fake(tool));
    node.write(&fake("unit.conf"), unit);
}

/// Waits until the metrics of a node's agent have a line that begins so.
pub async fn knows(node: &RealNode, line: &str) -> String {
    scraped(
        node,
        &format!("grep -q '^{line}' /run/scrape && cat /run/scrape"),
    )
    .await
}

/// Waits until they are there and have none.
pub async fn knows_not(node: &RealNode, line: &str) {
    let lacks = format!("grep -q '^gpuquota_' /run/scrape && ! grep -q '^{line}' /run/scrape");
    let _ = scraped(node, &lacks).await;
}

async fn scraped(node: &RealNode, look: &str) -> String {
    let scrape =
        "exec 3<>/dev/tcp/127.0.0.1/9401; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
    let command = format!("bash -c \"{scrape}\" >/run/scrape && {look}");
    node.becomes(&command, SOON).await
}

/// A real node with both packages.
#[derive(Debug)]
pub struct PackagedNode {
    /// The node.
    pub node: RealNode,
    /// What is installed on it.
    pub packages: Packages,
}

impl PackagedNode {
    /// Installs them on a node of their own; nothing runs yet. Where the machine cannot, it says aloud that `test` was left out.
    pub async fn install(test: &str) -> Option<Self> {
        let packages = Packages::build(test)?;
        let node = RealNode::boot(test, "gpu01").await?;
        for name in ["gpuquota-server", "gpuquota-agent"] {
            let package = format!("/opt/{name}.deb");
            node.copy_in(&packages.package(name), &package);
            let _ = node.succeed(&format!("dpkg --install {package}"));
        }
        Some(Self { node, packages })
    }

    /// Starts both programs as the guide says, over the fake driver with four GPUs, and waits until they know each other.
    pub async fn start(&self) {
        put_driver(&self.node, DROP_IN);
        let _ = self.node.succeed(SETUP);
        self.knows("gpuquota_uplink_connected 1").await;
    }

    /// Waits until the agent's metrics have a line that begins so.
    pub async fn knows(&self, line: &str) -> String {
        knows(&self.node, line).await
    }

    /// One line to the privileged half by another user and group, `--reuid=U --regid=G`; whatever comes back.
    #[must_use]
    pub fn say(&self, who: &str, line: &str) -> String {
        let perl = format!(
            "use IO::Socket::UNIX; $s = IO::Socket::UNIX->new(\"{ENFORCER}\") or die; \
             print $s \"$ARGV[0]\\n\"; print scalar <$s>"
        );
        let said = format!("setpriv {who} --clear-groups perl -e '{perl}' '{line}'");
        self.node.succeed(&said).trim().to_owned()
    }

    /// One order of the agent's user, and its answer.
    ///
    /// # Panics
    /// When that is no JSON.
    #[must_use]
    pub fn order(&self, order: &Value) -> Value {
        let who = "--reuid=gpuquota-agent --regid=gpuquota-agent";
        serde_json::from_str(&self.say(who, &order.to_string())).unwrap()
    }

    /// A property of a unit, as systemd has it.
    #[must_use]
    pub fn property(&self, unit: &str, name: &str) -> String {
        let command = format!("systemctl show {unit} --property={name} --value");
        self.node.succeed(&command).trim().to_owned()
    }

    /// A process of a tenant in its slice, of a user that is not the agent's, that the driver lists on the first GPU: its pid.
    #[must_use]
    pub fn work(&self, tenant: &str) -> String {
        let slice = format!("tenant-{tenant}.slice");
        let start =
            format!("systemd-run --quiet --slice={slice} --uid=nobody --unit=job sleep 3600");
        let _ = self.node.succeed(&start);
        let pid = self.property("job", "MainPID");
        let place = format!(
            "GPUQUOTA_FAKE_NVML={FAKE}/scenario.toml {FAKE}/gpuquota-fake-nvml add-process --gpu 0 --pid {pid}"
        );
        let _ = self.node.succeed(&place);
        pid
    }
}
