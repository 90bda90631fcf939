//! Which of the scenario's processes really live.
//!
//! A process is watched through a pidfd: it pins the identity, tells an exit even before the parent reaps, and asking
//! costs a fraction of what reading `/proc` costs, which matters to a program that lists processes every second.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::process::stat;
use crate::scenario::{Process, Scenario};

use super::hold;

#[derive(Default)]
pub(crate) struct Alive {
    watched: Mutex<HashMap<Identity, Watch>>,
}

type Identity = (u32, Option<u64>);

enum Watch {
    Running(OwnedFd),
    /// Remembered, so that a later process with the same pid is not taken for it.
    Gone,
}

impl Alive {
    /// The living processes of a scenario that `wanted` picks, in the file's order.
    pub(crate) fn filter<'a>(
        &self,
        scenario: &'a Scenario,
        wanted: impl Fn(&Process) -> bool,
    ) -> Vec<&'a Process> {
        let mut watched = hold(&self.watched);
        if watched.len() > scenario.processes.len() {
            watched.retain(|identity, _| {
                scenario
                    .processes
                    .iter()
                    .any(|process| *identity == identity_of(process))
            });
        }
        let living = |process: &&Process| {
            wanted(process) && (process.phantom || lives(&mut watched, process))
        };
        scenario.processes.iter().filter(living).collect()
    }

    pub(super) fn clear(&self) {
        hold(&self.watched).clear();
    }
}

fn identity_of(process: &Process) -> Identity {
    (process.pid, process.start_time)
}

fn lives(watched: &mut HashMap<Identity, Watch>, process: &Process) -> bool {
    let identity = identity_of(process);
    match watched.get(&identity) {
        Some(Watch::Gone) => return false,
        Some(Watch::Running(fd)) => {
            let running = runs(fd);
            if !running {
                watched.insert(identity, Watch::Gone);
            }
            return running;
        }
        None => {}
    }
    let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else {
        return false;
    };
    match pidfd_open(pid, PidfdFlags::empty()) {
        // The pidfd came first, so what /proc says now is about the process it holds, or that one is gone.
        Ok(fd) => {
            let running = is_the_one(process) && runs(&fd);
            if running {
                watched.insert(identity, Watch::Running(fd));
            }
            running
        }
        Err(Errno::SRCH) => false,
        // No pidfds here (an old kernel, a sandbox, no descriptors left): /proc alone has to do.
        Err(_) => is_the_one(process),
    }
}

fn is_the_one(process: &Process) -> bool {
    stat(process.pid).is_some_and(|found| {
        found.holds_resources()
            && process
                .start_time
                .is_none_or(|start_time| start_time == found.start_time)
    })
}

/// A pidfd becomes readable when its process has exited.
fn runs(fd: &OwnedFd) -> bool {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    !matches!(
        poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&now)),
        Ok(1)
    )
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::preset;

    #[test]
    fn only_the_living_are_listed_and_a_zombie_is_not_one() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let mut scenario = preset::build("t4x1", "t").unwrap();
        let entry = Process::new("0", child.id());
        let other = Process {
            start_time: Some(1),
            ..entry.clone()
        };
        let unbound = Process {
            start_time: None,
            ..entry.clone()
        };
        let phantom = Process {
            phantom: true,
            ..Process::new("0", 0)
        };
        scenario.processes = vec![
            entry.clone(),
            other,
            unbound.clone(),
            Process::new("0", 0),
            phantom.clone(),
        ];
        let alive = Alive::default();
        assert_eq!(
            alive.filter(&scenario, |_| true),
            [&entry, &unbound, &phantom]
        );

        child.kill().unwrap();
        // Not reaped yet: whoever waits for the zombie must not wait for its memory.
        while stat(child.id()).is_some_and(|stat| stat.state != 'Z') {
            std::thread::yield_now();
        }
        assert_eq!(alive.filter(&scenario, |_| true), [&phantom]);
        assert_eq!(Alive::default().filter(&scenario, |_| true), [&phantom]);
        child.wait().unwrap();

        scenario.processes.clear();
        assert!(alive.filter(&scenario, |_| true).is_empty());
        assert!(
            hold(&alive.watched).is_empty(),
            "what left the scenario is not watched any more"
        );
    }
}
