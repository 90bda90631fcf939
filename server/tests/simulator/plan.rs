//! What a seed means: how many of whom, and which kinds of faults.

use std::collections::BTreeSet;

use crate::dice::Dice;

/// A kind of fault. A run has some of them, so that a violation can be tried again with fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A server ends in the midst of a write or a read, or at any moment.
    Crash,
    /// A server ends as it should and starts again.
    Stop,
    /// An append's answer is lost, before or after it landed.
    LostAppend,
    /// An append arrives twice.
    TwiceAppended,
    /// The database takes its time.
    SlowJournal,
    /// A server does not reach the database.
    Partition,
    /// The database's disk is full.
    DiskFull,
    /// A sync fails: the rows are durable, or they are not.
    Fsync,
    /// Requests and answers between callers and servers are lost, late or doubled.
    Network,
    /// A server's wall clock is set.
    ClockSet,
    /// Nothing runs for a while, up to a day.
    Sleep,
    /// A snapshot on disk is torn, gone, or says something else.
    Snapshot,
}

impl Fault {
    pub(crate) const ALL: [Self; 12] = [
        Self::Crash,
        Self::Stop,
        Self::LostAppend,
        Self::TwiceAppended,
        Self::SlowJournal,
        Self::Partition,
        Self::DiskFull,
        Self::Fsync,
        Self::Network,
        Self::ClockSet,
        Self::Sleep,
        Self::Snapshot,
    ];
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Servers, 2 to 5.
    pub(crate) replicas: usize,
    pub(crate) clients: usize,
    pub(crate) agents: usize,
    /// Commands of clients and messages of agents, repetitions not counted.
    pub(crate) operations: u64,
    pub(crate) faults: BTreeSet<Fault>,
    /// Commands that may wait at a server.
    pub(crate) queue: usize,
    /// Commands that are decided together.
    pub(crate) batch: usize,
    /// A snapshot is due after so many rows.
    pub(crate) snapshot_every: Option<u64>,
    /// A node is silent after so long, ms.
    pub(crate) silent_after_ms: u64,
}

impl Plan {
    pub(crate) fn of(seed: u64, operations: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut faults = BTreeSet::new();
        for fault in Fault::ALL {
            if dice.chance(500) {
                faults.insert(fault);
            }
        }
        let snapshots = dice.chance(250);
        Self {
            seed,
            replicas: dice.index(4) + 2,
            clients: dice.index(5) + 2,
            agents: dice.index(3) + 1,
            operations,
            faults,
            queue: dice.pick(&[2, 8, 64]),
            batch: dice.pick(&[1, 4, 64]),
            snapshot_every: snapshots.then(|| dice.within(10, 50)),
            silent_after_ms: dice.within(2_000, 20_000),
        }
    }
}
