//! From a policy to an order and back: a real stream, a real process, and hands that only write down what they are told.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Mutex;

use gpuquota_proto::agent_v1 as wire;
use tokio::sync::watch;

use super::*;
use crate::act::{Acting, Acts, EnforcementConfig, Hands, Neighbours};
use crate::attribute::AttributionConfig;
use crate::enforce::cgroup_root;
use crate::enforce::protocol::{Order, Reply, Signal};
use crate::observation::AttributedProcess;
use crate::process::procfs::start_time;

/// Orders that change something.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<Order>>>);

impl Hands for Written {
    async fn ask(&self, order: Order) -> Result<Reply, String> {
        match order {
            Order::Can => Ok(Reply::Able {
                signal: true,
                restrict: true,
                enclose: true,
                lacking: Vec::new(),
            }),
            Order::Restrictions => Ok(Reply::Restricted { groups: Vec::new() }),
            other => {
                self.0.lock().unwrap().push(other);
                Ok(Reply::Done)
            }
        }
    }
}

struct Scene {
    bench: Bench,
    server: FakeServer,
    sleeper: Child,
    written: Written,
    seen: watch::Sender<Option<Arc<Observation>>>,
    _state: TempDir,
    _stop: (CancellationToken, CancellationToken),
}

fn evict(tenant: &str) -> wire::Policy {
    let verdict = wire::Verdict {
        tenant: tenant.into(),
        device: Some(wire::DeviceKey {
            gpu_uuid: "GPU-a".into(),
            ..Default::default()
        }),
        class: wire::ViolationClass::Squatter.into(),
        ladder: Some(wire::Ladder {
            mode: wire::Mode::Evict.into(),
            grace_ms: 0,
            term_grace_ms: 0,
        }),
        held: String::new(),
    };
    wire::Policy {
        version: 5,
        valid_for_ms: 60_000,
        verdicts: vec![verdict],
        ..Default::default()
    }
}

impl Scene {
    async fn open() -> Self {
        let bench = Bench::new();
        let server = FakeServer::start(&bench.server_files).await;
        server.book().policy = Some(evict("b"));
        let (_task, uplink) =
            bench.start(&server, bench.authority.agent(bench.dir.path(), "node1", 2));
        let (seen, receiver) = watch::channel(None);
        let state = tempfile::tempdir().unwrap();
        let written = Written::default();
        let acting = Acting {
            config: EnforcementConfig::default(),
            dialogue: Arc::clone(&bench.dialogue),
            seen: receiver,
            hands: written.clone(),
            boot_id: "boot".into(),
            state: state.path().to_owned(),
            proc_root: PathBuf::from("/proc"),
            neighbours: Neighbours::new(
                AttributionConfig::default(),
                state.path(),
                Arc::default(),
                cgroup_root(),
            ),
            figures: Arc::<Acts>::default(),
        };
        let stop = CancellationToken::new();
        tokio::spawn(acting.run(stop.clone()));
        Self {
            bench,
            server,
            sleeper: Command::new("sleep").arg("600").spawn().unwrap(),
            written,
            seen,
            _state: state,
            _stop: (uplink, stop),
        }
    }

    /// A reading in which the process is on the GPU for a tenant, or nobody is.
    fn shows(&mut self, tenant: Option<&str>) {
        self.bench.now += 1000;
        let pid = self.sleeper.id();
        let process = |name: &str| AttributedProcess {
            pid: Some(pid),
            kind: None,
            start_time: start_time(pid).ok(),
            owner: Owner::Tenant {
                name: name.to_owned(),
                source: Source::Slice,
            },
            used_memory_bytes: None,
            sm: Default::default(),
        };
        let device = Device {
            health: Health::Ok,
            minor: Some(0),
            processes: tenant.map(process).into_iter().collect(),
            ..Device::default()
        };
        self.seen.send_replace(Some(Arc::new(Observation {
            hidden: Vec::new(),
            at_boottime_ms: self.bench.now,
            nvml: NvmlState::Ok,
            driver_version: None,
            devices: [(DeviceKey::Gpu("GPU-a".into()), device)].into(),
        })));
    }

    fn signals(&self) -> Vec<(u32, Signal)> {
        let orders = self.written.0.lock().unwrap();
        let signals = orders.iter().filter_map(|order| match order {
            Order::Signal { who, signal, .. } => Some((who.pid, *signal)),
            _ => None,
        });
        signals.collect()
    }

    async fn told(&self, what: &str, rung: wire::Rung, kind: wire::OutcomeKind) {
        let is = |outcome: &wire::Outcome| {
            outcome.kind() == kind
                && outcome
                    .step
                    .as_ref()
                    .is_some_and(|step| step.rung() == rung)
        };
        self.server
            .until(what, |book| book.outcomes.iter().any(is))
            .await;
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.sleeper.kill();
        let _ = self.sleeper.wait();
    }
}

#[tokio::test]
async fn case_59_each_step_is_asked_for_done_as_it_was_asked_and_told_with_what_came_of_it() {
    let mut scene = Scene::open().await;
    scene.shows(Some("b"));
    scene
        .told("the warning", wire::Rung::Warn, wire::OutcomeKind::Done)
        .await;
    scene
        .told("the end", wire::Rung::Kill, wire::OutcomeKind::Done)
        .await;
    let pid = scene.sleeper.id();
    assert_eq!(scene.signals(), [(pid, Signal::Term), (pid, Signal::Kill)]);
    {
        let book = scene.server.book();
        let rungs: Vec<wire::Rung> = book
            .intents
            .iter()
            .flat_map(|it| &it.steps)
            .map(wire::Step::rung)
            .collect();
        assert!(
            rungs.ends_with(&[wire::Rung::Term, wire::Rung::Kill]),
            "{rungs:?}"
        );
        assert!(book.outcomes.is_sorted_by_key(|outcome| outcome.number));
    }
    scene.shows(None);
    scene.shows(None);
    tokio::time::sleep(Duration::from_millis(50)).await;
    scene.shows(None);
    scene
        .told(
            "it is verified",
            wire::Rung::Kill,
            wire::OutcomeKind::Verified,
        )
        .await;
}

#[tokio::test]
async fn case_59_without_the_servers_leave_nothing_is_done_and_people_are_told_all_the_same() {
    let mut scene = Scene::open().await;
    scene.server.book().allow_nothing = true;
    scene.shows(Some("b"));
    scene
        .server
        .until("it asks", |book| !book.intents.is_empty())
        .await;
    scene
        .told("the warning", wire::Rung::Warn, wire::OutcomeKind::Done)
        .await;
    // Another tenant on the same GPU is nobody's business.
    scene.shows(Some("a"));
    scene.server.book().allow_nothing = false;
    scene.shows(Some("a"));
    scene
        .server
        .until("a heartbeat more", {
            let beats = scene.server.book().heartbeats.len();
            move |book| book.heartbeats.len() > beats + 1
        })
        .await;
    assert_eq!(scene.written.0.lock().unwrap().len(), 0);
}
