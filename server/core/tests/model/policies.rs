//! Policies of nodes against what the ledger finds: every verdict is a violation, every violation a verdict, and whoever
//! keeps what was found is told of every node whose policy became another.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::State;
use gpuquota_core::enforcement::Mode;
use gpuquota_core::id::{NodeName, TenantName, Timestamp};
use gpuquota_core::policy::{Held, Kept, NodePolicy, policy, policy_with};
use gpuquota_core::usage::usage;

/// What each node was told, as its session would have been.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    kept: Kept,
    told: BTreeMap<NodeName, NodePolicy>,
}

impl Policies {
    /// Called after each row.
    pub(crate) fn follow(&mut self, state: &State, now: Timestamp) {
        let woken = self.kept.follow(state);
        let mut all = BTreeMap::new();
        for (name, _) in state.nodes() {
            let fresh = policy(state, name, now).unwrap();
            judge(state, name, &fresh);
            let kept = policy_with(state, name, now, &mut |tenant| {
                self.kept.found(state, tenant)
            });
            assert_eq!(
                kept.as_ref(),
                Some(&fresh),
                "{name}: what is kept is not so"
            );
            let woke = woken.as_ref().is_none_or(|woken| woken.contains(name));
            let same = self.told.get(name) == Some(&fresh);
            assert!(woke || same, "{name} was not woken");
            all.insert(name.clone(), fresh);
        }
        self.told = all;
    }
}

fn judge(state: &State, name: &NodeName, policy: &NodePolicy) {
    let node = state.node(name).unwrap();
    let said: Vec<_> = policy
        .verdicts
        .iter()
        .map(|it| (it.tenant.clone(), it.device.clone(), it.class))
        .collect();
    let mut found = BTreeSet::new();
    for tenant in state.holders() {
        for violation in usage(state, tenant).violations {
            if violation.node == *name {
                found.insert((tenant.clone(), violation.device, violation.class));
            }
        }
    }
    assert!(said.is_sorted(), "the order follows from what is said");
    assert_eq!(
        said.iter().cloned().collect::<BTreeSet<_>>(),
        found,
        "{name}"
    );
    assert_eq!(said.len(), found.len(), "a verdict is said twice");
    for verdict in &policy.verdicts {
        let device = state.device(&verdict.device).unwrap();
        let mode = verdict.ladder.mode;
        assert!(node.told() || mode == Mode::Observe, "{verdict:?}");
        assert!(
            device.report.readable() || mode <= Mode::Warn,
            "{verdict:?}"
        );
        let chosen = state
            .enforcement(&verdict.tenant, &node.region, verdict.quota)
            .0
            .mode;
        assert_eq!(mode == chosen, verdict.held.is_none(), "{verdict:?}");
        if let Some(Held::Leased(lease)) = verdict.held {
            assert!(state.lease(lease).unwrap().active());
        }
    }
    assert!(policy.others.mode <= Mode::Warn);
    assert!(node.told() || policy.unattributed.mode == Mode::Observe);
    // What lowers it for a while does not change what was chosen.
    let (regional, _) = state.regional_enforcement(&node.region);
    let chosen = state.settings().enforcing.unattributed.min(regional.mode);
    assert_eq!(policy.unattributed_chosen, chosen);
    // Nobody is kept off by a rule whom the ledger justifies.
    for rule in &policy.rules {
        let device = state.device(&rule.device).unwrap();
        assert_eq!(device.node, *name);
        let off = device.holders.keys().filter(|it| !rule.only.contains(*it));
        for tenant in off {
            let against = |it: &(TenantName, _, _)| it.0 == *tenant && it.1 == rule.device;
            assert!(found.iter().any(against), "{tenant} is kept off {rule:?}");
        }
    }
    for grant in &policy.grants {
        let lease = state.lease(grant.lease).unwrap();
        assert!(lease.active() && !grant.devices.is_empty());
    }
}
