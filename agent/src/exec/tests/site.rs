//! A node whose agent answers: the server and the privileged half are the test's own.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex as Plain};
use std::time::Duration;

use gpuquota_proto::agent_v1 as wire;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::super::book::Book;
use super::super::desk::{Caller, Desk, ORDERS};
use super::super::keeper::keep;
use super::super::lessor::{Lease, Lessor, NoLease};
use super::super::{Answer, Ask};
use crate::act::Hands;
use crate::enforce::protocol::{Order, Reply};
use crate::gpu::reading::NvmlState;
use crate::leased::Leased;
use crate::observation::{Device, DeviceKey, Observation};
use crate::policy::Version;
use crate::process::procfs::start_time;
use crate::uplink::dialogue::Dialogue;

pub(super) const GROUP: &str = "/x.slice/gpuquota-lease-7.scope";

#[derive(Debug, Default)]
pub(super) struct Server {
    /// What it answers next, first things first; then it grants lease 7.
    pub(super) script: Plain<Vec<NoLease>>,
    /// What it was asked.
    asked: Plain<Vec<String>>,
}

impl Server {
    pub(super) fn answer(&self, what: String) -> Result<Lease, NoLease> {
        self.asked.lock().unwrap().push(what);
        let mut script = self.script.lock().unwrap();
        if !script.is_empty() {
            return Err(script.remove(0));
        }
        Ok(Lease {
            number: 7,
            epoch: 3,
            devices: vec![DeviceKey::Gpu("GPU-b".into())],
            ends_in_ms: 600_000,
        })
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Lessor for Server {
    async fn take(&self, asked: wire::TakeLease) -> Result<Lease, NoLease> {
        let token = if asked.token.is_empty() {
            ""
        } else {
            " by token"
        };
        let again = if asked.only_if_taken {
            " if it was"
        } else {
            ""
        };
        let (ask, tenant) = (asked.ask, asked.tenant);
        self.answer(format!("take {ask} for {tenant}{token}{again}"))
    }
    async fn renew(&self, lease: u64) -> Result<Lease, NoLease> {
        self.answer(format!("renew {lease}"))
    }
    async fn release(&self, lease: u64) -> Result<Lease, NoLease> {
        self.answer(format!("release {lease}"))
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Half {
    pub(super) orders: Arc<Plain<Vec<Order>>>,
    pub(super) unable: bool,
    pub(super) refuses: bool,
}

impl Hands for Half {
    async fn ask(&self, order: Order) -> Result<Reply, String> {
        self.orders.lock().unwrap().push(order.clone());
        Ok(match order {
            Order::Can => Reply::Able {
                signal: true,
                restrict: true,
                enclose: !self.unable,
                lacking: vec!["no bus".to_owned()],
            },
            Order::Enclose { .. } if self.refuses => Reply::Refused {
                detail: "not our program".to_owned(),
            },
            Order::Enclose { .. } => Reply::Enclosed {
                group: GROUP.to_owned(),
            },
            other => unreachable!("{other:?}"),
        })
    }
}

pub(super) struct Site {
    pub(super) dir: tempfile::TempDir,
    pub(super) server: Arc<Server>,
    pub(super) half: Half,
    pub(super) desk: Desk<Server, Half>,
    pub(super) leased: Arc<Leased>,
    pub(super) stop: CancellationToken,
}

impl Site {
    // A node whose rules say that whoever runs this test is tenant `mine`, and whose agent acts by a policy with these grants.
    pub(super) fn new(half: Half, script: &[NoLease], grants: &[(u64, u64, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let uid = rustix::process::getuid().as_raw();
        let rules = format!("[[rule]]\nuid_range = [{uid}, {uid}]\ntenant = \"mine\"\n");
        let server = Arc::new(Server::default());
        *server.script.lock().unwrap() = script.to_vec();
        let dialogue = Arc::new(Dialogue::new("boot"));
        let grant = |(lease, epoch, tenant): &(u64, u64, &str)| wire::Grant {
            lease: *lease,
            epoch: *epoch,
            tenant: (*tenant).to_owned(),
            devices: vec![wire::DeviceKey {
                gpu_uuid: "GPU-b".into(),
                ..wire::DeviceKey::default()
            }],
            ends_in_ms: None,
        };
        let policy = wire::Policy {
            version: 5,
            valid_for_ms: 60_000,
            grants: grants.iter().map(grant).collect(),
            ..wire::Policy::default()
        };
        dialogue.policy(policy, crate::clock::boottime_ms());
        dialogue.act_by(Version {
            incarnation: 0,
            row: 5,
        });
        let device = |minor| Device {
            minor: Some(minor),
            ..Device::default()
        };
        let seen = Observation {
            at_boottime_ms: 0,
            nvml: NvmlState::Ok,
            driver_version: None,
            devices: BTreeMap::from([
                (DeviceKey::Gpu("GPU-a".into()), device(0)),
                (DeviceKey::Gpu("GPU-b".into()), device(1)),
            ]),
            hidden: Vec::new(),
        };
        let (_, seen) = watch::channel(Some(Arc::new(seen)));
        let leased = Arc::<Leased>::default();
        let desk = Desk {
            lessor: Arc::clone(&server),
            hands: half.clone(),
            book: Arc::new(Book::open(dir.path(), "boot", Arc::clone(&leased))),
            dialogue,
            seen,
            observer: Mutex::new(None),
            attribution: toml::from_str(&rules).unwrap(),
            state: dir.path().to_owned(),
            proc_root: PathBuf::from("/proc"),
            groups: Some(dir.path().to_owned()),
            boot_id: "boot".to_owned(),
            orders: Semaphore::new(ORDERS),
            figures: Arc::default(),
            patience: Duration::from_millis(200),
        };
        Self {
            dir,
            server,
            half,
            desk,
            leased,
            stop: CancellationToken::new(),
        }
    }

    pub(super) async fn ask(&self, tenant: &str, token: Option<&str>) -> Answer {
        let ask = Ask {
            tenant: Some(tenant.to_owned()).filter(|it| !it.is_empty()),
            gpus: 1,
            model: None,
            cpu_cores: None,
            memory_bytes: None,
            token: token.map(ToOwned::to_owned),
        };
        self.asks(ask).await
    }

    pub(super) async fn asks(&self, ask: Ask) -> Answer {
        let pid = std::process::id();
        let caller = Caller {
            pid,
            start_time: start_time(pid).unwrap(),
            uid: rustix::process::getuid().as_raw(),
        };
        self.desk.answer(caller, ask, "name-of-this-asking").await
    }

    pub(super) fn populated(&self, yes: bool) {
        let folder = self.dir.path().join(GROUP.trim_start_matches('/'));
        fs::create_dir_all(&folder).unwrap();
        let text = format!("populated {}\nfrozen 0\n", u8::from(yes));
        fs::write(folder.join("cgroup.events"), text).unwrap();
    }

    // The book of a restarted agent.
    pub(super) fn reopened(&self) -> Arc<Book> {
        Arc::new(Book::open(self.dir.path(), "boot", Arc::default()))
    }

    // Lets this agent's keeper look until the book is as it should be.
    pub(super) async fn kept_until(&self, what: &str, done: impl Fn(&Book) -> bool) {
        self.kept_in(&self.desk.book, what, done).await;
    }

    pub(super) async fn kept_in(&self, book: &Arc<Book>, what: &str, done: impl Fn(&Book) -> bool) {
        let root = Some(self.dir.path().to_owned());
        let keeping = keep(
            Arc::clone(book),
            Arc::clone(&self.server),
            root,
            Arc::clone(&self.desk.figures),
            self.stop.clone(),
        );
        let looking = async {
            while !done(book) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = keeping => unreachable!("nobody stops it"),
            done = tokio::time::timeout(Duration::from_secs(60), looking) => done.expect(what),
        }
    }
}
