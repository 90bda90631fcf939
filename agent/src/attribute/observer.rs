//! Asks the kernel, and whoever made a workload, about each process of a reading.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::config::AttributionConfig;
use super::creators::{Patience, Resolver};
use super::names::{Asker, EVERY, NamedId};
use super::observe::{Found, Names, observe};
use super::rule::ConfigError;
use super::rules::{Attributor, Evidence};
use super::vm::VmRules;
use crate::gpu::sampler::Collected;
use crate::leased::Leased;
use crate::observation::{Observation, Owner, Reason};
use crate::process::facts::{FactsCache, Told};
use crate::process::procfs::{Ids, pids_are_the_hosts};
use crate::process::subordinate::{Lent, Subordinate};
use crate::registered::Registered;

/// `/proc` could be mounted anew while the agent runs; looks between two checks that it is the host's.
const RECHECK_LOOKS: u32 = 60;
/// Where the host says which ids it lends.
const ETC: &str = "/etc";

/// Turns readings into observations.
#[derive(Debug)]
pub struct Observer {
    processes: Processes,
    models: BTreeMap<String, String>,
    vms: VmRules,
    /// While users or groups of the rules are not known.
    names: Option<Asker>,
    unresolved: Arc<BTreeSet<NamedId>>,
    looks: u32,
}

/// All that says whose a process is.
#[derive(Debug)]
struct Processes {
    attributor: Attributor,
    facts: FactsCache,
    subordinate: Subordinate,
    registered: Option<Registered>,
    leased: Arc<Leased>,
    creators: Resolver,
    /// What the driver calls a pid is another process here, or may be.
    foreign: bool,
}

impl Observer {
    /// `dir` is the agent's state directory, where the table of registered processes lies. Where rules ask a container
    /// runtime, a kubelet or Slurm, this must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When a rule of the configuration is unclear.
    pub fn new(config: &AttributionConfig, dir: Option<&Path>) -> Result<Self, ConfigError> {
        Self::with_patience(config, dir, Patience::default())
    }

    /// The same with other times of asking.
    ///
    /// # Errors
    /// When a rule of the configuration is unclear.
    pub fn with_patience(
        config: &AttributionConfig,
        dir: Option<&Path>,
        patience: Patience,
    ) -> Result<Self, ConfigError> {
        let attributor = Attributor::new(config)?;
        let unresolved = attributor.unresolved();
        let names = Asker::start(
            unresolved.clone(),
            &attributor.unknown(),
            EVERY,
            NamedId::look_up,
        );
        let foreign = !pids_are_the_hosts();
        if foreign {
            tracing::error!(
                "this is not the host's pid namespace, so the driver's pids are other processes here and none is given to a \
                 tenant: run the agent on the host, or its container with the host's pid namespace (hostPID, --pid=host)"
            );
        }
        let processes = Processes {
            facts: FactsCache::new(attributor.system_uids().to_vec()),
            subordinate: Subordinate::read(Path::new(ETC)),
            registered: dir
                .filter(|_| attributor.uses_registered())
                .map(Registered::new),
            leased: Arc::default(),
            creators: Resolver::new(&config.creators, &attributor.wanted(), patience),
            attributor,
            foreign,
        };
        Ok(Self {
            processes,
            models: config.gpu_model.clone(),
            vms: VmRules::new(&config.vms)?,
            names,
            unresolved: Arc::new(unresolved),
            looks: 0,
        })
    }

    /// What runs under leases is whose they are.
    #[must_use]
    pub fn with_leased(mut self, leased: Arc<Leased>) -> Self {
        self.processes.leased = leased;
        self
    }

    /// Users and groups of the rules whose ids are not known yet; a process that one of these rules may be about is nobody's.
    #[must_use]
    pub fn unresolved(&self) -> Arc<BTreeSet<NamedId>> {
        Arc::clone(&self.unresolved)
    }

    /// Waits until each user and group that this host's own files do not have was asked for once, but not longer than this.
    /// Whether any was.
    pub async fn names_asked(&mut self, longest: Duration) -> bool {
        let Some(names) = &self.names else {
            return false;
        };
        let asked = !names.went_round();
        let round = async {
            while !names.went_round() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(longest, round).await;
        self.take_names();
        for name in self.unresolved.iter() {
            tracing::warn!(
                %name,
                "an attribution rule names what this host does not know; it is asked again each minute, and until then what the \
                 rule may be about is nobody's"
            );
        }
        asked
    }

    fn take_names(&mut self) {
        let Some(names) = &self.names else { return };
        let ended = names.ended();
        let found = names.take();
        if !found.is_empty() {
            for (name, id) in found {
                tracing::info!(%name, id, "of an attribution rule is known");
                self.processes.attributor.resolve(&name, id);
            }
            let Processes {
                attributor, facts, ..
            } = &mut self.processes;
            self.unresolved = Arc::new(attributor.unresolved());
            facts.set_system_uids(attributor.system_uids());
        }
        if ended {
            self.names = None;
        }
    }

    /// Why the table of registered processes is ignored, if it is.
    #[must_use]
    pub fn registered_problem(&self) -> Option<&str> {
        let registered = self.processes.registered.as_ref();
        registered.and_then(Registered::problem)
    }

    /// Waits until everybody who was asked about a container, pod or job has answered, but not longer than this. Whether
    /// anybody had been asked.
    pub async fn answered(&self, longest: Duration) -> bool {
        self.processes.creators.settled(longest).await
    }

    /// Asks the kernel about each process of the reading. `previous` is what this returned last.
    pub fn observe(
        &mut self,
        collected: Collected,
        previous: Option<&Observation>,
        at_boottime_ms: u64,
    ) -> Observation {
        self.begin_look(at_boottime_ms);
        let listed_ms = collected.asked_boottime_ms;
        let Self {
            processes,
            models,
            vms,
            ..
        } = self;
        let mut owner_of = |pid: u32| processes.found(pid, listed_ms, at_boottime_ms);
        let names = Names { models, vms };
        let observation = observe(collected, previous, names, &mut owner_of, at_boottime_ms);
        processes.facts.end_look();
        observation
    }

    /// Whose one process is at the moment, with its start time; `None`: it is there no more.
    pub fn owner_of(&mut self, pid: u32, at_boottime_ms: u64) -> Found {
        self.begin_look(at_boottime_ms);
        let found = self.processes.found(pid, at_boottime_ms, at_boottime_ms);
        self.processes.facts.end_look();
        found
    }

    fn begin_look(&mut self, at_boottime_ms: u64) {
        if let Some(registered) = &mut self.processes.registered {
            registered.refresh();
        }
        if self.looks.is_multiple_of(RECHECK_LOOKS) {
            self.processes.foreign |= !pids_are_the_hosts();
            self.processes.subordinate = Subordinate::read(Path::new(ETC));
        }
        self.looks = self.looks.wrapping_add(1);
        self.take_names();
        self.processes.creators.look(at_boottime_ms);
    }
}

impl Processes {
    fn found(&mut self, pid: u32, listed_ms: u64, at_boottime_ms: u64) -> Found {
        if self.foreign {
            let nobody = Owner::Unattributed(Reason::ForeignPidNamespace);
            return Some((None, nobody));
        }
        match self.facts.ask(pid, listed_ms, at_boottime_ms) {
            Told::Facts(facts) => {
                let registered = self.registered.as_ref();
                let registered = registered.and_then(|table| table.tenant(pid, facts.start_time));
                let leased = self.leased.tenant(&facts.membership);
                let Ids { uids, gid } = facts.ids;
                let lent = if facts.own_user_namespace {
                    self.subordinate.lent(uids.real, gid)
                } else {
                    Lent::default()
                };
                let owner = self.attributor.attribute(&Evidence {
                    ids: facts.ids,
                    lent,
                    login_uid: facts.login_uid,
                    membership: &facts.membership,
                    workload: &facts.workload,
                    creators: &self.creators,
                    host_executable: facts.host_executable.as_ref(),
                    registered,
                    leased: leased.as_deref(),
                });
                Some((Some(facts.start_time), owner))
            }
            Told::JustGone => None,
            Told::StillListed => Some((None, Owner::Unattributed(Reason::Gone))),
            Told::Denied => Some((None, Owner::Unattributed(Reason::Denied))),
        }
    }
}
