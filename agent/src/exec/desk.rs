//! One asking from its first word to the answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::timeout;

use super::book::{Asked, Book};
use super::devices::{Needed, needed};
use super::figures::Figures;
use super::keeper::PART;
use super::lessor::{Lease, Lessor, NoLease};
use super::{Answer, Ask};
use crate::act::Hands;
use crate::attribute::{AttributionConfig, Observer, is_tenant_name};
use crate::clock::boottime_ms;
use crate::enforce::protocol::{Identity, Order, Reply};
use crate::leased::SCOPE_PREFIX;
use crate::observation::{Observation, Owner};
use crate::policy::{Policy, Standing};
use crate::process::cgroup::membership;
use crate::process::group::GroupId;
use crate::process::procfs::ProcessFolder;
use crate::uplink::dialogue::Dialogue;

/// The server pushes a policy that knows the lease within this, or the lease is given back.
pub const POLICY: Duration = Duration::from_secs(10);
/// Orders of askings that the privileged half has at a time, at most.
pub const ORDERS: usize = 2;
/// Whoever made a workload is asked whose it is, and answers within this.
const CREATORS: Duration = Duration::from_secs(5);

/// Who asks, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Process id in the host's namespace.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`, clock ticks since boot.
    pub start_time: u64,
    /// Effective user.
    pub uid: u32,
}

/// All that an answer takes.
#[derive(Debug)]
pub struct Desk<L, H> {
    /// Who gives leases.
    pub lessor: Arc<L>,
    /// The privileged half.
    pub hands: H,
    /// Which are held.
    pub book: Arc<Book>,
    /// What the server says of policies.
    pub dialogue: Arc<Dialogue>,
    /// The newest reading.
    pub seen: watch::Receiver<Option<Arc<Observation>>>,
    /// Whose processes are; made when somebody asks first.
    pub observer: Mutex<Option<Observer>>,
    /// By which evidence.
    pub attribution: AttributionConfig,
    /// The agent's state directory.
    pub state: PathBuf,
    /// Where the proc file system tells of the node as a whole.
    pub proc_root: PathBuf,
    /// Where control groups of version 2 are; `None`: nowhere.
    pub groups: Option<PathBuf>,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// [`ORDERS`], so that what enforces finds a seat there.
    pub orders: Semaphore,
    /// For `/metrics`.
    pub figures: Arc<Figures>,
    /// How long a policy that knows a lease is waited for: [`POLICY`].
    pub patience: Duration,
}

// However it ends, nobody waits for it then.
struct Waits<'b>(&'b Book, &'b str);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.answered(self.1);
    }
}

impl<L: Lessor, H: Hands> Desk<L, H> {
    /// Answers. Whatever is leased on the way and not used is given back by the keeper. `name` is new for each asking.
    pub async fn answer(&self, caller: Caller, ask: Ask, name: &str) -> Answer {
        let answer = self.try_answer(caller, ask, name).await;
        let answer = answer.unwrap_or_else(|no| no);
        self.figures.count(&answer);
        answer
    }

    async fn try_answer(&self, caller: Caller, ask: Ask, name: &str) -> Result<Answer, Answer> {
        if let Some(model) = ask.model.as_deref().filter(|model| !is_model(model)) {
            let why = format!(
                "{model:?} is no model (1 to 253 visible ASCII characters, as `gpuquota-agent devices` shows them)"
            );
            return Err(Answer::Refused { why });
        }
        under_none(caller)?;
        let tenant = self.tenant(caller, &ask).await?;
        self.able().await?;
        let asked = Asked {
            tenant: tenant.clone(),
            model: ask.model.unwrap_or_default(),
            count: ask.gpus,
            cpu_cores: ask.cpu_cores,
            memory_bytes: ask.memory_bytes,
            uid: caller.uid,
        };
        let wire = asked.wire(name, ask.token.as_deref());
        self.book.ask(name, asked).map_err(|error| Answer::Away {
            why: format!("the agent cannot keep what it would lease: {error}"),
        })?;
        let _waits = Waits(&self.book, name);
        let lease = match self.lessor.take(wire).await {
            Ok(lease) => lease,
            Err(NoLease::Denied(why)) => {
                self.book.forget(name);
                return Err(Answer::Denied { why });
            }
            Err(NoLease::Refused(why) | NoLease::Barred(why)) => {
                self.book.forget(name);
                return Err(Answer::Refused { why });
            }
            Err(NoLease::Away(why)) => {
                return Err(Answer::Away {
                    why: format!("no lease can be had from the server: {why}"),
                });
            }
        };
        let renew_at_ms = boottime_ms().saturating_add(lease.ends_in_ms / PART);
        self.book.taken(name, lease.number, renew_at_ms);
        let policy = timeout(self.patience, self.policy_with(&lease, &tenant)).await;
        let version = policy.map_err(|_| Answer::Away {
            why: format!(
                "the agent does not act by a policy that knows lease {} after {:?}; is its session up (gpuquota_uplink_connected)?",
                lease.number, self.patience
            ),
        })?;
        let Needed { environment, nodes } = self.needed(&lease)?;
        let group = self.enclose(caller, &lease, nodes, version).await?;
        let folder = self.groups.as_deref();
        let folder = folder.and_then(|root| GroupId::of_folder(root, &group));
        self.book
            .runs(name, &group, folder)
            .map_err(|error| Answer::Away {
                why: format!(
                    "the agent cannot keep what runs under lease {}: {error}",
                    lease.number
                ),
            })?;
        tracing::info!(
            lease = lease.number,
            tenant,
            caller.pid,
            caller.uid,
            group,
            "a command starts under a lease"
        );
        Ok(Answer::Go {
            lease: lease.number,
            tenant,
            environment,
        })
    }

    // For whom: as the rules say of the caller, or as a token says, of which the server is asked.
    async fn tenant(&self, caller: Caller, ask: &Ask) -> Result<String, Answer> {
        let refused = |why: String| Err(Answer::Refused { why });
        if let Some(name) = ask.tenant.as_deref().filter(|name| !is_tenant_name(name)) {
            return refused(format!(
                "{name:?} is no tenant name (1 to 255 of A-Z a-z 0-9 . _ @ -)"
            ));
        }
        if ask.token.is_some() {
            return match &ask.tenant {
                Some(tenant) => Ok(tenant.clone()),
                None => refused("with a token --tenant must say for whom".to_owned()),
            };
        }
        let owner = self.owner(caller).await;
        match (owner, &ask.tenant) {
            (Some(Owner::Tenant { name, .. }), None) => Ok(name),
            (Some(Owner::Tenant { name, .. }), Some(asked)) if name == *asked => Ok(name),
            (Some(Owner::Tenant { name, .. }), Some(asked)) => refused(format!(
                "on this node what uid {} runs here is tenant {name}'s by the rules of attribution, not {asked}'s; \
                 ask as {name}, or with a token for {asked} (--token-file)",
                caller.uid
            )),
            (Some(Owner::Unattributed(reason)), _) => refused(format!(
                "on this node what uid {} runs here belongs to no tenant by the rules of attribution ({}); \
                 the operator can add a rule to agent.toml, or ask with a token (--token-file)",
                caller.uid,
                reason.as_str()
            )),
            (Some(Owner::Unresolved(name)), _) => Err(Answer::Away {
                why: format!(
                    "a rule of attribution names {name}, which this host does not know yet; it is asked again each minute"
                ),
            }),
            (Some(Owner::System) | None, _) => {
                refused("the caller is no process of a tenant".to_owned())
            }
        }
    }

    async fn owner(&self, caller: Caller) -> Option<Owner> {
        let mut observer = self.observer.lock().await;
        if observer.is_none() {
            // The configuration was checked when the agent started.
            let mut fresh = Observer::new(&self.attribution, Some(&self.state)).ok()?;
            fresh.names_asked(CREATORS).await;
            // Being under a lease says whose a process is, and not for whom it may ask: the token by which it was taken may count no more.
            *observer = Some(fresh);
        }
        let observer = observer.as_mut()?;
        let look = |observer: &mut Observer| {
            let (start_time, owner) = observer.owner_of(caller.pid, boottime_ms())?;
            // Another process got the number.
            start_time
                .is_none_or(|it| it == caller.start_time)
                .then_some(owner)
        };
        let first = look(observer);
        match observer.answered(CREATORS).await {
            true => look(observer),
            false => first,
        }
    }

    // Before anything is leased: whether the command could start at all.
    async fn able(&self) -> Result<(), Answer> {
        let away = |why: String| Err(Answer::Away { why });
        match self.order(Order::Can).await {
            Ok(Reply::Able { enclose: true, .. }) => Ok(()),
            Ok(Reply::Able { lacking, .. }) => away(format!(
                "this node cannot keep a command to its GPUs: {}",
                lacking.join("; ")
            )),
            Ok(_) => away("the privileged half answers something else".to_owned()),
            Err(why) => away(format!("the privileged half does not answer: {why}")),
        }
    }

    async fn order(&self, order: Order) -> Result<Reply, String> {
        let turn = self.orders.acquire().await;
        let _turn = turn.map_err(|error| error.to_string())?;
        self.hands.ask(order).await
    }

    // Returns once the policy that the agent acts by knows the lease.
    async fn policy_with(&self, lease: &Lease, tenant: &str) -> u64 {
        loop {
            let acted = self.dialogue.acted();
            if let Some(policy) = self.acted_by().filter(|it| knows(it, lease, tenant)) {
                return policy.version.row;
            }
            acted.await;
        }
    }

    fn acted_by(&self) -> Option<Arc<Policy>> {
        let by = self.dialogue.acted_by();
        match self.dialogue.standing(boottime_ms()) {
            Standing::Valid(policy) if by == Some(policy.version) => Some(policy),
            Standing::Valid(_) | Standing::Ended(_) | Standing::Never => None,
        }
    }

    fn needed(&self, lease: &Lease) -> Result<Needed, Answer> {
        let seen = self.seen.borrow().clone();
        let seen = seen.ok_or_else(|| Answer::Away {
            why: "the agent has read no GPU yet".to_owned(),
        })?;
        needed(&seen, &self.proc_root, &lease.devices).map_err(|why| Answer::Away { why })
    }

    async fn enclose(
        &self,
        caller: Caller,
        lease: &Lease,
        allow: Vec<String>,
        version: u64,
    ) -> Result<String, Answer> {
        let order = Order::Enclose {
            who: Identity {
                pid: caller.pid,
                start_time: caller.start_time,
                boot_id: self.boot_id.clone(),
            },
            lease: lease.number,
            allow,
            version,
        };
        match self.order(order).await {
            Ok(Reply::Enclosed { group }) => Ok(group),
            Ok(Reply::Refused { detail } | Reply::Gone { detail }) => {
                Err(Answer::Refused { why: detail })
            }
            Ok(Reply::Failed { detail } | Reply::Impossible { detail }) | Err(detail) => {
                Err(Answer::Away {
                    why: format!("the command cannot be kept to its GPUs: {detail}"),
                })
            }
            Ok(Reply::Done | Reply::Able { .. } | Reply::Restricted { .. }) => Err(Answer::Away {
                why: "the privileged half answers something else".to_owned(),
            }),
        }
    }
}

// Before anything is leased for it; the privileged half looks again.
fn under_none(caller: Caller) -> Result<(), Answer> {
    let text = ProcessFolder::open(caller.pid).and_then(|folder| folder.cgroup());
    let unit = text.ok().and_then(|text| membership(&text).unit);
    match unit.filter(|unit| unit.starts_with(SCOPE_PREFIX)) {
        None => Ok(()),
        Some(unit) => Err(Answer::Refused {
            why: format!("it runs under a lease already, in {unit}"),
        }),
    }
}

// As the server's rule for models is at its widest; the longest is what a book of many askings has room for.
fn is_model(text: &str) -> bool {
    (1..=253).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

fn knows(policy: &Policy, lease: &Lease, tenant: &str) -> bool {
    policy.grants.get(&lease.number).is_some_and(|grant| {
        grant.epoch == lease.epoch
            && grant.tenant == tenant
            && !lease.devices.is_empty()
            && lease.devices.iter().all(|key| grant.devices.contains(key))
    })
}
