//! An asking from its first word to the end of its lease, with a server and a privileged half of the test's own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as Plain};
use std::time::Duration;

use gpuquota_proto::agent_v1 as wire;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use super::book::Book;
use super::desk::{Caller, Desk};
use super::keeper::keep;
use super::lessor::{Lease, Lessor, NoLease};
use super::{Answer, Ask};
use crate::act::Hands;
use crate::enforce::protocol::{Order, Reply};
use crate::gpu::reading::NvmlState;
use crate::leased::Leased;
use crate::observation::{Device, DeviceKey, Observation};
use crate::policy::Version;
use crate::process::procfs::start_time;
use crate::uplink::dialogue::Dialogue;

const GROUP: &str = "/x.slice/gpuquota-lease-7.scope";

#[derive(Debug, Default)]
struct Server {
    /// What it answers next, first things first; then it grants lease 7.
    script: Plain<Vec<NoLease>>,
    /// What it was asked.
    asked: Plain<Vec<String>>,
}

impl Server {
    fn answer(&self, what: String) -> Result<Lease, NoLease> {
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

    fn asked(&self) -> Vec<String> {
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
        self.answer(format!("take {} for {}{token}", asked.ask, asked.tenant))
    }
    async fn renew(&self, lease: u64) -> Result<Lease, NoLease> {
        self.answer(format!("renew {lease}"))
    }
    async fn release(&self, lease: u64) -> Result<Lease, NoLease> {
        self.answer(format!("release {lease}"))
    }
}

#[derive(Clone, Debug, Default)]
struct Half {
    orders: Arc<Plain<Vec<Order>>>,
    unable: bool,
    refuses: bool,
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

struct Site {
    dir: tempfile::TempDir,
    server: Arc<Server>,
    half: Half,
    desk: Desk<Server, Half>,
    stop: CancellationToken,
}

impl Site {
    // A node whose rules say that whoever runs this test is tenant `mine`, and whose agent acts by a policy with these grants.
    fn new(half: Half, script: &[NoLease], grants: &[(u64, u64, &str)]) -> Self {
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
            leased,
            dialogue,
            seen,
            observer: Mutex::new(None),
            attribution: toml::from_str(&rules).unwrap(),
            state: dir.path().to_owned(),
            proc_root: PathBuf::from("/proc"),
            boot_id: "boot".to_owned(),
            figures: Arc::default(),
            patience: Duration::from_millis(200),
        };
        Self {
            dir,
            server,
            half,
            desk,
            stop: CancellationToken::new(),
        }
    }

    async fn ask(&self, tenant: &str, token: Option<&str>) -> Answer {
        let pid = std::process::id();
        let caller = Caller {
            pid,
            start_time: start_time(pid).unwrap(),
            uid: rustix::process::getuid().as_raw(),
        };
        let ask = Ask {
            tenant: Some(tenant.to_owned()).filter(|it| !it.is_empty()),
            gpus: 1,
            model: None,
            cpu_cores: None,
            memory_bytes: None,
            token: token.map(ToOwned::to_owned),
        };
        self.desk.answer(caller, ask, "name-of-this-asking").await
    }

    fn populated(&self, yes: bool) {
        let folder = self.dir.path().join(GROUP.trim_start_matches('/'));
        fs::create_dir_all(&folder).unwrap();
        let text = format!("populated {}\nfrozen 0\n", u8::from(yes));
        fs::write(folder.join("cgroup.events"), text).unwrap();
    }

    // The book of a restarted agent.
    fn reopened(&self) -> Arc<Book> {
        Arc::new(Book::open(self.dir.path(), "boot", Arc::default()))
    }

    // Lets this agent's keeper look until the book is as it should be.
    async fn kept_until(&self, what: &str, done: impl Fn(&Book) -> bool) {
        self.kept_in(&self.desk.book, what, done).await;
    }

    async fn kept_in(&self, book: &Arc<Book>, what: &str, done: impl Fn(&Book) -> bool) {
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

fn why(answer: &Answer) -> (&'static str, &str) {
    match answer {
        Answer::Go { .. } => ("go", ""),
        Answer::Denied { why } => ("denied", why),
        Answer::Refused { why } => ("refused", why),
        Answer::Away { why } => ("away", why),
    }
}

fn text_of(dir: &Path) -> String {
    fs::read_to_string(dir.join("leases.json")).unwrap_or_default()
}

#[tokio::test]
async fn a_command_starts_with_its_devices_alone_and_its_lease_ends_with_its_last_process() {
    let site = Site::new(Half::default(), &[], &[(7, 3, "mine")]);
    let answer = site.ask("", None).await;
    let Answer::Go {
        lease,
        tenant,
        environment,
    } = &answer
    else {
        unreachable!("{answer:?}")
    };
    assert_eq!((*lease, tenant.as_str()), (7, "mine"));
    assert_eq!(environment["CUDA_VISIBLE_DEVICES"], "GPU-b");
    let orders = site.half.orders.lock().unwrap().clone();
    let Some(Order::Enclose {
        who, lease, allow, ..
    }) = orders.last()
    else {
        unreachable!("{orders:?}")
    };
    assert_eq!((who.pid, *lease), (std::process::id(), 7));
    assert_eq!(allow, &["/dev/nvidia1"]);
    let membership = crate::process::cgroup::membership(format!("0::{GROUP}\n").as_bytes());
    assert_eq!(
        site.desk.leased.tenant(&membership).as_deref(),
        Some("mine")
    );
    // It runs: the next agent renews. It has ended: it is given back.
    site.populated(true);
    let renewed = |_: &Book| site.server.asked().last().is_some_and(|it| it == "renew 7");
    let next = site.reopened();
    site.kept_in(&next, "a renewal", renewed).await;
    site.populated(false);
    site.kept_in(&next, "the end", Book::is_empty).await;
    let asked: BTreeSet<_> = site.server.asked().into_iter().skip(1).collect();
    assert_eq!(
        asked,
        ["release 7", "renew 7"].map(ToOwned::to_owned).into()
    );
}

#[tokio::test]
async fn who_may_ask_for_whom_is_never_said_by_the_caller_alone() {
    let site = Site::new(Half::default(), &[], &[(7, 3, "mine"), (8, 3, "theirs")]);
    let answer = site.ask("theirs", None).await;
    let (is, text) = why(&answer);
    assert_eq!(is, "refused");
    assert!(
        text.contains("tenant mine's") && text.contains("--token-file"),
        "{text}"
    );
    assert!(site.server.asked().is_empty() && site.desk.book.is_empty());
    // With a token the server says; the token is kept nowhere.
    let refused = NoLease::Refused("the token takes no leases for theirs".to_owned());
    let site = Site::new(Half::default(), &[refused], &[]);
    assert_eq!(why(&site.ask("theirs", Some("secret")).await).0, "refused");
    assert_eq!(
        site.server.asked(),
        ["take name-of-this-asking for theirs by token"]
    );
    assert!(site.desk.book.is_empty());
    let site = Site::new(Half::default(), &[], &[(7, 3, "theirs")]);
    assert_eq!(why(&site.ask("theirs", Some("secret")).await).0, "go");
    let kept = text_of(site.dir.path());
    assert!(
        kept.contains("theirs") && !kept.contains("secret"),
        "{kept}"
    );
    // No rule knows the caller.
    let mut site = Site::new(Half::default(), &[], &[(7, 3, "mine")]);
    site.desk.attribution = toml::from_str("").unwrap();
    let answer = site.ask("mine", None).await;
    assert_eq!(why(&answer).0, "refused");
    assert!(
        why(&answer).1.contains("belongs to no tenant"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn nothing_starts_before_a_policy_knows_the_lease_and_what_was_leased_is_given_back() {
    // Unknown, another epoch, another tenant's.
    for grants in [&[][..], &[(7, 2, "mine")], &[(7, 3, "theirs")]] {
        let site = Site::new(Half::default(), &[], grants);
        let answer = site.ask("mine", None).await;
        assert_eq!(why(&answer).0, "away", "{answer:?}");
        let orders = site.half.orders.lock().unwrap().clone();
        assert_eq!(orders, [Order::Can]);
        site.kept_until("it is given back", Book::is_empty).await;
        assert_eq!(site.server.asked().last().unwrap(), "release 7");
    }
    // It is known and not acted by yet; meanwhile nobody gives the lease back, for somebody waits for it.
    let site = Site::new(Half::default(), &[], &[(7, 3, "mine")]);
    let act_by = |row| {
        site.desk.dialogue.act_by(Version {
            incarnation: 0,
            row,
        });
    };
    act_by(4);
    let acted = std::cell::Cell::new(false);
    let later = async {
        while site.server.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        let looked = tokio::time::timeout(
            Duration::from_millis(60),
            site.kept_until("never", |_| false),
        );
        assert!(looked.await.is_err());
        acted.set(true);
        act_by(5);
    };
    let asking = async {
        let answer = site.ask("mine", None).await;
        assert!(acted.get(), "it started too early");
        answer
    };
    let (answer, ()) = tokio::join!(asking, later);
    assert_eq!(why(&answer).0, "go");
    assert_eq!(site.server.asked().len(), 1, "{:?}", site.server.asked());
}

#[tokio::test]
async fn what_cannot_be_kept_to_its_gpus_leases_nothing_or_gives_it_back() {
    let unable = Half {
        unable: true,
        ..Half::default()
    };
    let site = Site::new(unable, &[], &[(7, 3, "mine")]);
    let answer = site.ask("mine", None).await;
    assert_eq!(why(&answer).0, "away");
    assert!(why(&answer).1.contains("no bus"), "{answer:?}");
    assert!(site.server.asked().is_empty());
    let refuses = Half {
        refuses: true,
        ..Half::default()
    };
    let site = Site::new(refuses, &[], &[(7, 3, "mine")]);
    assert_eq!(why(&site.ask("mine", None).await).0, "refused");
    site.kept_until("it is given back", Book::is_empty).await;
    let full = NoLease::Denied("8 of 8 are used".to_owned());
    let site = Site::new(Half::default(), &[full], &[]);
    assert_eq!(
        why(&site.ask("mine", None).await),
        ("denied", "8 of 8 are used")
    );
    assert!(site.desk.book.is_empty());
    assert_eq!(site.desk.figures.answered(), [0, 1, 0, 0]);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_by_its_name_and_given_back() {
    let lost = NoLease::Away("cut".to_owned());
    let site = Site::new(Half::default(), &[lost], &[(7, 3, "mine")]);
    assert_eq!(why(&site.ask("mine", None).await).0, "away");
    assert_eq!(site.desk.book.len(), 1);
    site.kept_until("it is settled", Book::is_empty).await;
    let name = "take name-of-this-asking for mine";
    assert_eq!(site.server.asked(), [name, name, "release 7"]);
}
