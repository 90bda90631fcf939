//! The door through which every NVML call goes, so that the worker's watchdog sees a call that does not come back.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::monotonic_ms;

use super::protocol::Target;

/// The call in progress, shared by the thread that calls and the one that watches.
#[derive(Debug, Default)]
pub(super) struct Gate {
    current: Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    call: &'static str,
    target: Option<Target>,
    /// CLOCK_MONOTONIC, milliseconds; `None` between calls.
    started_ms: Option<u64>,
    number: u64,
}

/// A call that passed its deadline.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overdue {
    /// C name of the function.
    pub(super) call: &'static str,
    /// The GPU it is about.
    pub(super) target: Option<Target>,
    /// Counts calls: the same number is the same call.
    pub(super) number: u64,
}

impl Gate {
    /// Says which GPU the next calls are about.
    pub(super) fn aim(&self, target: Option<Target>) {
        self.lock().target = target;
    }

    /// Makes one call under the eyes of the watchdog.
    pub(super) fn call<T>(&self, name: &'static str, call: impl FnOnce() -> T) -> T {
        self.enter(name, monotonic_ms());
        let answer = call();
        self.lock().started_ms = None;
        answer
    }

    /// Calls made so far.
    pub(super) fn calls(&self) -> u64 {
        self.lock().number
    }

    fn enter(&self, name: &'static str, now_ms: u64) {
        let mut current = self.lock();
        current.call = name;
        current.started_ms = Some(now_ms);
        current.number = current.number.wrapping_add(1);
    }

    /// The call in progress, if it has run for `deadline_ms` at `now_ms`.
    #[must_use]
    pub(super) fn overdue(&self, now_ms: u64, deadline_ms: u64) -> Option<Overdue> {
        let current = self.lock();
        let started_ms = current.started_ms?;
        (now_ms.saturating_sub(started_ms) >= deadline_ms).then(|| Overdue {
            call: current.call,
            target: current.target.clone(),
            number: current.number,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_call_in_progress_is_overdue() {
        let gate = Gate::default();
        gate.aim(Some(Target::Index(2)));
        assert_eq!(gate.overdue(1_000_000, 0), None);
        gate.enter("nvmlDeviceGetUUID", 5_000);
        assert_eq!(gate.overdue(6_999, 2_000), None);
        let overdue = gate.overdue(7_000, 2_000).unwrap();
        assert_eq!(
            (overdue.call, &overdue.target),
            ("nvmlDeviceGetUUID", &Some(Target::Index(2)))
        );
        let answer = gate.call("nvmlDeviceGetName", || {
            gate.overdue(u64::MAX, 2_000).unwrap().call
        });
        assert_eq!(answer, "nvmlDeviceGetName");
        assert_eq!(gate.overdue(u64::MAX, 0), None);
    }
}
