//! Reports of agents in random histories: in order or not, fresh or old, of their own devices or of others'.

use std::collections::BTreeSet;

use gpuquota_core::command::NodeReport;
use gpuquota_core::device::{DeviceKey, DeviceReport};
use gpuquota_core::id::{NodeName, SessionId};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::reference::Naive;
use crate::world::{DEVICES, NODES, PER_NODE, device, free, node, seen, seen_at};

/// One report, right and fresh or not.
#[derive(Clone, Debug)]
pub(crate) struct Saying {
    node: usize,
    session_behind: u64,
    spool: Spool,
    number: Number,
    full: bool,
    age_ms: Option<u64>,
    rows_behind: Option<u64>,
    all_free: bool,
    devices: Vec<(usize, bool, DeviceReport)>,
    gone: Vec<usize>,
    stray: bool,
}

#[derive(Clone, Copy, Debug)]
enum Spool {
    Same,
    New,
    Before(usize),
}

#[derive(Clone, Copy, Debug)]
enum Number {
    Next,
    Again(u64),
    Skip(u64),
}

/// What some agent may say.
pub(crate) fn saying() -> impl Strategy<Value = Saying> {
    let spool = prop_oneof![12 => Just(Spool::Same), 2 => Just(Spool::New), 2 => (1..4_usize).prop_map(Spool::Before)];
    let number = prop_oneof![
        8 => Just(Number::Next), 1 => (0..2_u64).prop_map(Number::Again), 1 => (1..3_u64).prop_map(Number::Skip),
    ];
    let behind = prop_oneof![20 => Just(0), 1 => Just(1_u64)];
    let age = option::of(select(vec![0_u64, 1, 50, 5_000]));
    let rows_behind = option::weighted(0.7, 0..3_u64);
    let age = (age, rows_behind);
    let devices = vec((0..DEVICES, prop::bool::weighted(0.95), seen()), 0..4);
    let said = (0..NODES.len(), behind, spool, number, any::<bool>(), age);
    let all_free = prop::bool::weighted(0.3);
    let seen = (
        all_free,
        devices,
        vec(0..DEVICES, 0..2),
        prop::bool::weighted(0.05),
    );
    (said, seen).prop_map(|(said, (all_free, devices, gone, stray))| {
        let (node, session_behind, spool, number, full, (age_ms, rows_behind)) = said;
        Saying {
            node,
            session_behind,
            spool,
            number,
            full,
            age_ms,
            rows_behind,
            all_free,
            devices,
            gone,
            stray,
        }
    })
}

impl Saying {
    /// All devices of a node, and nobody holds any.
    pub(crate) fn all_free(node: usize) -> Self {
        Self {
            node,
            session_behind: 0,
            spool: Spool::Same,
            number: Number::Next,
            full: true,
            age_ms: Some(0),
            rows_behind: Some(0),
            all_free: true,
            devices: Vec::new(),
            gone: Vec::new(),
            stray: false,
        }
    }

    /// The report that this means where the ledger stands now.
    pub(crate) fn resolve(
        &self,
        ledger: &Naive,
        session: impl Fn(&NodeName, u64) -> SessionId,
    ) -> NodeReport {
        let name = node(NODES[self.node]);
        let spools = ledger
            .hosts
            .iter()
            .find(|h| h.name == name)
            .map(|h| h.spools.as_slice());
        let spools = spools.unwrap_or_default();
        let fresh = (format!("{name}-{}", spools.len()), 0);
        let (spool, last) = match self.spool {
            Spool::Same => spools.last().cloned().unwrap_or(fresh),
            Spool::New => fresh,
            Spool::Before(back) => spools.iter().rev().nth(back).cloned().unwrap_or(fresh),
        };
        let number = match self.number {
            Number::Next => last + 1,
            Number::Again(back) => last.saturating_sub(back),
            Number::Skip(over) => last + 1 + over,
        };
        let home = |at: usize, at_home: bool| match at_home {
            true => self.node * PER_NODE + at % PER_NODE,
            false => at,
        };
        let named = self.devices.iter();
        let mut devices: Vec<DeviceReport> = named
            .map(|(at, at_home, seen)| seen_at(device(home(*at, *at_home)), seen))
            .collect();
        let mut gone: Vec<DeviceKey> = self
            .gone
            .iter()
            .map(|at| device(home(*at, !self.stray)))
            .collect();
        let stray = self.stray && !self.all_free;
        if self.all_free {
            let own = self.node * PER_NODE..(self.node + 1) * PER_NODE;
            devices = own.map(|at| seen_at(device(at), &free())).collect();
            gone.clear();
        }
        if !stray {
            let mut once = BTreeSet::new();
            devices.retain(|device| once.insert(device.key.clone()));
            gone.retain(|key| once.insert(key.clone()));
        }
        NodeReport {
            session: session(&name, self.session_behind),
            node: name,
            spool,
            number,
            age_ms: self.age_ms,
            heard_at: None,
            read_after: self.rows_behind.map(|behind| ledger.row_before(behind)),
            full: self.full,
            facts: None,
            devices,
            gone,
        }
    }
}
