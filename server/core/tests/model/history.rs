//! Random histories over a small world, so that names, references, nodes and devices collide often. A step is drawn
//! without knowing the state and made a command by it: "the number after the last one", "the quota there is".

use std::collections::BTreeSet;

use gpuquota_core::Command;
use gpuquota_core::command::{
    DeclareNode, OnExcess, QuotaName, ReleaseQuota, SetQuota, SwitchQuota,
};
use gpuquota_core::event::SilenceReason;
use gpuquota_core::id::{NodeName, QuotaId, Reference, Region, Seq, SessionId, Timestamp};
use gpuquota_core::limit::Limit;
use gpuquota_core::quota::QuotaType;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::lease_history::{LeaseAct, lease_act};
use crate::reference::{DAY, Entitled, Naive};
use crate::saying::{Saying, saying};
use crate::world::{
    NODES, REGIONS, TENANTS, TOKENS, any_source, limit, model, node, region, tenant,
};

/// One thing to try, so many milliseconds after the one before.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) wait: i64,
    pub(crate) op: Option<u8>,
    act: Act,
}

#[derive(Clone, Debug)]
enum Act {
    Set(Naming, Limit, Option<i64>, Option<BTreeSet<NodeName>>),
    Release(Naming, bool, bool),
    Switch(Index, bool),
    Declare(NodeName, Region),
    Open(NodeName, Region),
    Report(Saying),
    Silent(NodeName, u64),
    Heard(NodeName, u64),
    Revoke(usize, i64),
    Sweep,
    Note,
    Lease(LeaseAct),
}

/// A name of its own, or that of a quota there is, whose limit and end may be meant to stay.
#[derive(Clone, Debug)]
struct Naming {
    known: Option<Index>,
    keep_type: bool,
    keep_terms: bool,
    own: QuotaName,
}

/// Steps to try one after the other.
pub(crate) fn history(steps: usize) -> impl Strategy<Value = Vec<Step>> {
    let opening = (prop::bool::weighted(0.9), vec(naming(), 0..4), 0..4_u32);
    let opening = opening.prop_map(|(opened, quotas, num)| {
        let nodes = NODES.iter().filter(|_| opened);
        let opens = nodes.map(|n| Act::Open(node(n), region("bj")));
        // Something to give away, and quotas to give it by.
        let reports = (0..NODES.len()).filter(|_| opened && num > 0);
        let reports = reports.map(|node| Act::Report(Saying::all_free(node)));
        let quotas = quotas.into_iter();
        let quotas = quotas.map(|naming| Act::Set(naming, Limit::Finite(num), None, None));
        let acts = opens.chain(reports).chain(quotas);
        acts.map(|act| Step {
            wait: 1,
            op: None,
            act,
        })
        .collect()
    });
    (opening, vec(step(), 1..steps)).prop_map(|(mut opening, rest): (Vec<Step>, _)| {
        opening.extend(rest);
        opening
    })
}

fn step() -> impl Strategy<Value = Step> {
    let wait = prop_oneof![
        30 => 0..3_i64, 4 => Just(99), 4 => Just(100), 1 => Just(DAY / 2), 1 => Just(DAY - 1), 1 => Just(DAY),
    ];
    let op = option::weighted(0.2, 0..3_u8);
    (wait, op, act()).prop_map(|(wait, op, act)| Step { wait, op, act })
}

fn act() -> impl Strategy<Value = Act> {
    let end = option::weighted(0.4, select(vec![-1, 0, 1, 2, 100, DAY / 2]));
    let nodes = option::weighted(0.25, prop::collection::btree_set(any_node(), 0..3));
    let behind = prop_oneof![5 => Just(0), 1 => Just(1_u64)];
    prop_oneof![
        10 => (naming(), limit(), end, nodes).prop_map(|(n, l, e, on)| Act::Set(n, l, e, on)),
        4 => (naming(), any::<bool>(), any::<bool>()).prop_map(|(n, f, m)| Act::Release(n, f, m)),
        3 => (any::<Index>(), any::<bool>()).prop_map(|(q, a)| Act::Switch(q, a)),
        1 => (any_node(), any_region()).prop_map(|(n, r)| Act::Declare(n, r)),
        1 => (any_node(), any_region()).prop_map(|(n, r)| Act::Open(n, r)),
        14 => saying().prop_map(Act::Report),
        1 => (any_node(), behind.clone()).prop_map(|(n, b)| Act::Silent(n, b)),
        1 => (any_node(), behind).prop_map(|(n, b)| Act::Heard(n, b)),
        1 => (0..2_usize, select(vec![-1, 0, 1, 5, 100, DAY])).prop_map(|(t, e)| Act::Revoke(t, e)),
        20 => lease_act().prop_map(Act::Lease),
        1 => Just(Act::Sweep),
        1 => Just(Act::Note),
    ]
}

fn any_node() -> impl Strategy<Value = NodeName> + Clone {
    select(NODES.to_vec()).prop_map(node)
}

fn any_region() -> impl Strategy<Value = Region> {
    prop_oneof![4 => Just(region(REGIONS[0])), 1 => Just(region(REGIONS[1]))]
}

fn any_type() -> impl Strategy<Value = QuotaType> {
    use QuotaType::{Dedicated, Flexible, Mig, Vgpu};
    select(vec![Dedicated, Flexible, Mig, Vgpu])
}

fn naming() -> impl Strategy<Value = Naming> {
    let models = [
        "nvidia.com/gpu",
        "nvidia.com/mig-1g.10gb",
        "nvidia.com/mig-1c10g",
        "tyui-3",
    ];
    let own = (
        prop_oneof![Just(TENANTS[0]), select(TENANTS.to_vec())],
        any_region(),
        any_source(),
        select(models.to_vec()),
        option::weighted(0.2, any_type()),
        option::weighted(0.3, (0..3_u32).prop_map(Reference)),
    );
    let known = option::weighted(0.5, any::<Index>());
    let own = own.prop_map(|(t, region, source, m, quota_type, reference)| QuotaName {
        tenant: tenant(t),
        region,
        source,
        gpu_model: model(m),
        quota_type,
        reference,
    });
    let kept = (prop::bool::weighted(0.8), prop::bool::weighted(0.3));
    (known, kept, own).prop_map(|(known, (keep_type, keep_terms), own)| Naming {
        known,
        keep_type,
        keep_terms,
        own,
    })
}

impl Step {
    /// The command that this step means where the ledger stands now.
    pub(crate) fn command(&self, ledger: &Naive, now: Timestamp) -> Command {
        let session = |node: &NodeName, behind: u64| {
            let host = ledger.hosts.iter().find(|h| h.name == *node);
            SessionId(host.map_or(0, |h| h.session).saturating_sub(behind))
        };
        match &self.act {
            Act::Set(naming, limit, end, nodes) => {
                let stays = naming.known(ledger).filter(|_| naming.keep_terms);
                let end = end.map(|ms| Timestamp(now.0 + ms));
                Command::SetQuota(SetQuota {
                    name: naming.resolve(ledger),
                    limit: stays.map_or(*limit, |quota| quota.limit),
                    expires_at: stays.map_or(end, |quota| quota.end),
                    nodes: nodes.clone(),
                    on_excess: OnExcess::Deny,
                })
            }
            Act::Release(naming, forced, must_exist) => Command::ReleaseQuota(ReleaseQuota {
                name: naming.resolve(ledger),
                forced: *forced,
                must_exist: *must_exist,
            }),
            Act::Switch(at, active) => Command::SwitchQuota(SwitchQuota {
                quota: QuotaId(at.index(ledger.quotas.len() + 1) as u64),
                active: *active,
                on_excess: OnExcess::Deny,
            }),
            Act::Declare(node, region) => {
                Command::DeclareNode(DeclareNode::at(node.clone(), region.clone()))
            }
            Act::Open(node, default_region) => Command::OpenSession {
                node: node.clone(),
                default_region: default_region.clone(),
                boot_id: "boot".into(),
                agent_version: "1".into(),
            },
            Act::Report(saying) => Command::Report(saying.resolve(ledger, session)),
            Act::Silent(node, behind) => Command::MarkSilent {
                node: node.clone(),
                session: session(node, *behind),
                reason: SilenceReason::Timeout,
            },
            Act::Heard(node, behind) => Command::MarkHeard {
                node: node.clone(),
                session: session(node, *behind),
            },
            Act::Revoke(token, end) => Command::RevokeToken {
                token: TOKENS[*token].into(),
                until: Timestamp(now.0 + end),
            },
            Act::Lease(act) => act.command(ledger, session),
            Act::Sweep => Command::Sweep,
            Act::Note => Command::NoteSnapshot {
                seq: Seq(1),
                digest: "00".into(),
            },
        }
    }
}

impl Naming {
    fn known<'a>(&self, ledger: &'a Naive) -> Option<&'a Entitled> {
        let known = self.known.filter(|_| !ledger.quotas.is_empty())?;
        Some(known.get(&ledger.quotas))
    }

    fn resolve(&self, ledger: &Naive) -> QuotaName {
        let Some(quota) = self.known(ledger) else {
            return self.own.clone();
        };
        QuotaName {
            tenant: quota.tenant.clone(),
            region: quota.region.clone(),
            source: quota.source,
            gpu_model: quota.model.clone(),
            quota_type: Some(quota.quota_type)
                .filter(|_| self.keep_type)
                .or(self.own.quota_type),
            reference: if self.keep_type {
                self.own.reference
            } else {
                quota.reference
            },
        }
    }
}
