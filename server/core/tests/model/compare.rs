//! The ledger beside its naive telling, number by number.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::id::{GpuModel, NodeName, Timestamp};
use gpuquota_core::lease::LeasePhase;
use gpuquota_core::profile::CanonicalModel;
use gpuquota_core::usage::usage;
use gpuquota_core::{Group, State};

use crate::charged;
use crate::reference::Naive;
use crate::world::{NODES, TENANTS, TOKENS, node, tenant};

pub(crate) fn compare(state: &State, naive: &Naive, now: Timestamp) {
    let quotas: Vec<_> = state
        .quotas()
        .map(|q| {
            (
                q.id,
                q.key.clone(),
                q.limit,
                q.expires_at,
                q.expired,
                q.switched_off,
            )
        })
        .collect();
    let details: Vec<_> = state
        .quotas()
        .map(|q| (q.reference, q.nodes.clone(), q.created_at))
        .collect();
    let mut told = naive.quotas.clone();
    told.sort_by_key(|q| q.id);
    assert_eq!(quotas.len(), told.len(), "number of quotas");
    for ((quota, detail), q) in quotas.into_iter().zip(details).zip(&told) {
        let (id, key, limit, end, expired, off) = quota;
        assert_eq!(
            (id, limit, end, expired, off),
            (q.id, q.limit, q.end, q.ended(now), q.off)
        );
        assert_eq!(
            (&key.tenant, &key.region, key.source),
            (&q.tenant, &q.region, q.source)
        );
        assert_eq!((key.quota_type, &key.gpu_model), (q.quota_type, &q.model));
        assert_eq!(detail, (q.reference, q.nodes.clone(), q.made));
    }
    let mut holders = BTreeMap::new();
    assert_eq!(
        state.devices().count(),
        naive.devices.len(),
        "number of devices"
    );
    for held in &naive.devices {
        let device = state.device(&held.report.key).unwrap();
        assert_eq!((&device.node, &device.report), (&held.node, &held.report));
        assert_eq!(device.holders, held.since);
        for tenant in held.since.keys() {
            holders
                .entry(tenant)
                .or_insert_with(BTreeSet::new)
                .insert(&held.report.key);
        }
    }
    assert!(state.holders().eq(holders.keys().copied()), "holders");
    for (tenant, keys) in holders {
        assert!(
            state.devices_of(tenant).map(|(key, _)| key).eq(keys),
            "held by {tenant}"
        );
    }
    assert_eq!(state.nodes().count(), naive.hosts.len(), "number of nodes");
    for host in &naive.hosts {
        let node = state.node(&host.name).unwrap();
        let mark = node
            .spool
            .as_ref()
            .map(|mark| (mark.spool.clone(), mark.number));
        assert_eq!(mark.as_ref(), host.spools.last(), "spool of {}", host.name);
        assert_eq!((&node.region, node.state), (&host.region, host.state));
        assert_eq!(node.settled, host.settled);
        assert_eq!(node.session.0, host.session);
    }
    for name in NODES {
        let node = node(name);
        assert_eq!(
            state.bound_tenant(&node),
            naive.bound(&node, now),
            "who {name} serves"
        );
    }
    for name in TENANTS.map(tenant) {
        assert_eq!(
            charged(state, &name),
            naive.charge(&name, now),
            "usage of {name}"
        );
        let kins = naive.kins(&name, now);
        assert_eq!(state.demands(&name).count(), kins.len(), "{kins:?}");
        for kin in kins {
            let group = Group {
                region: kin.0.clone(),
                quota_type: kin.1,
                model: CanonicalModel::of(&GpuModel::new(&kin.2).unwrap()),
            };
            let (demand, counted) = (state.demand(&name, &group), naive.count(&name, &kin, now));
            assert_eq!(demand.used(), counted.used(), "{demand:?} {counted:?}");
            assert_eq!(demand.observed, counted.observed.len() as u64);
            let leased = counted.leased.len() as u64 + counted.number;
            assert_eq!(demand.leased(), leased, "{demand:?} {counted:?}");
        }
        let own = state.quotas_of(&name).map(|q| q.id);
        let told = told.iter().filter(|q| q.tenant == name).map(|q| q.id);
        assert!(own.eq(told), "quotas of {name}");
    }
    leases(state, naive);
    let mut ends = told.iter().filter_map(|q| q.end).collect::<Vec<_>>();
    ends.retain(|end| *end > now);
    ends.extend(naive.promises.iter().filter_map(|it| match it.phase {
        LeasePhase::Active => it.end,
        LeasePhase::Releasing { deadline, .. } => Some(deadline),
        LeasePhase::Ended { .. } => None,
    }));
    // Notices and deadlines of drains may come before.
    let next = ends.into_iter().min();
    assert!(
        next.is_none_or(|end| state.next_due().is_some_and(|due| due <= end)),
        "next moment"
    );
    // A device that comes back after empty hours leaves them to be closed with the next row.
    let due = state
        .next_due()
        .filter(|due| state.hour_due() != Some(*due));
    assert!(
        due.is_none_or(|due| due >= now || state.at() < now),
        "what was due is done"
    );
    for (token, until) in naive.revoked.iter().filter(|(_, until)| *until > now) {
        assert!(state.revoked(token), "{token} is revoked until {until:?}");
    }
    let over = |token: &str| {
        naive
            .revoked
            .iter()
            .all(|(t, until)| t != token || *until <= now)
    };
    let forgotten = |token: &str| !state.revoked(token) || state.at() < now;
    assert!(
        TOKENS.into_iter().all(|t| !over(t) || forgotten(t)),
        "revoked for ever"
    );
}

fn leases(state: &State, naive: &Naive) {
    assert_eq!(state.leases().count(), naive.promises.len());
    for (lease, promise) in state.leases().zip(&naive.promises) {
        let (terms, told) = (&lease.terms, promise);
        assert_eq!((lease.id, lease.epoch), (told.id, told.epoch));
        assert_eq!(lease.phase, told.phase, "{:?}", lease.id);
        assert_eq!(
            (&terms.tenant, &terms.region, &terms.gpu_model),
            (&told.tenant, &told.region, &told.model)
        );
        assert_eq!(
            (terms.quota_type, terms.count, terms.placement),
            (told.quota_type, told.count, told.placement)
        );
        assert_eq!((lease.source, &lease.devices), (told.source, &told.devices));
        assert_eq!(
            (lease.granted_at, lease.expires_at),
            (told.granted, told.end)
        );
    }
}

/// What a report may touch: its own node's devices, and the numbers of tenants that hold, held or lease some of them.
pub(crate) fn report_stays_home(before: &State, after: &State, node: &NodeName) {
    let elsewhere = |state: &State| -> Vec<_> {
        let devices = state.devices().filter(|(_, d)| d.node != *node);
        devices.map(|(key, d)| (key.clone(), d.clone())).collect()
    };
    assert!(
        elsewhere(before) == elsewhere(after),
        "a device of another node changed"
    );
    for tenant in TENANTS.map(tenant) {
        let at_home = |s: &State| {
            let mut leased = s.leases_of(&tenant).flat_map(|lease| lease.occupied());
            s.devices_of(&tenant).any(|(_, d)| d.node == *node)
                || leased
                    .any(|(key, at)| at == node || s.device(key).is_some_and(|d| d.node == *node))
        };
        if !at_home(before) && !at_home(after) {
            assert_eq!(usage(before, &tenant), usage(after, &tenant));
        }
    }
}
