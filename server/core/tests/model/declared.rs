//! What operators declare, and licences: random histories beside a naive count.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::catalogue::ModelEntry;
use gpuquota_core::command::{
    ChangeLicenceQuota, CheckOutSeat, CreateLicenceQuota, SetCounter, SetTenant,
};
use gpuquota_core::device::LicenceState;
use gpuquota_core::explanation::{Change, Explanation};
use gpuquota_core::id::{
    Code, DisplayName, HardwareName, HostResourceName, LicenceQuotaId, ProductId, ProjectId,
    ResourceKind, SeatId, TenantName, TenantNumber, Timestamp,
};
use gpuquota_core::licence::Product;
use gpuquota_core::licence_usage::{licence_usage, licences_used};
use gpuquota_core::limit::Limit;
use gpuquota_core::pool::{Counter, HostLimitKey, HostResource};
use gpuquota_core::{Answer, Command, Denied, Outcome, State};
use proptest::prelude::*;
use proptest::sample::select;

use crate::examples::{bought, put};
use crate::properties::{full_report, with_nodes};
use crate::world::{TENANTS, device, model, seen, seen_at, tenant};
use crate::{Ledger, START, cases};

const PRODUCTS: [u32; 2] = [1, 2];

#[derive(Clone, Debug)]
enum Act {
    Command(Command),
    // Devices 7 and 8 are vGPU instances of the first product's type; who holds them, and are they licensed.
    Vgpus(Vec<&'static str>, bool),
    Wait(i64),
}

fn any_tenant() -> impl Strategy<Value = TenantName> {
    select(TENANTS.to_vec()).prop_map(tenant)
}

fn any_product() -> impl Strategy<Value = ProductId> {
    select(PRODUCTS.to_vec()).prop_map(ProductId)
}

fn any_end() -> impl Strategy<Value = Option<Timestamp>> {
    prop::option::of((-5..40_i64).prop_map(|ms| Timestamp(START.0 + ms)))
}

fn set_tenant() -> impl Strategy<Value = Command> {
    let projects = prop::sample::subsequence(vec!["red", "p1", "p2"], 0..=2);
    let name = any_tenant();
    (
        name,
        prop::option::of(1..6_u32),
        prop::option::of(projects),
        prop::option::of(any::<bool>()),
    )
        .prop_map(|(tenant, number, projects, frozen)| {
            let ids = |list: Vec<&str>| {
                list.into_iter()
                    .map(|id| ProjectId::new(id).unwrap())
                    .collect()
            };
            Command::SetTenant(SetTenant {
                tenant,
                number: number.map(TenantNumber),
                display_name: None,
                code: number.map(|number| Code::new(&format!("C{number}")).unwrap()),
                projects: projects.map(ids),
                frozen,
                confined: None,
                lease_mode: None,
                enforcement: None,
            })
        })
}

fn licence_command() -> impl Strategy<Value = Command> {
    let quota = || (0..6_u64).prop_map(LicenceQuotaId);
    let seat = || (0..8_u64).prop_map(SeatId);
    prop_oneof![
        3 => (1..6_u32, any_product(), 0..4_u32, any_end(), any::<bool>()).prop_map(
            |(number, product, max, expires_at, is_active)| {
                Command::CreateLicenceQuota(CreateLicenceQuota {
                    tenant: TenantNumber(number), product, max, expires_at, is_active,
                })
            }
        ),
        3 => (quota(), prop::option::of(0..4_u32), prop::option::of(any_end()), prop::option::of(any::<bool>()))
            .prop_map(|(quota, max, expires_at, is_active)| {
                Command::ChangeLicenceQuota(ChangeLicenceQuota { quota, max, expires_at, is_active, expected: None })
            }),
        4 => (any_tenant(), any_product(), 1..30_u32).prop_map(|(tenant, product, ttl_ms)| {
            let owner = DisplayName::new("somebody").unwrap();
            Command::CheckOutSeat(CheckOutSeat { tenant, product, owner, ttl_ms })
        }),
        1 => (seat(), 1..30_u32).prop_map(|(seat, ttl_ms)| Command::RenewSeat { seat, ttl_ms }),
        1 => seat().prop_map(Command::ReleaseSeat),
        1 => any_product().prop_map(Command::RemoveProduct),
    ]
}

fn declaration() -> impl Strategy<Value = Command> {
    let c4 = || HostResourceName::new("c4").unwrap();
    prop_oneof![
        2 => any_product().prop_map(|id| Command::SetProduct(Product {
            id,
            name: DisplayName::new("product").unwrap(),
            code: Code::new(&format!("P{}", id.0)).unwrap(),
            vgpu_types: [HardwareName::new(if id.0 == 1 { "H1*" } else { "*-2Q" }).unwrap()].into(),
        })),
        1 => (any_tenant(), prop::option::of(0..3_u32)).prop_map(move |(tenant, limit)| {
            let key = HostLimitKey { tenant, resource: c4() };
            Command::SetHostLimit(key, limit.map(Limit::Finite))
        }),
        1 => Just(Command::SetHostResource(HostResource {
            resource: c4(),
            groups: BTreeSet::new(),
        })),
        1 => Just(Command::RemoveHostResource(c4())),
        1 => (select(vec!["p1", "red"]), prop::option::of(0..3_u32)).prop_map(|(project, used)| {
            Command::SetCounter(SetCounter {
                project: ProjectId::new(project).unwrap(),
                site: None,
                kind: ResourceKind::new("users").unwrap(),
                counter: used.map(|used| Counter { quota: None, used: Some(used), unit: None }),
            })
        }),
        1 => select(vec!["tyui-3", "a100"]).prop_map(|name| Command::SetModel(ModelEntry {
            gpu_model: model(name),
            quota_type: None,
            aliases: [model("shared-alias")].into(),
            hardware: [HardwareName::new("H100").unwrap()].into(),
            profile: None,
        })),
        1 => Just(Command::RemoveModel(model("tyui-3"))),
        2 => (select(TENANTS.to_vec()), select(vec!["tyui-3", "shared-alias"]), 0..3_u32)
            .prop_map(|(who, what, num)| Command::SetQuota(put(bought(who, what), num))),
    ]
}

fn history() -> impl Strategy<Value = Vec<Act>> {
    let held = prop::sample::subsequence(TENANTS.to_vec(), 0..=2);
    let act = prop_oneof![
        3 => set_tenant().prop_map(Act::Command),
        3 => declaration().prop_map(Act::Command),
        6 => licence_command().prop_map(Act::Command),
        1 => (held, any::<bool>()).prop_map(|(held, licensed)| Act::Vgpus(held, licensed)),
        1 => (1..20_i64).prop_map(Act::Wait),
    ];
    prop::collection::vec(act, 1..60)
}

// Licences of each product that a tenant's quotas grant at `now`, told without the ledger's help.
fn granted(state: &State, name: &TenantName, now: Timestamp) -> BTreeMap<ProductId, u64> {
    let mut granted = BTreeMap::new();
    for quota in state.licence_quotas() {
        let terms = &quota.terms;
        let over = terms.expires_at.is_some_and(|end| end <= now);
        if terms.tenant == *name && terms.is_active && !over {
            *granted.entry(terms.product).or_insert(0) += u64::from(terms.max);
        }
    }
    granted
}

fn check(ledger: &Ledger, now: Timestamp) {
    let state = &ledger.state;
    state.verify().unwrap();
    for (name, _) in state.tenants() {
        let used = licences_used(state, name);
        let granted = granted(state, name, now);
        let charged = licence_usage(state, name);
        for product in PRODUCTS.map(ProductId) {
            let rows = state.licence_quotas_of(name);
            let rows: Vec<_> = rows
                .filter(|quota| quota.terms.product == product)
                .collect();
            let sum: u64 = rows.iter().map(|quota| charged[&quota.terms.quota]).sum();
            let used = used.get(&product).copied().unwrap_or(0);
            assert_eq!(
                sum,
                if rows.is_empty() { 0 } else { used },
                "{name} {product:?}"
            );
            let counting = rows.iter().any(|quota| quota.counts());
            let bearing = rows.iter().filter(|quota| quota.counts() == counting);
            let over =
                bearing.filter(|quota| charged[&quota.terms.quota] > u64::from(quota.terms.max));
            let most = match counting {
                true => granted.get(&product).copied().unwrap_or(0),
                false => rows.iter().map(|quota| u64::from(quota.terms.max)).sum(),
            };
            let excess = used > most && !rows.is_empty();
            assert_eq!(
                over.count(),
                usize::from(excess),
                "one row bears what is over"
            );
            let idle = rows.iter().filter(|quota| quota.counts() != counting);
            let idle: u64 = idle.map(|quota| charged[&quota.terms.quota]).sum();
            assert_eq!(idle, 0, "what has ended bears nothing beside what grants");
        }
    }
}

// What an answer to `command` must have respected, by the state before it.
fn judge(before: &State, command: &Command, answer: &Answer, now: Timestamp) {
    if let Answer::Denied(Denied::LicencesInUse { because, used, .. }) = answer {
        let because = because.as_ref().unwrap();
        assert_eq!(because.used, Some(*used));
        enough(before, because, command, |_| Ok(()), now);
    }
    if let (
        Command::RenewSeat { .. },
        Answer::Denied(Denied::LicencesExhausted {
            granted, because, ..
        }),
    ) = (command, answer)
    {
        let because = because.as_ref().unwrap();
        assert_eq!((*granted, because.asked), (0, None));
        let renews = |after: &mut Ledger| match after.ask(command, now, None) {
            Answer::Granted(_) => Ok(()),
            Answer::Denied(denied) => Err(denied),
        };
        enough(before, because, command, renews, now);
    }
    let Command::CheckOutSeat(asked) = command else {
        return;
    };
    let known = before.tenant(&asked.tenant);
    let used = licences_used(before, &asked.tenant);
    let used = used.get(&asked.product).copied().unwrap_or(0);
    let granted = granted(before, &asked.tenant, now);
    let granted = granted.get(&asked.product).copied().unwrap_or(0);
    let free = known.is_some_and(|tenant| !tenant.profile.frozen) && used < granted;
    match answer {
        Answer::Granted(Outcome::Seat(_)) => assert!(free, "granted {used} of {granted}"),
        Answer::Granted(other) => unreachable!("{other:?}"),
        Answer::Denied(Denied::LicencesExhausted {
            granted: told,
            used: taken,
            because: Some(because),
        }) => {
            assert_eq!((*told, *taken, free), (granted, used, false));
            let own: u64 = because.own.iter().map(|holding| holding.count).sum();
            assert_eq!(own, used, "{because:?}");
            let admits = |after: &mut Ledger| match after.ask(command, now, None) {
                Answer::Granted(_) => Ok(()),
                Answer::Denied(denied) => Err(denied),
            };
            enough(before, because, command, admits, now);
        }
        Answer::Denied(_) => assert!(!free, "{answer:?}"),
    }
}

// The number that a denial names is enough, and one less is not.
fn enough(
    before: &State,
    because: &Explanation,
    command: &Command,
    then: impl Fn(&mut Ledger) -> Result<(), Denied>,
    now: Timestamp,
) {
    let Some(Change::SetLicences { quota, max }) = &because.admit else {
        unreachable!("{because:?}");
    };
    let try_with = |max: u64| {
        let max = u32::try_from(max).unwrap();
        let change = match (quota, command) {
            (Some(quota), _) => Command::ChangeLicenceQuota(ChangeLicenceQuota {
                quota: *quota,
                max: Some(max),
                expires_at: Some(None),
                is_active: Some(true),
                expected: None,
            }),
            (None, Command::CheckOutSeat(asked)) => {
                Command::CreateLicenceQuota(CreateLicenceQuota {
                    tenant: before.tenant(&asked.tenant).unwrap().profile.number,
                    product: asked.product,
                    max,
                    expires_at: None,
                    is_active: true,
                })
            }
            (None, _) => unreachable!("{because:?}"),
        };
        let mut after = Ledger::of(before.clone());
        match after.ask(&change, now, None) {
            Answer::Granted(_) => then(&mut after),
            Answer::Denied(denied) => Err(denied),
        }
    };
    assert_eq!(try_with(*max), Ok(()), "{because:?}");
    // What a quota has that is not in force stays.
    let known = quota.and_then(|quota| before.licence_quota(quota));
    let stays = known.is_some_and(|it| !it.counts() && u64::from(it.terms.max) == *max);
    assert!(stays || try_with(max - 1).is_err(), "{because:?}");
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn licences_are_never_given_twice_and_every_fold_is_the_same(acts in history()) {
        let mut ledger = with_nodes(&["n0"]);
        let mut now = START;
        let mut number = 1;
        for act in acts {
            match act {
                Act::Wait(ms) => {
                    now = Timestamp(now.0 + ms);
                    ledger.sweep(now);
                }
                Act::Vgpus(held, licensed) => {
                    let state = if licensed { LicenceState::Licensed } else { LicenceState::Unlicensed };
                    let devices = held.iter().enumerate().map(|(at, name)| {
                        let mut report = seen_at(device(7 + at), &seen_once());
                        report.tenants = vec![tenant(name)];
                        report.licence = Some(state);
                        report
                    });
                    let report = full_report("n0", number, devices.collect());
                    number += 1;
                    ledger.ask(&Command::Report(report), now, None);
                }
                Act::Command(command) => {
                    ledger.sweep(now);
                    let before = ledger.state.clone();
                    let answer = ledger.ask(&command, now, None);
                    judge(&before, &command, &answer, now);
                }
            }
            check(&ledger, now);
        }
        prop_assert!(ledger.refold() == ledger.state);
        let text = serde_json::to_string(&ledger.state).unwrap();
        let read: State = serde_json::from_str(&text).unwrap();
        prop_assert!(read == ledger.state, "a snapshot changes on its way through its text");
    }
}

fn seen_once() -> gpuquota_core::device::DeviceReport {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    seen().new_tree(&mut runner).unwrap().current()
}
