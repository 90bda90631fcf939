//! What random histories try with leases, and with what bears on them.

use std::collections::BTreeSet;

use gpuquota_core::Command;
use gpuquota_core::command::{RequestLease, SetTenant};
use gpuquota_core::enforcement::{Enforcement, Enforcing, Mode};
use gpuquota_core::id::{GroupName, LeaseId, NodeName, SessionId, TenantName};
use gpuquota_core::lease::LeasePlacement;
use gpuquota_core::pool::{Accelerator, CardLimitKey};
use gpuquota_core::quota::QuotaType;
use gpuquota_core::settings::{LeaseMode, Settings};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::reference::Naive;
use crate::world::{NODES, TENANTS, any_source, model, node, region, tenant};

/// One thing to try.
#[derive(Clone, Debug)]
pub(crate) enum LeaseAct {
    /// What some quota is about, or what nobody may have a quota of.
    Ask(Option<Index>, Wish),
    Renew(Index, Option<u64>),
    Release(Index, bool),
    Agree(NodeName, u64, Option<u64>),
    Settings(Settings),
    Tenant(
        TenantName,
        Option<bool>,
        Option<bool>,
        Option<Option<LeaseMode>>,
    ),
    Cards(Option<TenantName>, Option<u32>),
}

#[derive(Clone, Debug)]
pub(crate) struct Wish {
    tenant: TenantName,
    quota_type: Option<QuotaType>,
    model: &'static str,
    count: u32,
    placement: LeasePlacement,
    ttl_ms: Option<u64>,
    nodes: BTreeSet<NodeName>,
    most_nodes: Option<u32>,
    spread: bool,
}

pub(crate) fn lease_act() -> impl Strategy<Value = LeaseAct> {
    let who = || select(TENANTS.to_vec()).prop_map(tenant);
    let nodes = || select(NODES.to_vec()).prop_map(node);
    let ttl = || option::weighted(0.6, select(vec![0_u64, 1, 3, 30, 200]));
    let behind = prop_oneof![9 => Just(0), 1 => Just(1_u64)];
    let mode = || select(vec![LeaseMode::Optional, LeaseMode::Required]);
    let settings = (any_source(), mode(), select(vec![1_u64, 5, 100]));
    let settings = settings.prop_map(|(consume_first, lease_mode, confirm_within_ms)| Settings {
        consume_first,
        lease_mode,
        confirm_within_ms,
        ..patient()
    });
    let said = || option::weighted(0.5, prop::bool::weighted(0.3));
    prop_oneof![
        14 => (option::weighted(0.9, any::<Index>()), wish()).prop_map(|(k, w)| LeaseAct::Ask(k, w)),
        3 => (any::<Index>(), ttl()).prop_map(|(l, t)| LeaseAct::Renew(l, t)),
        5 => (any::<Index>(), prop::bool::weighted(0.2)).prop_map(|(l, f)| LeaseAct::Release(l, f)),
        3 => (nodes(), behind, option::weighted(0.8, 0..3_u64)).prop_map(|(n, b, r)| LeaseAct::Agree(n, b, r)),
        1 => settings.prop_map(LeaseAct::Settings),
        2 => (who(), said(), said(), option::of(option::of(mode())))
            .prop_map(|(t, f, c, m)| LeaseAct::Tenant(t, f, c, m)),
        1 => (option::of(who()), option::weighted(0.6, 0..3_u32)).prop_map(|(t, c)| LeaseAct::Cards(t, c)),
    ]
}

fn wish() -> impl Strategy<Value = Wish> {
    use QuotaType::{Dedicated, Flexible, Mig, Vgpu};
    let models = ["nvidia.com/gpu", "nvidia.com/mig-1c10g", "tyui-3"];
    let what = (
        select(TENANTS.to_vec()).prop_map(tenant),
        option::weighted(0.2, select(vec![Dedicated, Flexible, Mig, Vgpu])),
        select(models.to_vec()),
    );
    let count = prop_oneof![1 => Just(0_u32), 12 => Just(1), 9 => Just(2), 4 => Just(3)];
    let placement = prop_oneof![
        3 => Just(LeasePlacement::Devices), 1 => Just(LeasePlacement::CountOnly),
    ];
    let nodes = prop::collection::btree_set(select(NODES.to_vec()).prop_map(node), 1..3);
    let how = (
        count,
        placement,
        option::weighted(0.6, select(vec![0_u64, 1, 3, 30, 200])),
        option::weighted(0.2, nodes).prop_map(Option::unwrap_or_default),
        option::weighted(0.2, 0..3_u32),
        prop::bool::weighted(0.2),
    );
    (what, how).prop_map(|((tenant, quota_type, model), how)| {
        let (count, placement, ttl_ms, nodes, most_nodes, spread) = how;
        Wish {
            tenant,
            quota_type,
            model,
            count,
            placement,
            ttl_ms,
            nodes,
            most_nodes,
            spread,
        }
    })
}

impl LeaseAct {
    /// The command that this means where the ledger stands now.
    pub(crate) fn command(
        &self,
        ledger: &Naive,
        session: impl Fn(&NodeName, u64) -> SessionId,
    ) -> Command {
        let given = |at: &Index| LeaseId(at.index(ledger.promises.len() + 1) as u64 + 1);
        match self {
            Self::Ask(known, wish) => Command::RequestLease(wish.request(*known, ledger)),
            Self::Renew(at, ttl_ms) => Command::RenewLease {
                lease: given(at),
                ttl_ms: *ttl_ms,
                expected: None,
            },
            Self::Release(at, forced) => Command::ReleaseLease {
                lease: given(at),
                forced: *forced,
                expected: None,
            },
            Self::Agree(node, behind, rows_behind) => Command::Agree {
                node: node.clone(),
                session: session(node, *behind),
                read_after: rows_behind.map(|behind| ledger.row_before(behind)),
            },
            Self::Settings(settings) => Command::SetSettings(settings.clone()),
            Self::Tenant(tenant, frozen, confined, lease_mode) => Command::SetTenant(SetTenant {
                tenant: tenant.clone(),
                number: None,
                display_name: None,
                code: None,
                projects: None,
                frozen: *frozen,
                confined: *confined,
                lease_mode: *lease_mode,
                enforcement: None,
            }),
            Self::Cards(tenant, cards) => {
                let key = CardLimitKey {
                    group: GroupName::new("H100").unwrap(),
                    tenant: tenant.clone(),
                    accelerator: Accelerator::Gpu,
                };
                Command::SetCardLimit(key, *cards)
            }
        }
    }
}

impl Wish {
    fn request(&self, known: Option<Index>, ledger: &Naive) -> RequestLease {
        let of = known.filter(|_| !ledger.quotas.is_empty());
        let of = of.map(|at| at.get(&ledger.quotas));
        let own = RequestLease::of(
            self.tenant.clone(),
            region("bj"),
            model(self.model),
            self.count,
            self.placement,
        );
        let request = match of {
            Some(quota) => RequestLease {
                tenant: quota.tenant.clone(),
                region: quota.region.clone(),
                gpu_model: quota.model.clone(),
                quota_type: self.quota_type.or(Some(quota.quota_type)),
                ..own
            },
            None => RequestLease {
                quota_type: self.quota_type,
                ..own
            },
        };
        RequestLease {
            ttl_ms: self.ttl_ms,
            nodes: self.nodes.clone(),
            most_nodes: self.most_nodes,
            spread: self.spread,
            ..request
        }
    }
}

/// Settings under which no drain comes to its end: drains have tests of their own.
pub(crate) fn patient() -> Settings {
    Settings {
        drain_notice_ms: 100_000_000_000_000,
        enforcing: evicting(),
        ..Settings::default()
    }
}

/// Nothing lowers a step but what the ledger knows.
pub(crate) fn evicting() -> Enforcing {
    Enforcing {
        usual: Enforcement {
            mode: Mode::Evict,
            ..Enforcement::default()
        },
        unattributed: Mode::Evict,
        ..Enforcing::default()
    }
}
