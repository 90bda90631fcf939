//! What must hold of usage whatever the quotas and devices are.

use std::collections::BTreeSet;

use gpuquota_core::Command;
use gpuquota_core::command::{NodeReport, OnExcess, QuotaName, SetQuota};
use gpuquota_core::device::{DeviceHealth, DeviceKey, DeviceReport};
use gpuquota_core::id::{QuotaId, Seq, SessionId, TenantName, Timestamp};
use gpuquota_core::limit::Limit;
use gpuquota_core::profile::CanonicalModel;
use gpuquota_core::quota::{Quota, QuotaKey, QuotaType};
use gpuquota_core::usage::{Usage, ViolationClass, usage, usage_with};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::world::{any_source, limit, model, node, region, seen, seen_at, tenant};
use crate::{Ledger, START, cases};

/// A full GPU that `tenants` hold.
pub(crate) fn held_gpu(uuid: &str, tenants: &[&str]) -> DeviceReport {
    DeviceReport {
        key: DeviceKey::gpu(uuid).unwrap(),
        health: DeviceHealth::Ok,
        model: "H100".into(),
        gpu_model: model("nvidia.com/gpu"),
        profile: None,
        memory_total_bytes: None,
        partitioned: false,
        tenants: tenants.iter().map(|name| tenant(name)).collect(),
        unattributed: false,
        licence: None,
        licence_expires_at: None,
        vm: None,
        parent: None,
        numa: None,
        nvlink: None,
    }
}

/// Read after all that has happened.
pub(crate) const NOW: Seq = Seq(u64::MAX);

/// A full report of a node's first session, read now.
pub(crate) fn full_report(name: &str, number: u64, devices: Vec<DeviceReport>) -> NodeReport {
    NodeReport {
        node: node(name),
        session: SessionId(1),
        spool: "s".into(),
        number,
        age_ms: Some(0),
        heard_at: None,
        read_after: Some(NOW),
        full: true,
        facts: None,
        devices,
        gone: Vec::new(),
    }
}

/// A ledger where these nodes have opened their first session in region bj.
pub(crate) fn with_nodes(names: &[&str]) -> Ledger {
    let mut ledger = Ledger::default();
    for name in names {
        let open = Command::OpenSession {
            node: node(name),
            default_region: region("bj"),
            boot_id: "b".into(),
            agent_version: "1".into(),
        };
        ledger.ask(&open, START, None);
    }
    ledger
}

// Quotas of tenant red as they could stand in a ledger; which of them fit what is left to chance.
fn quotas(most: usize) -> impl Strategy<Value = Vec<Quota>> {
    let types = vec![
        QuotaType::Flexible,
        QuotaType::Flexible,
        QuotaType::Mig,
        QuotaType::Dedicated,
    ];
    let models = vec![
        "nvidia.com/gpu",
        "nvidia.com/gpu",
        "nvidia.com/mig-1c10g",
        "1g.10gb",
    ];
    let nodes = prop::collection::btree_set(select(vec!["n0", "n1"]), 1..=2);
    let end = option::of(select(vec![-5_i64, 0, 5, 9]));
    let one = (
        select(types),
        select(models),
        any_source(),
        limit(),
        end,
        nodes,
    );
    vec(one, 0..most).prop_map(|rows| rows.into_iter().zip(0..).map(quota).collect())
}

type Drawn = (
    QuotaType,
    &'static str,
    gpuquota_core::quota::QuotaSource,
    Limit,
    Option<i64>,
    BTreeSet<&'static str>,
);

fn quota((row, id): (Drawn, u64)) -> Quota {
    let (quota_type, name, source, limit, end, nodes) = row;
    let dedicated = quota_type == QuotaType::Dedicated;
    Quota {
        id: QuotaId(id),
        model: CanonicalModel::of(&model(name)),
        key: QuotaKey {
            tenant: tenant("red"),
            region: region("bj"),
            source,
            quota_type,
            gpu_model: model(name),
        },
        limit,
        expires_at: end.map(|ms| Timestamp(START.0 + ms)),
        expired: end.is_some_and(|ms| ms <= 0),
        switched_off: false,
        reference: None,
        nodes: nodes.into_iter().filter(|_| dedicated).map(node).collect(),
        noticed: None,
        enforcement: None,
        created_at: START,
        updated_at: START,
    }
}

// Twelve devices on two nodes, with holders.
fn holding() -> impl Strategy<Value = Ledger> {
    vec(seen(), 0..12).prop_map(|drawn| {
        let mut ledger = with_nodes(&["n0", "n1"]);
        let (mut even, mut odd) = (Vec::new(), Vec::new());
        for (at, seen) in drawn.iter().enumerate() {
            let uuid = format!("GPU-{at}");
            let key = if at % 3 == 2 {
                DeviceKey::mig(&uuid, 1, 3)
            } else {
                DeviceKey::gpu(&uuid)
            };
            let half = if at % 2 == 0 { &mut even } else { &mut odd };
            half.push(seen_at(key.unwrap(), seen));
        }
        ledger.ask(&Command::Report(full_report("n0", 1, even)), START, None);
        ledger.ask(&Command::Report(full_report("n1", 1, odd)), START, None);
        ledger
    })
}

fn of(ledger: &Ledger, quotas: &[Quota]) -> Usage {
    let quotas: Vec<&Quota> = quotas.iter().collect();
    usage_with(&ledger.state, &tenant("red"), &quotas)
}

fn countable(ledger: &Ledger, tenant: &TenantName) -> u64 {
    ledger
        .state
        .devices_of(tenant)
        .filter(|(_, device)| !device.report.partitioned)
        .map(|_| 1)
        .sum()
}

fn of_class(usage: &Usage, class: ViolationClass) -> u64 {
    usage
        .violations
        .iter()
        .filter(|v| v.class == class)
        .map(|_| 1)
        .sum()
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn each_held_device_counts_once(ledger in holding(), quotas in quotas(6)) {
        let usage = of(&ledger, &quotas);
        let squatters = of_class(&usage, ViolationClass::Squatter);
        let charged: u64 = usage.used.values().sum();
        prop_assert_eq!(charged + squatters, countable(&ledger, &tenant("red")));
        prop_assert_eq!(usage.used.len(), quotas.len());
        let over = of_class(&usage, ViolationClass::OverQuota);
        prop_assert_eq!(usage.excess(), squatters + over);
        prop_assert!(usage.excess_in().values().all(|count| *count > 0));
        // What quotas grant is never exceeded by what is justified.
        let granted = quotas.iter().map(|quota| match quota.grants() {
            Limit::Unlimited => usage.of(quota.id),
            Limit::Finite(limit) => usage.of(quota.id).min(limit.into()),
        });
        prop_assert_eq!(granted.sum::<u64>() + over, charged);
    }

    #[test]
    fn a_further_quota_of_the_region_never_adds_excess(ledger in holding(), quotas in quotas(7)) {
        if let Some((last, before)) = quotas.split_last()
            && (last.key.quota_type != QuotaType::Dedicated || last.expired)
        {
            prop_assert!(of(&ledger, &quotas).excess() <= of(&ledger, before).excess());
        }
    }

    #[test]
    fn an_expired_quota_grants_nothing(ledger in holding(), quotas in quotas(7)) {
        let live: Vec<Quota> = quotas.iter().filter(|quota| !quota.expired).cloned().collect();
        let (all, without) = (of(&ledger, &quotas), of(&ledger, &live));
        prop_assert_eq!(all.excess(), without.excess());
        for quota in &live {
            prop_assert_eq!(all.of(quota.id), without.of(quota.id));
        }
    }

    #[test]
    fn the_order_in_which_quotas_come_is_of_no_matter(
        ledger in holding(),
        (quotas, mixed) in quotas(6).prop_flat_map(|q| (Just(q.clone()), Just(q).prop_shuffle())),
    ) {
        prop_assert_eq!(of(&ledger, &quotas), of(&ledger, &mixed));
    }

    #[test]
    fn many_devices_cost_what_each_costs(devices in 1..9_usize, most in limit(), apart: bool) {
        let mut ledger = with_nodes(&["n0"]);
        let set = Command::SetQuota(SetQuota {
            name: QuotaName {
                tenant: tenant("red"),
                region: region("bj"),
                source: gpuquota_core::quota::QuotaSource::Purchase,
                gpu_model: model("nvidia.com/gpu"),
                quota_type: None,
                reference: None,
            },
            limit: most,
            expires_at: None,
            nodes: None,
            on_excess: OnExcess::Deny,
        });
        ledger.ask(&set, START, None);
        let gpus: Vec<_> = (0..devices).map(|at| held_gpu(&format!("GPU-{at}"), &["red", "blue"])).collect();
        if apart {
            let mut number = 0;
            for gpu in gpus {
                number += 1;
                let one = NodeReport { full: number == 1, ..full_report("n0", number, vec![gpu]) };
                ledger.ask(&Command::Report(one), START, None);
                let so_far = usage(&ledger.state, &tenant("red"));
                prop_assert_eq!(so_far.of(QuotaId(0)), number, "each adds what the first did");
            }
        } else {
            ledger.ask(&Command::Report(full_report("n0", 1, gpus)), START, None);
        }
        let count = u64::try_from(devices).unwrap();
        let (red, blue) = (usage(&ledger.state, &tenant("red")), usage(&ledger.state, &tenant("blue")));
        prop_assert_eq!(red.of(QuotaId(0)), count);
        let over = match most {
            Limit::Unlimited => 0,
            Limit::Finite(limit) => count.saturating_sub(limit.into()),
        };
        prop_assert_eq!((red.excess(), blue.excess()), (over, count));
    }
}
