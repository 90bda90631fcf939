//! Asks the kernel, and whoever made a workload, about each process of a reading.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::config::AttributionConfig;
use super::creators::{Patience, Resolver};
use super::observe::{Names, observe};
use super::rule::ConfigError;
use super::rules::{Attributor, Evidence};
use super::vm::VmRules;
use crate::gpu::sampler::Collected;
use crate::observation::{Observation, Owner, Reason};
use crate::process::facts::{FactsCache, Told};
use crate::process::procfs::pids_are_the_hosts;
use crate::registered::Registered;

/// `/proc` could be mounted anew while the agent runs; looks between two checks that it is the host's.
const RECHECK_LOOKS: u32 = 60;

/// Turns readings into observations.
#[derive(Debug)]
pub struct Observer {
    attributor: Attributor,
    models: BTreeMap<String, String>,
    vms: VmRules,
    facts: FactsCache,
    registered: Option<Registered>,
    creators: Resolver,
    /// What the driver calls a pid is another process here, or may be.
    foreign: bool,
    looks: u32,
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
        for user in attributor.unresolved() {
            tracing::warn!(
                user,
                "an attribution rule names a user or group that this host does not know; it matches nobody"
            );
        }
        let foreign = !pids_are_the_hosts();
        if foreign {
            tracing::error!(
                "this is not the host's pid namespace, so the driver's pids are other processes here and none is given to a \
                 tenant: run the agent on the host, or its container with the host's pid namespace (hostPID, --pid=host)"
            );
        }
        Ok(Self {
            facts: FactsCache::new(attributor.system_uids().to_vec()),
            registered: dir
                .filter(|_| attributor.uses_registered())
                .map(Registered::new),
            models: config.gpu_model.clone(),
            vms: VmRules::new(&config.vms)?,
            creators: Resolver::new(&config.creators, &attributor.wanted(), patience),
            attributor,
            foreign,
            looks: 0,
        })
    }

    /// Why the table of registered processes is ignored, if it is.
    #[must_use]
    pub fn registered_problem(&self) -> Option<&str> {
        self.registered.as_ref().and_then(Registered::problem)
    }

    /// Waits until everybody who was asked about a container, pod or job has answered, but not longer than this. Whether
    /// anybody had been asked.
    pub async fn answered(&self, longest: Duration) -> bool {
        self.creators.settled(longest).await
    }

    /// Asks the kernel about each process of the reading. `previous` is what this returned last.
    pub fn observe(
        &mut self,
        collected: Collected,
        previous: Option<&Observation>,
        at_boottime_ms: u64,
    ) -> Observation {
        if let Some(registered) = &mut self.registered {
            registered.refresh();
        }
        if self.looks.is_multiple_of(RECHECK_LOOKS) {
            self.foreign |= !pids_are_the_hosts();
        }
        self.looks = self.looks.wrapping_add(1);
        self.creators.look(at_boottime_ms);
        let Self {
            attributor,
            models,
            vms,
            facts,
            registered,
            creators,
            foreign,
            ..
        } = self;
        let listed_ms = collected.asked_boottime_ms;
        let mut owner_of = |pid: u32| {
            if *foreign {
                let nobody = Owner::Unattributed(Reason::ForeignPidNamespace);
                return Some((None, nobody));
            }
            match facts.ask(pid, listed_ms, at_boottime_ms) {
                Told::Facts(facts) => {
                    let registered = registered
                        .as_ref()
                        .and_then(|table| table.tenant(pid, facts.start_time));
                    let owner = attributor.attribute(&Evidence {
                        ids: facts.ids,
                        login_uid: facts.login_uid,
                        membership: &facts.membership,
                        workload: &facts.workload,
                        creators,
                        host_executable: facts.host_executable.as_ref(),
                        registered,
                    });
                    Some((Some(facts.start_time), owner))
                }
                Told::JustGone => None,
                Told::StillListed => Some((None, Owner::Unattributed(Reason::Gone))),
                Told::Denied => Some((None, Owner::Unattributed(Reason::Denied))),
            }
        };
        let names = Names { models, vms };
        let observation = observe(collected, previous, names, &mut owner_of, at_boottime_ms);
        facts.end_look();
        observation
    }
}
