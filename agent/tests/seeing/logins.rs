//! Who logged in, with real processes: `loginuid` counts only where nobody could have chosen it.

use std::process::{Child, Command, Stdio};

use gpuquota_agent::attribute::{AttributionConfig, Observer};
use gpuquota_agent::clock::boottime_ms;
use gpuquota_agent::observation::{Owner, Reason, Source};
use gpuquota_fake_nvml::scenario::Process;

use crate::cgroup::Cgroup;
use crate::node::{Node, sample_until};
use crate::skip::skipped;

struct Workload(Child);

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that has given itself this login, as any may that has none, and says so.
fn login(uid: u32) -> Option<Workload> {
    use std::io::Read as _;
    let script =
        format!("echo {uid} > /proc/self/loginuid; cat /proc/self/loginuid; exec sleep 600");
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut told = vec![0; uid.to_string().len()];
    let read = child.stdout.take().unwrap().read_exact(&mut told);
    let workload = Workload(child);
    (read.is_ok() && told == uid.to_string().as_bytes()).then_some(workload)
}

/// Case 70: a service's process that names a login of its own is not that user's.
#[tokio::test]
async fn rule_08_a_login_counts_where_the_system_puts_logins() {
    let session = "/user.slice/user-64321.slice/session-gpuquota.scope";
    let Some(session) = Cgroup::new(session) else {
        return;
    };
    let Some(service) = Cgroup::new("/gpuquotatest.slice/forger.service") else {
        return;
    };
    let node = Node::new("t4x1");
    let (Some(logged_in), Some(forger)) = (login(64_321), login(64_321)) else {
        skipped(
            "a_login_counts_where_the_system_puts_logins",
            "no loginuid can be set here",
        );
        return;
    };
    session.take(logged_in.0.id());
    service.take(forger.0.id());
    for child in [&logged_in, &forger] {
        let process = Process::new("0", child.0.id());
        node.edit(|scenario| scenario.add_process(process));
    }
    let rules = "[[rule]]\nlogin_uid_range = [64321, 64321]\ntenant = \"logged-in\"\n";
    let config: AttributionConfig = toml::from_str(rules).unwrap();
    let mut observer = Observer::new(&config, None).unwrap();
    let mut sampler = node.sampler();
    let collected = sample_until(&mut sampler, |collected| collected.reading.is_some()).await;
    let seen = observer.observe(collected, None, boottime_ms());
    sampler.shutdown().await;
    let processes = &seen.devices.values().next().unwrap().processes;
    let owner = |workload: &Workload| {
        let found = processes
            .iter()
            .find(|process| process.pid == Some(workload.0.id()));
        found.unwrap().owner.clone()
    };
    let expected = Owner::Tenant {
        name: "logged-in".to_owned(),
        source: Source::Login,
    };
    assert_eq!(owner(&logged_in), expected);
    assert_eq!(owner(&forger), Owner::Unattributed(Reason::NoRule));
}
