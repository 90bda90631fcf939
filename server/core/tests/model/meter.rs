//! The meter against a naive reading of the journal: what each device was between two rows, millisecond by millisecond.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::command::{RequestLease, SetTenant};
use gpuquota_core::device::{Device, DeviceHealth, DeviceKey, DeviceKind};
use gpuquota_core::id::{LeaseId, TenantName, Timestamp};
use gpuquota_core::lease::LeasePlacement;
use gpuquota_core::limit::Limit;
use gpuquota_core::meter::{DeviceClass, Hour, Place, UsageClass, UsageRow};
use gpuquota_core::node::NodeState;
use gpuquota_core::quota::QuotaType;
use gpuquota_core::{Command, State};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::history::{Step, history};
use crate::reference::{DAY, Naive};
use crate::world::{TENANTS, model, region, tenant};
use crate::{Ledger, START, cases, follow, patient};

const HOUR: i64 = 3_600_000;

/// What a device is, read off the rows without any index.
fn class_of(state: &State, key: &DeviceKey, device: &Device) -> Option<DeviceClass> {
    let node = state.node(&device.node).unwrap();
    if device.report.partitioned {
        return None;
    }
    if node.state != NodeState::Up || device.report.health != DeviceHealth::Ok {
        return Some(DeviceClass::Unknown);
    }
    let holders = device.holders.keys();
    let busy: BTreeSet<TenantName> = holders
        .filter(|tenant| may(state, tenant, key, device))
        .cloned()
        .collect();
    let lease = state
        .leases()
        .find(|lease| lease.occupied().any(|(k, _)| k == key));
    Some(if !busy.is_empty() {
        DeviceClass::Busy(busy)
    } else if !device.holders.is_empty() || device.report.unattributed {
        DeviceClass::Squatter
    } else if let Some(lease) = lease {
        DeviceClass::LeasedIdle(lease.terms.tenant.clone())
    } else {
        DeviceClass::Free
    })
}

fn may(state: &State, tenant: &TenantName, key: &DeviceKey, device: &Device) -> bool {
    let mut leases = state.leases();
    if let Some(lease) = leases.find(|lease| lease.occupied().any(|(k, _)| k == key)) {
        return lease.terms.tenant == *tenant;
    }
    let mut quotas = state.quotas();
    if quotas.any(|q| q.in_force() && q.nodes.contains(&device.node) && q.key.tenant != *tenant) {
        return false;
    }
    if state.kept_off(tenant, &device.node) {
        return false;
    }
    let own = || {
        state
            .quotas()
            .filter(|q| q.key.tenant == *tenant && q.in_force() && q.model == device.canonical)
    };
    let here = |q: &&gpuquota_core::quota::Quota| q.nodes.contains(&device.node);
    if own().any(|q| here(&q)) {
        return own().any(|q| here(&q) && q.limit != Limit::Finite(0));
    }
    let wanted = match key.kind() {
        DeviceKind::Gpu => QuotaType::Flexible,
        DeviceKind::Mig => QuotaType::Mig,
        DeviceKind::Vgpu => QuotaType::Vgpu,
    };
    let stands = &state.node(&device.node).unwrap().region;
    own().any(|q| {
        q.key.quota_type == wanted && q.key.region == *stands && q.limit != Limit::Finite(0)
    })
}

type Was = (Place, DeviceClass);

/// What each device was from which row on.
#[derive(Default)]
struct Film {
    devices: BTreeMap<DeviceKey, Vec<(Timestamp, Option<Was>)>>,
}

impl Film {
    fn shoot(&mut self, state: &State) {
        let mut now: BTreeMap<DeviceKey, Was> = BTreeMap::new();
        for (key, device) in state.devices() {
            let place = Place {
                node: device.node.clone(),
                region: state.node(&device.node).unwrap().region.clone(),
                model: device.canonical.clone(),
            };
            let class = class_of(state, key, device);
            assert_eq!(state.device_class(key), class, "{key}");
            now.extend(class.map(|class| (key.clone(), (place, class))));
        }
        let keys: BTreeSet<DeviceKey> = self.devices.keys().chain(now.keys()).cloned().collect();
        for key in keys {
            let film = self.devices.entry(key.clone()).or_default();
            let is = now.get(&key).cloned();
            if film.last().and_then(|(_, was)| was.clone()) != is {
                film.push((state.at(), is));
            }
        }
    }

    /// Time by hour, and existence by device and hour, up to `end`.
    fn develop(&self, end: Timestamp) -> (Vec<UsageRow>, BTreeMap<(Hour, DeviceKey), u64>) {
        let mut rows: BTreeMap<_, u64> = BTreeMap::new();
        let mut existed = BTreeMap::new();
        for (key, film) in &self.devices {
            let ends = film.iter().skip(1).map(|(at, _)| *at).chain([end]);
            for ((since, was), till) in film.iter().zip(ends) {
                let Some((place, class)) = was else { continue };
                let mut at = since.0;
                while at < till.0 {
                    let cut = till.0.min((at / HOUR + 1) * HOUR);
                    let (hour, ms) = (Hour::of(Timestamp(at)), (cut - at).unsigned_abs());
                    *existed.entry((hour, key.clone())).or_insert(0) += ms;
                    let mut add = |class, tenant: Option<&TenantName>, ms| {
                        let row = (hour, key.clone(), place.clone(), class, tenant.cloned());
                        *rows.entry(row).or_default() += ms;
                    };
                    match class {
                        DeviceClass::Busy(tenants) => {
                            let count = u64::try_from(tenants.len()).unwrap();
                            for (at, tenant) in tenants.iter().enumerate() {
                                let rest = if at == 0 { ms % count } else { 0 };
                                add(UsageClass::Busy, Some(tenant), ms / count + rest);
                            }
                        }
                        DeviceClass::LeasedIdle(tenant) => {
                            add(UsageClass::LeasedIdle, Some(tenant), ms);
                        }
                        DeviceClass::Free => add(UsageClass::Free, None, ms),
                        DeviceClass::Squatter => add(UsageClass::Squatter, None, ms),
                        DeviceClass::Unknown => add(UsageClass::Unknown, None, ms),
                    }
                    at = cut;
                }
            }
        }
        let rows = rows.into_iter().filter(|(_, ms)| *ms > 0);
        let rows = rows.map(|((hour, device, place, class, tenant), ms)| UsageRow {
            hour,
            device,
            place,
            class,
            tenant,
            ms,
        });
        (rows.collect(), existed)
    }
}

/// How long until the next thing is tried.
#[derive(Clone, Copy, Debug)]
enum Wait {
    Ms(i64),
    /// To so many milliseconds after the next full hour.
    Hour(i64),
}

impl Wait {
    fn from(self, now: Timestamp) -> Timestamp {
        Timestamp(match self {
            Self::Ms(ms) => now.0 + ms,
            Self::Hour(ms) => ((now.0 / HOUR + 1) * HOUR + ms).max(now.0),
        })
    }
}

#[derive(Clone, Debug)]
enum Try {
    Step(Box<Step>),
    Lease(&'static str, u32, Option<u64>),
    GiveBack(u64, bool),
    Confine(&'static str, bool),
    Store,
    Restart,
}

fn tries() -> impl Strategy<Value = Vec<(Wait, Try)>> {
    let wait = prop_oneof![
        12 => (0..3_i64).prop_map(Wait::Ms), 4 => Just(Wait::Ms(997)), 2 => Just(Wait::Ms(HOUR / 3)),
        3 => (-1..2_i64).prop_map(Wait::Hour), 1 => Just(Wait::Ms(5 * HOUR)), 1 => Just(Wait::Ms(DAY + 1)),
    ];
    let who = || select(TENANTS.to_vec());
    let other = prop_oneof![
        6 => (who(), 1..3_u32, prop::option::of(select(vec![1_u64, 1000, 4_000_000])))
            .prop_map(|(who, count, ttl)| Try::Lease(who, count, ttl)),
        2 => (1..6_u64, any::<bool>()).prop_map(|(lease, forced)| Try::GiveBack(lease, forced)),
        1 => (who(), any::<bool>()).prop_map(|(who, confined)| Try::Confine(who, confined)),
        2 => Just(Try::Store), 1 => Just(Try::Restart),
    ];
    let beside = vec(
        (wait.clone(), prop::option::weighted(0.4, (wait, other))),
        48,
    );
    (history(45), beside).prop_map(|(steps, beside)| {
        let both = steps.into_iter().zip(beside);
        both.flat_map(|(step, (wait, other))| {
            let step = (wait, Try::Step(Box::new(step)));
            other.into_iter().chain([step])
        })
        .collect()
    })
}

fn command(what: &Try, naive: &Naive, now: Timestamp) -> Option<Command> {
    Some(match what {
        Try::Step(step) => step.command(naive, now),
        Try::Lease(who, count, ttl_ms) => Command::RequestLease(RequestLease {
            ttl_ms: *ttl_ms,
            ..RequestLease::of(
                tenant(who),
                region("bj"),
                model("nvidia.com/gpu"),
                *count,
                LeasePlacement::Devices,
            )
        }),
        Try::GiveBack(lease, forced) => Command::ReleaseLease {
            lease: LeaseId(*lease),
            forced: *forced,
            expected: None,
        },
        Try::Confine(who, confined) => Command::SetTenant(SetTenant {
            tenant: tenant(who),
            number: None,
            display_name: None,
            code: None,
            projects: None,
            frozen: None,
            confined: Some(*confined),
            lease_mode: None,
            enforcement: None,
        }),
        Try::Store | Try::Restart => return None,
    })
}

/// Takes the closed hours out of the ledger, as the server does.
pub(crate) fn store(ledger: &mut Ledger, now: Timestamp, stored: &mut Vec<UsageRow>) {
    ledger.sweep(now);
    let (from, through) = (ledger.state.stored_before(), ledger.state.closed_before());
    let metered = ledger.state.metered(from, through, ledger.state.at());
    assert_eq!(metered.error_ms, 0);
    let note = Command::NoteUsage { through };
    let rows = ledger.state.seq();
    ledger.ask(&note, now, None);
    if through > from {
        assert!(ledger.state.seq() > rows);
        stored.extend(metered.rows);
    }
    assert_eq!(ledger.state.first_unstored(), None);
}

fn live(tries: &[(Wait, Try)]) {
    let (mut ledger, mut naive, mut now) = (Ledger::default(), Naive::default(), START);
    let (mut film, mut stored) = (Film::default(), Vec::new());
    let settings = Command::SetSettings(patient());
    ledger.ask(&settings, now, None);
    naive.obey(&settings, now).unwrap();
    for (wait, what) in tries {
        now = wait.from(now);
        ledger.sweep(now);
        naive.row = ledger.state.seq();
        naive.pass(now);
        film.shoot(&ledger.state);
        match what {
            Try::Store => store(&mut ledger, now, &mut stored),
            Try::Restart => {
                let text = serde_json::to_string(&ledger.state).unwrap();
                ledger.state = serde_json::from_str(&text).unwrap();
            }
            Try::Step(_) | Try::Lease(..) | Try::GiveBack(..) | Try::Confine(..) => {
                if let Some(command) = command(what, &naive, now) {
                    naive.row = ledger.state.seq().next();
                    let answer = ledger.ask(&command, now, None);
                    follow(&mut naive, &ledger.state, &command, &answer, now);
                }
            }
        }
        ledger.state.verify().unwrap();
        film.shoot(&ledger.state);
    }
    let end = Timestamp(now.0 + HOUR + 1);
    let state = &ledger.state;
    let open = state.metered(state.stored_before(), Hour::of(end).next(), end);
    assert_eq!(open.error_ms, 0);
    let (rows, existed) = film.develop(end);
    let all: Vec<UsageRow> = {
        let mut all: Vec<UsageRow> = stored.into_iter().chain(open.rows.clone()).collect();
        all.sort();
        all
    };
    assert_eq!(all, rows, "hours, devices, classes and tenants");
    let mut sums: BTreeMap<(Hour, DeviceKey), u64> = BTreeMap::new();
    for row in &all {
        *sums.entry((row.hour, row.device.clone())).or_default() += row.ms;
    }
    assert_eq!(sums, existed, "classes add up to the time of each device");
    let wall: u64 = open.wall.iter().map(|row| row.ms).sum();
    assert_eq!(wall, open.rows.iter().map(|row| row.ms).sum::<u64>());
    let again = ledger.refold();
    assert!(again == ledger.state, "a second fold differs");
    assert_eq!(
        serde_json::to_vec(&again).unwrap(),
        serde_json::to_vec(&ledger.state).unwrap()
    );
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn every_hour_of_every_device_adds_up(tries in tries()) {
        live(&tries);
    }
}
