//! Event sets: which driver events a program waits for and has not seen yet.

use std::collections::BTreeMap;
use std::sync::Mutex;

use nvml_wrapper_sys::bindings as sys;

use crate::scenario::{Event, Scenario};

use super::{Answer, Code, hold};

#[derive(Default)]
pub(crate) struct EventSets {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last: usize,
    sets: BTreeMap<usize, Vec<Registration>>,
}

struct Registration {
    gpu: String,
    kinds: u64,
    /// Events up to this id are past.
    seen: u64,
}

/// An event on its way to the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) event: Event,
    pub(crate) kind: u64,
}

const FIRST_SET: usize = 0x4e57_0000;
const STEP: usize = 0x10;

impl EventSets {
    pub(crate) fn create(&self) -> usize {
        let mut table = hold(&self.table);
        table.last += 1;
        let set = FIRST_SET + table.last * STEP;
        table.sets.insert(set, Vec::new());
        set
    }

    pub(crate) fn free(&self, set: usize) -> Answer {
        hold(&self.table)
            .sets
            .remove(&set)
            .map(|_| ())
            .ok_or(Code::INVALID_ARGUMENT)
    }

    pub(crate) fn register(
        &self,
        set: usize,
        gpu: &str,
        kinds: u64,
        scenario: &Scenario,
    ) -> Answer {
        let mut table = hold(&self.table);
        let registrations = table.sets.get_mut(&set).ok_or(Code::INVALID_ARGUMENT)?;
        registrations.push(Registration {
            gpu: gpu.to_owned(),
            kinds,
            seen: scenario.last_event(),
        });
        Ok(())
    }

    /// The oldest event that this set has not delivered.
    pub(crate) fn next(&self, set: usize, scenario: &Scenario) -> Answer<Option<Arrived>> {
        let mut table = hold(&self.table);
        let registrations = table.sets.get_mut(&set).ok_or(Code::INVALID_ARGUMENT)?;
        let waiting = |event: &&Event| {
            let wants = |r: &Registration| {
                r.gpu == event.gpu && r.kinds & kind(event) != 0 && r.seen < event.id
            };
            registrations.iter().any(wants)
        };
        let next = scenario
            .events
            .iter()
            .filter(waiting)
            .min_by_key(|event| event.id)
            .cloned();
        if let Some(event) = &next {
            for registration in registrations
                .iter_mut()
                .filter(|registration| registration.gpu == event.gpu)
            {
                registration.seen = registration.seen.max(event.id);
            }
        }
        Ok(next.map(|event| Arrived {
            kind: kind(&event),
            event,
        }))
    }

    pub(super) fn clear(&self) {
        hold(&self.table).sets.clear();
    }
}

fn kind(event: &Event) -> u64 {
    u64::from(if event.xid.is_some() {
        sys::nvmlEventTypeXidCriticalError
    } else {
        sys::nvmlEventMigConfigChange
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset;

    #[test]
    fn an_event_reaches_each_set_once_and_only_if_it_was_registered_before() {
        let mut scenario = preset::build("h100x4", "t").unwrap();
        let gpu = scenario.gpus[1].uuid.clone();
        scenario.push_event("1", Some(31), None).unwrap();
        let sets = EventSets::default();
        let (early, other) = (sets.create(), sets.create());
        sets.register(early, &gpu, 8, &scenario).unwrap();
        sets.register(other, &scenario.gpus[0].uuid, 8, &scenario)
            .unwrap();
        assert_eq!(sets.next(early, &scenario), Ok(None));
        scenario.push_event("1", Some(79), None).unwrap();
        scenario.push_event("1", None, None).unwrap();
        assert_eq!(sets.next(other, &scenario), Ok(None));
        let arrived = sets.next(early, &scenario).unwrap().unwrap();
        assert_eq!((arrived.kind, arrived.event.xid), (8, Some(79)));
        assert_eq!(
            sets.next(early, &scenario),
            Ok(None),
            "the MIG change was not asked for"
        );
        sets.free(early).unwrap();
        assert_eq!(sets.next(early, &scenario), Err(Code::INVALID_ARGUMENT));
    }
}
