//! Dedicated quotas of one tenant that share some of their nodes: a choice of devices that they bear is found, and what is
//! charged is charged so that nothing is over needlessly.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::Command;
use gpuquota_core::command::RequestLease;
use gpuquota_core::device::{DeviceKey, DeviceReport};
use gpuquota_core::explanation::{Change, Explanation, Rule};
use gpuquota_core::id::{NodeName, QuotaId};
use gpuquota_core::lease::{Lease, LeasePlacement};
use gpuquota_core::quota::{QuotaSource, QuotaType};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::drain::at;
use crate::examples::{GPU, bought, name, on, put};
use crate::laying;
use crate::leases::{ask_for, free};
use crate::properties::{held_gpu, with_nodes};
use crate::world::{model, node, region, tenant};
use crate::{Ledger, START, cases};

const NODES: [&str; 4] = ["n0", "n1", "n2", "n3"];
const SPELLINGS: [&str; 3] = ["nvidia.com/mig-1g.10gb", "nvidia.com/mig-1c10g", "1g.10gb"];

fn dedicated(count: u32) -> RequestLease {
    RequestLease {
        quota_type: Some(QuotaType::Dedicated),
        ..ask_for("a", count)
    }
}

// One GPU free on each of two nodes. One quota is about both nodes and filled first, the other about the first only.
fn two() -> Ledger {
    let mut ledger = with_nodes(&["n0", "n1"]);
    ledger.say("n0", 1, free(0, 1), START);
    ledger.say("n1", 1, free(1, 2), START);
    ledger
        .put(on(put(bought("a", GPU), 1), &["n0", "n1"]))
        .unwrap();
    let assigned = name("a", QuotaSource::Assign, GPU);
    ledger.put(on(put(assigned, 1), &["n0"])).unwrap();
    ledger
}

#[test]
fn what_is_charged_makes_room_where_another_quota_bears_it_too() {
    let mut ledger = two();
    let lease = ledger.lease(&dedicated(2), START).unwrap();
    assert_eq!(lease.devices.len(), 2);
    assert_eq!(
        (ledger.used("a"), ledger.usage("a").excess()),
        (vec![1, 1], 0)
    );
    // One after the other too: the first is charged elsewhere once the second is there.
    let mut ledger = two();
    let on_first = |nodes: &[&str]| RequestLease {
        nodes: nodes.iter().map(|it| node(it)).collect(),
        ..dedicated(1)
    };
    ledger.lease(&on_first(&["n0"]), START).unwrap();
    assert_eq!(ledger.used("a"), [1, 0]);
    ledger.lease(&on_first(&["n1"]), at(1)).unwrap();
    assert_eq!(
        (ledger.used("a"), ledger.usage("a").excess()),
        (vec![1, 1], 0)
    );
    // Two are over then: the two that came last, wherever they are.
    ledger.say(
        "n0",
        2,
        vec![held_gpu("GPU-0", &["a"]), held_gpu("GPU-2", &["a"])],
        at(2),
    );
    ledger.say(
        "n1",
        2,
        vec![held_gpu("GPU-1", &["a"]), held_gpu("GPU-3", &["a"])],
        at(3),
    );
    let usage = ledger.usage("a");
    let over: Vec<String> = usage
        .violations
        .iter()
        .map(|it| it.device.to_string())
        .collect();
    assert_eq!(
        (usage.excess(), over),
        (2, vec!["GPU-2".to_owned(), "GPU-3".to_owned()])
    );
}

#[test]
fn a_denial_says_how_many_the_quotas_bear_together() {
    let mut ledger = with_nodes(&["n0", "n1"]);
    ledger.say("n0", 1, free(0, 4), START);
    ledger.say("n1", 1, free(4, 5), START);
    ledger.put(on(put(bought("a", GPU), 1), &["n0"])).unwrap();
    let assigned = name("a", QuotaSource::Assign, GPU);
    ledger.put(on(put(assigned, 3), &["n1"])).unwrap();
    let denied = ledger.lease(&dedicated(3), START).unwrap_err();
    assert_eq!(
        (denied.rule, &denied.admit),
        (Rule::OverQuota, &Some(Change::AskFor { count: 2 }))
    );
    assert_eq!(denied.because.len(), 2, "{denied:?}");
    assert!(
        denied.because.iter().all(|it| it.nodes.len() == 1),
        "{denied:?}"
    );
    assert!(
        denied
            .redacted()
            .because
            .iter()
            .all(|it| it.nodes.is_empty())
    );
    ledger.lease(&dedicated(2), START).unwrap();
}

#[test]
fn with_few_nodes_the_best_of_them_together_are_found() {
    let mut ledger = with_nodes(&NODES);
    for (at, count) in [4, 5, 5, 3].into_iter().enumerate() {
        ledger.say(
            NODES[at],
            1,
            (0..count).map(|gi| slice(at, gi)).collect(),
            START,
        );
    }
    let quotas: [Drawn; 4] = [
        (SPELLINGS[0], QuotaSource::Purchase, 2, vec!["n0", "n1"]),
        (SPELLINGS[1], QuotaSource::Purchase, 2, vec!["n0", "n2"]),
        (SPELLINGS[0], QuotaSource::Assign, 1, vec!["n1"]),
        (SPELLINGS[1], QuotaSource::Assign, 1, vec!["n2"]),
    ];
    for (spelling, source, limit, nodes) in quotas {
        ledger
            .put(on(put(name("a", source, spelling), limit), &nodes))
            .unwrap();
    }
    let few = |count| RequestLease {
        gpu_model: model(SPELLINGS[0]),
        most_nodes: Some(2),
        ..dedicated(count)
    };
    // The first node can give four, but then no other can give two more.
    let lease = ledger.lease(&few(6), START).unwrap();
    assert_eq!(lease.nodes(), BTreeSet::from([&node("n1"), &node("n2")]));
}

/// A quota's spelling, source, limit and nodes.
type Drawn = (&'static str, QuotaSource, u32, Vec<&'static str>);

fn quotas() -> impl Strategy<Value = Vec<Drawn>> {
    let source = select(vec![QuotaSource::Purchase, QuotaSource::Assign]);
    let nodes = subsequence(NODES.to_vec(), 1..=3);
    prop::collection::vec((select(SPELLINGS.to_vec()), source, 0..4_u32, nodes), 1..6)
}

fn request() -> impl Strategy<Value = RequestLease> {
    let some = subsequence(NODES.to_vec(), 1..=3);
    let how = (
        1..6_u32,
        option::weighted(0.3, 1..4_u32),
        any::<bool>(),
        option::weighted(0.2, some),
    );
    let numbered = prop::bool::weighted(0.2);
    (how, numbered).prop_map(
        |((count, most_nodes, spread, nodes), numbered)| RequestLease {
            quota_type: Some(QuotaType::Dedicated),
            most_nodes,
            spread,
            nodes: nodes.into_iter().flatten().map(node).collect(),
            ..RequestLease::of(
                tenant("a"),
                region("bj"),
                model(SPELLINGS[0]),
                count,
                match numbered {
                    true => LeasePlacement::CountOnly,
                    false => LeasePlacement::Devices,
                },
            )
        },
    )
}

fn slice(number: usize, gi: usize) -> DeviceReport {
    DeviceReport {
        key: DeviceKey::mig(&format!("GPU-{number}"), u32::try_from(gi).unwrap(), 0).unwrap(),
        gpu_model: model(SPELLINGS[0]),
        ..held_gpu("GPU-0", &[])
    }
}

// The quotas that are about a node, or about everything.
fn fitting(ledger: &Ledger, at: Option<&NodeName>) -> Vec<QuotaId> {
    let quotas = ledger.state.quotas();
    let quotas = quotas.filter(|quota| at.is_none_or(|at| quota.nodes.contains(at)));
    quotas.map(|quota| quota.id).collect()
}

// What the tenant would be charged for, one by one, and whether its quotas bear it.
fn bear(ledger: &Ledger, shares: &BTreeMap<NodeName, usize>, numbers: u32) -> bool {
    let mut things = Vec::new();
    for lease in ledger.state.leases() {
        things.extend(lease.devices.values().map(|at| fitting(ledger, Some(at))));
        things.extend((0..lease.unplaced()).map(|_| fitting(ledger, None)));
    }
    for (at, share) in shares {
        things.extend((0..*share).map(|_| fitting(ledger, Some(at))));
    }
    things.extend((0..numbers).map(|_| fitting(ledger, None)));
    let limit = |limit: gpuquota_core::limit::Limit| match limit {
        gpuquota_core::limit::Limit::Finite(limit) => limit.into(),
        gpuquota_core::limit::Limit::Unlimited => u64::MAX,
    };
    let rooms = ledger
        .state
        .quotas()
        .map(|quota| (quota.id, limit(quota.limit)));
    laying::lay(&things, rooms.collect())
        .iter()
        .all(Option::is_some)
}

// Whether any number of devices of each node would do.
fn possible(ledger: &Ledger, asked: &RequestLease, count: u32) -> bool {
    if asked.placement == LeasePlacement::CountOnly {
        return bear(ledger, &BTreeMap::new(), count);
    }
    let mut free: BTreeMap<NodeName, usize> = BTreeMap::new();
    for (key, device) in ledger.state.devices() {
        let named = asked.nodes.is_empty() || asked.nodes.contains(&device.node);
        let own = !fitting(ledger, Some(&device.node)).is_empty();
        if named && own && ledger.state.lease_on(key).is_none() {
            *free.entry(device.node.clone()).or_default() += 1;
        }
    }
    let mut shares = vec![BTreeMap::new()];
    for (at, free) in free {
        let more = |shares: &BTreeMap<NodeName, usize>| -> Vec<BTreeMap<NodeName, usize>> {
            let with = |share| {
                let mut shares = shares.clone();
                shares.extend((share > 0).then(|| (at.clone(), share)));
                shares
            };
            (0..=free).map(with).collect()
        };
        shares = shares.iter().flat_map(more).collect();
    }
    let most = asked.most_nodes.map_or(NODES.len(), |most| most as usize);
    let mut shares = shares.iter();
    shares.any(|shares| {
        shares.values().sum::<usize>() == count as usize
            && shares.len() <= most
            && bear(ledger, shares, 0)
    })
}

fn judge(ledger: &mut Ledger, asked: &RequestLease, now: i64) {
    let before = Ledger {
        state: ledger.state.clone(),
        ..Ledger::default()
    };
    let answer: Result<Lease, Box<Explanation>> = ledger.lease(asked, at(now));
    let borne = possible(&before, asked, asked.count);
    match answer {
        Ok(lease) => {
            assert!(borne, "{lease:?}");
            let nodes: BTreeSet<&NodeName> = lease.devices.values().collect();
            assert!(
                asked
                    .most_nodes
                    .is_none_or(|most| nodes.len() <= most as usize)
            );
            assert_eq!(ledger.usage("a").excess(), 0);
        }
        Err(because) => {
            assert!(!borne, "{because:?}");
            let told = because.because.iter().all(|it| !it.nodes.is_empty());
            if let (Rule::OverQuota, Some(Change::AskFor { count }), true) =
                (because.rule, &because.admit, told)
            {
                let count = u32::try_from(*count).unwrap();
                assert!(possible(&before, asked, count), "{because:?}");
                assert!(!possible(&before, asked, count + 1), "{because:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn where_dedicated_quotas_overlap_a_choice_that_they_bear_is_found(
        free in prop::collection::vec(0..4_usize, NODES.len()),
        quotas in quotas(),
        requests in prop::collection::vec(request(), 1..5),
    ) {
        let mut ledger = with_nodes(&NODES);
        for (at, free) in free.iter().enumerate() {
            ledger.say(NODES[at], 1, (0..*free).map(|gi| slice(at, gi)).collect(), START);
        }
        for (spelling, source, limit, nodes) in &quotas {
            let set = on(put(name("a", *source, spelling), *limit), nodes);
            ledger.ask(&Command::SetQuota(set), START, None);
        }
        for (asked, now) in requests.iter().zip(1..) {
            judge(&mut ledger, asked, now);
        }
    }
}
