//! Several real nodes with the agent from its package, joined by tokens to one server of the host, whose ledger is in PostgreSQL.

use std::process::Command;

use crate::journal;
use crate::packaged::{DROP_IN, FAKE, Packages, knows, knows_not, put_driver};
use crate::postgres::Cluster;
use crate::program::{output, program};
use crate::real_node::RealNode;
use crate::server::{QUICK, Server};
use crate::skip::skipped;
use crate::wait::{SOON, until};

/// What the nodes call the server's host.
const HOST: &str = "ledger.test";

// What the guide tells an operator, with the fake driver and a rule for slices. Nodes that open without hardware are GPUs.
const SETUP: &str = r#"
set -e
dpkg --install /opt/agent.deb
mkdir -p /etc/systemd/system/gpuquota-agent.service.d
mv /opt/fake/unit.conf /etc/systemd/system/gpuquota-agent.service.d/
mknod -m 644 /dev/kmsg c 1 11
mknod -m 666 /dev/nvidia0 c 10 229
mknod -m 666 /dev/nvidia1 c 10 200
mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
sed -i 's|^#server = .*|server = "URL"|; s|^#nvml_library = .*|nvml_library = "/opt/fake/libnvidia-ml.so.1"|' /etc/gpuquota/agent.toml
sed -i '0,/^#\[\[attribution.rule\]\]/s//[[attribution.rule]]/; s|^#slice = "tenant-{tenant}|slice = "tenant-{tenant}|' /etc/gpuquota/agent.toml
echo 'ADDRESS ledger.test' >>/etc/hosts
fake new --preset PRESET --seed NAME
systemctl start gpuquota-enforcer.socket
"#;

/// The server and its nodes.
#[derive(Debug)]
pub struct Site {
    /// The server, a process of the host.
    pub server: Server,
    /// The nodes, in the order in which they were named.
    pub members: Vec<Member>,
}

/// One of the nodes.
#[derive(Debug)]
pub struct Member {
    /// The node.
    pub node: RealNode,
    name: String,
}

/// A join token and the pin that goes with it.
#[derive(Clone, Debug)]
pub struct Pass {
    token: String,
    pin: String,
}

impl Site {
    /// Boots nodes of these names and presets; they have not joined. Where the machine cannot, it says aloud that `test` was left out.
    pub async fn boot(test: &str, nodes: &[(&str, &str)]) -> Option<Self> {
        let packages = Packages::build(test)?;
        let cluster = match Cluster::shared() {
            Ok(cluster) => cluster,
            Err(why) => {
                skipped(test, &why);
                return None;
            }
        };
        let mut members = Vec::new();
        for (name, preset) in nodes {
            let node = RealNode::boot(test, name).await?;
            node.copy_in(&packages.package("gpuquota-agent"), "/opt/agent.deb");
            put_driver(&node, DROP_IN);
            let fake = format!(
                "#!/bin/sh\nexport GPUQUOTA_FAKE_NVML={FAKE}/scenario.toml\nexec {FAKE}/gpuquota-fake-nvml \"$@\"\n"
            );
            node.write("/usr/bin/fake", &fake);
            let _ = node.succeed("chmod 755 /usr/bin/fake");
            members.push((
                Member {
                    node,
                    name: (*name).to_owned(),
                },
                *preset,
            ));
        }
        let server = Server::reached_as(HOST, &cluster.database(), QUICK).await;
        let url = format!("https://{HOST}:{}", server.agents.port());
        for (member, preset) in &members {
            let address = member.node.host().to_string();
            let setup = SETUP.replace("URL", &url).replace("ADDRESS", &address);
            let setup = setup.replace("PRESET", preset);
            let _ = member.node.succeed(&setup.replace("NAME", &member.name));
        }
        let members = members.into_iter().map(|(member, _)| member).collect();
        Some(Self { server, members })
    }

    /// The same, joined by a token each and known to the server.
    pub async fn start(test: &str, nodes: &[(&str, &str)]) -> Option<Self> {
        let site = Self::boot(test, nodes).await?;
        site.join().await;
        Some(site)
    }

    /// They join by a token each, and are known to the server.
    ///
    /// # Panics
    /// When one cannot.
    pub async fn join(&self) {
        for member in &self.members {
            let joined = member.join(&self.server, &self.pass(member), "");
            assert_eq!(joined, Ok(()));
            let _ = member.node.succeed("systemctl start gpuquota-agent");
        }
        for member in &self.members {
            self.up(member).await;
        }
    }

    /// Says how far agents go and what a policy is.
    ///
    /// # Panics
    /// When the server refuses it.
    pub async fn settings(&self, enforcing: serde_json::Value) {
        let body = serde_json::json!({ "enforcing": enforcing });
        let admin = self.server.admin();
        let answer = admin.json("PUT", "/api/v1/settings", &body).await;
        assert!(answer.status < 300, "{}", answer.text);
    }

    /// A join token for a node.
    ///
    /// # Panics
    /// When the server makes none.
    #[must_use]
    pub fn pass(&self, member: &Member) -> Pass {
        let mut command = Command::new(program("gpuquota-server"));
        command.args(["join-token", "--node", &member.name, "--dir"]);
        let output = output(command.arg(&self.server.dir));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let how = text(&output.stderr);
        let pin = how.split_whitespace().find(|it| it.starts_with("sha256:"));
        Pass {
            token: text(&output.stdout),
            pin: pin.unwrap_or_else(|| panic!("{how}")).to_owned(),
        }
    }

    /// Waits until the server knows a node's GPUs and hears it.
    pub async fn up(&self, member: &Member) {
        let admin = self.server.admin();
        until(&format!("{} is up", member.name), SOON, async || {
            let node = admin.node(&member.name).await;
            let devices = node["devices"].as_array().map_or(0, Vec::len);
            let up = node["state"] == "up" && node["settled"] == true && devices > 0;
            up.then_some(()).ok_or_else(|| node.to_string())
        })
        .await;
        knows(&member.node, "gpuquota_policy_valid 1").await;
        knows(
            &member.node,
            "gpuquota_enforcement_possible{mode=.evict.} 1",
        )
        .await;
    }

    /// Waits until the server says that a node is silent.
    pub async fn silent(&self, member: &Member) {
        let admin = self.server.admin();
        until(&format!("{} is silent", member.name), SOON, async || {
            let node = admin.node(&member.name).await;
            (node["state"] == "silent")
                .then_some(())
                .ok_or_else(|| node.to_string())
        })
        .await;
    }

    /// What the journal says was done about a tenant: rung and result, in order.
    #[must_use]
    pub fn done(&self, tenant: &str) -> Vec<(String, String)> {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let mut done = Vec::new();
        for row in journal::exported(&self.server.dir) {
            let body: serde_json::Value =
                serde_json::from_str(row["body"].as_str().unwrap_or("{}")).unwrap();
            for event in body["events"].as_array().into_iter().flatten() {
                if event["type"] == "step_ended" && event["step"]["tenant"] == tenant {
                    done.push((
                        text(&event["step"]["rung"]),
                        text(&event["ended"]["result"]),
                    ));
                }
            }
        }
        done
    }

    /// How often this was the result of this rung.
    #[must_use]
    pub fn times(&self, tenant: &str, rung: &str, result: &str) -> usize {
        let wanted = (rung.to_owned(), result.to_owned());
        let done = self.done(tenant);
        done.iter().filter(|it| **it == wanted).count()
    }
}

impl Member {
    /// Becomes a node by a token; `environment` is the shell's. What it says when it does not.
    ///
    /// # Errors
    /// With what `join` said.
    pub fn join(&self, server: &Server, pass: &Pass, environment: &str) -> Result<(), String> {
        let (Pass { token, pin }, port) = (pass, server.agents.port());
        let joined = self.node.run(&format!(
            "echo {token} | {environment} gpuquota-agent join --token - --server https://{HOST}:{port} --ca-hash {pin} --dir /var/lib/gpuquota-agent"
        ));
        let said = String::from_utf8_lossy(&joined.stderr).into_owned();
        joined.status.success().then_some(()).ok_or(said)
    }

    /// A process of a tenant in a unit of its own, which has device nodes open and, if it is deaf, goes on when it is asked to end.
    #[must_use]
    pub fn holder(&self, tenant: &str, unit: &str, nodes: &[&str], deaf: bool) -> u32 {
        let trap = if deaf { "trap \"\" TERM; " } else { "" };
        let open: String = (3..)
            .zip(nodes)
            .map(|(fd, node)| format!("exec {fd}<>{node}; "))
            .collect();
        let _ = self.node.succeed(&format!(
            "systemd-run --quiet --slice=tenant-{tenant}.slice --uid=nobody --unit={unit} sh -c '{trap}{open}exec sleep 3600'"
        ));
        let pid = self.node.succeed(&format!(
            "pid=$(systemctl show {unit} --property=MainPID --value); \
             until readlink /proc/$pid/exe | grep -q sleep; do sleep 0.02; done; echo $pid"
        ));
        pid.trim().parse().unwrap()
    }

    /// The driver shows a process on a device of a GPU.
    pub fn shown(&self, pid: u32, place: &str) {
        let _ = self
            .node
            .succeed(&format!("fake add-process --pid {pid} {place}"));
    }

    /// Work of a tenant on a GPU that the driver shows; its pid.
    #[must_use]
    pub fn work(&self, tenant: &str, unit: &str, gpu: u32, deaf: bool) -> u32 {
        let pid = self.holder(tenant, unit, &[&format!("/dev/nvidia{gpu}")], deaf);
        self.shown(pid, &format!("--gpu {gpu}"));
        pid
    }

    /// Whether a tenant can open a device node now.
    #[must_use]
    pub fn opens(&self, tenant: &str, node: &str) -> bool {
        self.node.holds(&format!(
            "systemd-run --quiet --wait --collect --slice=tenant-{tenant}.slice --uid=nobody sh -c ': <>{node}'"
        ))
    }

    /// Whether a process lives.
    #[must_use]
    pub fn lives(&self, pid: u32) -> bool {
        self.node.holds(&format!("kill -0 {pid}"))
    }

    /// Waits for the end of a process.
    pub async fn ended(&self, pid: u32) {
        let _ = self
            .node
            .becomes(&format!("! kill -0 {pid} 2>/dev/null"), SOON)
            .await;
    }

    /// Waits until the agent's metrics have a line that begins so.
    pub async fn knows(&self, line: &str) {
        let _ = knows(&self.node, line).await;
    }

    /// Waits until they have none.
    pub async fn knows_not(&self, line: &str) {
        knows_not(&self.node, line).await;
    }

    /// Waits until it is told that a step about a tenant had this result.
    pub async fn did(&self, tenant: &str, rung: &str, result: &str) {
        self.knows(&format!(
            "gpuquota_actions_total{{tenant=.{tenant}.,action=.{rung}.,result=.{result}.}} "
        ))
        .await;
    }
}
