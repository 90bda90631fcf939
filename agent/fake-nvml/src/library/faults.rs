//! Faults: which one hits which call, and what it does to the caller.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use crate::clock::wall_millis;
use crate::scenario::{Action, Fault, Scenario};

use super::devices::Target;
use super::{Answer, Code, hold};

/// How often a hanging call looks whether it may go on.
const LOOK: Duration = Duration::from_millis(50);

/// How many matching calls each fault has seen in this process.
#[derive(Default)]
pub(super) struct Faults {
    counts: Mutex<Vec<(Fault, u64)>>,
}

impl Faults {
    /// Counts a call and returns the faults that hit it, in the file's order.
    pub(super) fn hits(
        &self,
        function: &str,
        target: Option<&Target>,
        scenario: &Scenario,
    ) -> Vec<Fault> {
        let mut counts = hold(&self.counts);
        if scenario.faults.is_empty() {
            counts.clear();
            return Vec::new();
        }
        counts.retain(|(fault, _)| scenario.faults.contains(fault));
        let matching = scenario
            .faults
            .iter()
            .filter(|fault| concerns(fault, function, target) && fault.is_on(wall_millis()));
        let mut hit = |fault: &&Fault| {
            let number = match counts.iter_mut().find(|(known, _)| known == *fault) {
                Some((_, count)) => {
                    *count += 1;
                    *count
                }
                None => {
                    counts.push(((*fault).clone(), 1));
                    1
                }
            };
            number >= fault.from_call
                && (fault.times == 0 || number - fault.from_call < fault.times)
        };
        matching.filter(&mut hit).cloned().collect()
    }
}

fn concerns(fault: &Fault, function: &str, target: Option<&Target>) -> bool {
    if fault.function != function && fault.function != "*" {
        return false;
    }
    match (&fault.gpu, target) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(name), Some(target)) => *name == target.gpu || target.part.as_ref() == Some(name),
    }
}

/// Does to the calling thread what the fault says; `Ok` when the call may go on.
pub(super) fn play(fault: &Fault, current: impl Fn() -> Option<Arc<Scenario>>) -> Answer {
    match fault.action {
        Action::Hang => {
            while fault.is_on(wall_millis())
                && current().is_some_and(|scenario| scenario.faults.contains(fault))
            {
                thread::sleep(LOOK);
            }
            Ok(())
        }
        Action::Delay => {
            thread::sleep(Duration::from_millis(fault.ms.unwrap_or(0)));
            Ok(())
        }
        Action::Return => match fault.code {
            None | Some(0) => Ok(()),
            Some(code) => Err(Code(code)),
        },
        Action::Crash => crash(),
    }
}

/// Dies as a driver bug makes a program die. A Rust program's own handler swallows the first signal and then stands
/// aside, and another thread may be the one to receive it, so this insists and waits.
fn crash() -> ! {
    for _ in 0..40 {
        if kill_process(getpid(), Signal::SEGV).is_err() {
            break;
        }
        thread::sleep(LOOK);
    }
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset;

    #[test]
    fn a_window_of_calls_is_hit_and_an_edit_elsewhere_does_not_reset_it() {
        let faults = Faults::default();
        let mut scenario = preset::build("t4x1", "t").unwrap();
        let fault = Fault {
            from_call: 2,
            times: 2,
            code: Some(15),
            ..Fault::new("f", Action::Return)
        };
        scenario.faults.push(fault.clone());
        let call = |scenario: &Scenario| faults.hits("f", None, scenario).len();
        assert_eq!([call(&scenario), call(&scenario)], [0, 1]);
        scenario.faults.insert(0, Fault::new("g", Action::Crash));
        assert_eq!([call(&scenario), call(&scenario)], [1, 0]);
        scenario.faults.clear();
        call(&scenario);
        scenario.faults.push(fault);
        assert_eq!(
            [call(&scenario), call(&scenario)],
            [0, 1],
            "planted anew it counts anew"
        );
    }

    #[test]
    fn a_fault_hits_between_two_moments() {
        let faults = Faults::default();
        let mut scenario = preset::build("t4x1", "t").unwrap();
        let now = wall_millis();
        let mut window = |from: u64, until: u64| {
            scenario.faults = vec![Fault {
                code: Some(9),
                from_unix_ms: Some(from),
                until_unix_ms: Some(until),
                ..Fault::new("f", Action::Return)
            }];
            faults.hits("f", None, &scenario).len()
        };
        let minute = 60_000;
        assert_eq!(window(now - minute, now + minute), 1);
        assert_eq!(window(now + minute, now + 2 * minute), 0);
        assert_eq!(window(now - minute, now - 1), 0);
        let over = Fault {
            until_unix_ms: Some(now),
            ..Fault::new("f", Action::Hang)
        };
        scenario.faults = vec![over.clone()];
        let scenario = Arc::new(scenario);
        assert_eq!(
            play(&over, || Some(Arc::clone(&scenario))),
            Ok(()),
            "it goes on"
        );
    }

    #[test]
    fn a_fault_of_one_gpu_spares_the_others_and_calls_without_one() {
        let target = |gpu: &str, part: Option<&str>| Target {
            gpu: gpu.to_owned(),
            part: part.map(str::to_owned),
        };
        let fault = Fault {
            gpu: Some("GPU-a".to_owned()),
            ..Fault::new("*", Action::Hang)
        };
        assert!(concerns(
            &fault,
            "any",
            Some(&target("GPU-a", Some("MIG-x")))
        ));
        assert!(!concerns(&fault, "any", Some(&target("GPU-b", None))));
        assert!(!concerns(&fault, "any", None));
        let fault = Fault {
            gpu: Some("MIG-x".to_owned()),
            ..fault
        };
        assert!(concerns(
            &fault,
            "any",
            Some(&target("GPU-a", Some("MIG-x")))
        ));
        assert!(!concerns(&fault, "any", Some(&target("GPU-a", None))));
    }
}
