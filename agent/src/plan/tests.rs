//! The ladder rung by rung, with a kernel made of a table.

mod edges;
mod kept;

use std::collections::BTreeMap;

use super::*;
use crate::gpu::reading::{Doubt, Health, NvmlState};
use crate::observation::{AttributedProcess, Device, Owner, Reason, Source};
use crate::policy::{Ladder, Rule, Verdict, Version};

const NODE: &str = "/dev/nvidia0";

fn gpu(name: &str) -> DeviceKey {
    DeviceKey::Gpu(name.to_owned())
}

fn whom(tenant: &str, device: &str) -> Whom {
    Whom {
        tenant: Some(tenant.to_owned()),
        device: gpu(device),
    }
}

fn able() -> Able {
    Able {
        most: Mode::Evict,
        ended_per_minute: 100,
        no_restriction: None,
        no_signal: None,
    }
}

#[derive(Default)]
struct Table {
    groups: BTreeMap<u32, Grouped>,
    gone: BTreeSet<u32>,
    nodes: BTreeMap<DeviceKey, Vec<String>>,
    /// Who is in a group beside those of the reading; of others nobody is.
    tenants: BTreeMap<String, Option<BTreeSet<Option<String>>>>,
}

impl Kernel for Table {
    fn group(&mut self, process: Process) -> Option<Grouped> {
        if self.gone.contains(&process.pid) {
            return None;
        }
        let own = || Grouped::Theirs(format!("/user.slice/user-{}.slice", process.pid));
        Some(self.groups.get(&process.pid).cloned().unwrap_or_else(own))
    }

    fn path(&mut self, process: Process) -> Option<String> {
        (!self.gone.contains(&process.pid)).then(|| format!("/g{}", process.pid))
    }

    fn nodes(&mut self, device: &DeviceKey) -> Vec<String> {
        let named = self.nodes.get(device).cloned();
        named.unwrap_or_else(|| vec![NODE.to_owned()])
    }

    fn tenants(&mut self, group: &str) -> Option<BTreeSet<Option<String>>> {
        self.tenants
            .get(group)
            .cloned()
            .unwrap_or_else(|| Some(BTreeSet::new()))
    }

    fn open_nodes(&mut self, device: &DeviceKey) -> Vec<String> {
        self.nodes(device)
    }
}

fn owner(tenant: &str) -> Owner {
    match tenant {
        "" => Owner::Unattributed(Reason::NoRule),
        "?" => Owner::Unattributed(Reason::Pending),
        "system" => Owner::System,
        name => Owner::Tenant {
            name: name.to_owned(),
            source: Source::User,
        },
    }
}

/// Devices with the pids and tenants on them.
fn seen(at: u64, devices: &[(&str, &[(u32, &str)])]) -> Observation {
    let device = |(name, on): &(&str, &[(u32, &str)])| {
        let process = |(pid, tenant): &(u32, &str)| AttributedProcess {
            pid: Some(*pid),
            start_time: Some(u64::from(*pid) * 10),
            owner: owner(tenant),
            kind: None,
            used_memory_bytes: None,
            sm: Default::default(),
        };
        let device = Device {
            health: Health::Ok,
            processes: on.iter().map(process).collect(),
            ..Device::default()
        };
        (gpu(name), device)
    };
    Observation {
        at_boottime_ms: at,
        nvml: NvmlState::Ok,
        driver_version: None,
        devices: devices.iter().map(device).collect(),
        hidden: Vec::new(),
    }
}

fn policy(mode: Mode, against: &[(&str, &str)]) -> Policy {
    let ladder = Ladder {
        mode,
        grace_ms: 1000,
        term_grace_ms: 500,
    };
    let verdict = Verdict {
        class: Class::OverQuota,
        ladder,
        held: String::new(),
    };
    let verdicts = against
        .iter()
        .map(|(tenant, device)| (whom(tenant, device), verdict.clone()));
    Policy {
        version: Version {
            incarnation: 0,
            row: 7,
        },
        valid_for_ms: 1,
        verdicts: verdicts.collect(),
        ..Policy::default()
    }
}

struct Bench {
    plan: Plan,
    table: Table,
    able: Able,
}

impl Bench {
    fn new() -> Self {
        Self {
            plan: Plan::default(),
            table: Table::default(),
            able: able(),
        }
    }

    fn look(&mut self, now: u64, seen: &Observation, policy: &Policy) -> Due {
        self.plan
            .look(now, seen, policy, &self.able, &mut self.table)
    }

    /// Looks, and does what is asked for; the server takes it at once.
    fn go(&mut self, now: u64, seen: &Observation, policy: &Policy) -> Vec<(Rung, Option<u32>)> {
        let due = self.look(now, seen, policy);
        for step in due.ask.iter().chain(&due.lift) {
            self.plan.done(step, Outcome::Done, "", now);
            self.plan.restrictions_mut().told(step, now);
        }
        self.plan.restrictions_mut().settle(now);
        let steps = due.ask.iter().chain(&due.lift);
        steps
            .map(|step| (step.rung, step.process.map(|process| process.pid)))
            .collect()
    }
}

fn told(due: &Due) -> Vec<(Rung, Outcome)> {
    due.tell
        .iter()
        .map(|told| (told.step.rung, told.outcome))
        .collect()
}

#[test]
fn rule_16_it_warns_restricts_ends_and_verifies_in_that_order() {
    let mut bench = Bench::new();
    let policy = policy(Mode::Evict, &[("b", "G0")]);
    let both: &[(u32, &str)] = &[(1, "a"), (2, "b")];
    let due = bench.look(0, &seen(0, &[("G0", both)]), &policy);
    assert_eq!(
        (told(&due), due.ask.len()),
        (vec![(Rung::Warn, Outcome::Done)], 0)
    );
    // Told once, and nothing above it within the grace.
    assert_eq!(
        bench.look(999, &seen(999, &[("G0", both)]), &policy),
        Due::default()
    );
    let restricted = bench.go(1000, &seen(1000, &[("G0", both)]), &policy);
    assert_eq!(restricted, [(Rung::Restrict, None)]);
    assert_eq!(
        bench.plan.restrictions().wanted()[0].group,
        "/user.slice/user-2.slice"
    );
    // Only the tenant that the ledger does not justify; its neighbour is left alone.
    assert_eq!(
        bench.go(1001, &seen(1001, &[("G0", both)]), &policy),
        [(Rung::Term, Some(2))]
    );
    assert_eq!(bench.go(1500, &seen(1500, &[("G0", both)]), &policy), []);
    assert_eq!(
        bench.go(1501, &seen(1501, &[("G0", both)]), &policy),
        [(Rung::Kill, Some(2))]
    );
    // It stays denied while the ledger says so, and one clean reading is not enough.
    let clean: &[(u32, &str)] = &[(1, "a")];
    let denied = Policy {
        denials: [whom("b", "G0")].into(),
        ..Policy::default()
    };
    assert_eq!(
        bench.look(2000, &seen(2000, &[("G0", clean)]), &denied),
        Due::default()
    );
    assert_eq!(
        bench.look(2001, &seen(2000, &[("G0", clean)]), &denied),
        Due::default()
    );
    let due = bench.look(3000, &seen(3000, &[("G0", clean)]), &denied);
    assert_eq!(
        (told(&due), due.lift.len()),
        (vec![(Rung::Kill, Outcome::Verified)], 0)
    );
    assert_eq!(
        bench.go(4000, &seen(4000, &[("G0", clean)]), &Policy::default()),
        [(Rung::Lift, None)]
    );
    assert!(bench.plan.restrictions().is_empty());
}

#[test]
fn case_74_a_raised_limit_cancels_what_is_due_and_gives_back_what_was_denied() {
    let mut bench = Bench::new();
    let on = seen(0, &[("G0", &[(2, "b")])]);
    let against = policy(Mode::Evict, &[("b", "G0")]);
    bench.go(0, &on, &against);
    assert_eq!(bench.go(1000, &on, &against), [(Rung::Restrict, None)]);
    assert_eq!(
        bench.go(1001, &on, &Policy::default()),
        [(Rung::Lift, None)]
    );
    // A later violation has its grace again.
    assert_eq!(bench.go(1002, &on, &against), []);
    assert_eq!(bench.go(2002, &on, &against), [(Rung::Restrict, None)]);
}

#[test]
fn case_71_who_leaves_for_a_moment_gets_no_new_grace_and_who_comes_from_elsewhere_is_restricted_there_too()
 {
    let mut bench = Bench::new();
    let policy = policy(Mode::Evict, &[("b", "G0")]);
    bench.go(0, &seen(0, &[("G0", &[(2, "b")])]), &policy);
    bench.go(1000, &seen(1000, &[("G0", &[])]), &policy);
    let back = seen(1500, &[("G0", &[(3, "b")])]);
    assert_eq!(bench.go(1500, &back, &policy), [(Rung::Restrict, None)]);
    let more = seen(1600, &[("G0", &[(3, "b"), (4, "b")])]);
    assert_eq!(bench.go(1600, &more, &policy), [(Rung::Restrict, None)]);
    assert_eq!(
        bench.go(1601, &more, &policy),
        [(Rung::Term, Some(3)), (Rung::Term, Some(4))]
    );
    // After a minute it is another story.
    bench.look(70_000, &seen(70_000, &[("G0", &[])]), &policy);
    assert_eq!(
        bench.go(70_001, &seen(70_001, &[("G0", &[(5, "b")])]), &policy),
        []
    );
}

#[test]
fn case_72_of_what_is_not_certain_nothing_is_done_and_nothing_is_forgotten() {
    let policy = policy(Mode::Evict, &[("b", "G0")]);
    let on = |at| seen(at, &[("G0", &[(2, "b")])]);
    let mut silent = on(2000);
    silent.nvml = NvmlState::Unresponsive("NVML does not answer".to_owned());
    let spoil = |change: fn(&mut Device)| {
        let mut seen = on(2000);
        seen.devices.values_mut().for_each(change);
        seen
    };
    let doubtful = [
        silent,
        spoil(|device| device.health = Health::Hung),
        spoil(|device| device.unlisted = true),
        spoil(|device| device.doubts = vec![Doubt::Instances]),
    ];
    for unknown in doubtful {
        let mut bench = Bench::new();
        bench.go(0, &on(0), &policy);
        bench.go(1000, &on(1000), &policy);
        assert_eq!(
            bench.look(2000, &unknown, &policy),
            Due::default(),
            "{unknown:?}"
        );
        assert_eq!(bench.go(2001, &on(2001), &policy), [(Rung::Term, Some(2))]);
    }
    // Who is on an instance is told by the list of its GPU, and so are the doubts.
    let instance = DeviceKey::Mig("G1".to_owned(), 1, 0);
    let mut cut = seen(0, &[("G0", &[(2, "b")]), ("G1", &[])]);
    let held = cut.devices[&gpu("G0")].clone();
    cut.devices.insert(instance.clone(), held);
    assert!(known(&cut, &instance) && known(&cut, &gpu("G0")));
    let parent = cut.devices.get_mut(&gpu("G1")).unwrap();
    parent.doubts = vec![Doubt::ProcessRows];
    assert!(!known(&cut, &instance) && known(&cut, &gpu("G0")));
    // Nobody is judged before the kernel or a runtime was asked, and the driver's own are nobody's.
    let mut all = Policy {
        unattributed: policy.verdicts[&whom("b", "G0")].ladder,
        unattributed_chosen: Mode::Evict,
        ..Policy::default()
    };
    all.unattributed.grace_ms = 0;
    let mut bench = Bench::new();
    let mixed = seen(0, &[("G0", &[(2, "?"), (3, "system"), (4, "")])]);
    assert_eq!(bench.go(0, &mixed, &all), [(Rung::Restrict, None)]);
    assert_eq!(bench.go(0, &mixed, &all), [(Rung::Term, Some(4))]);
}

#[test]
fn case_77_a_node_that_cannot_says_so_once_and_goes_as_far_as_it_can() {
    let policy = policy(Mode::Evict, &[("b", "G0")]);
    let on = |at| seen(at, &[("G0", &[(2, "b")])]);
    let mut bench = Bench::new();
    bench.able.no_restriction = Some("no bpf".to_owned());
    bench.go(0, &on(0), &policy);
    let due = bench.look(1000, &on(1000), &policy);
    assert_eq!(told(&due), [(Rung::Restrict, Outcome::Impossible)]);
    assert_eq!(due.ask[0].rung, Rung::Term);
    assert_eq!(told(&bench.look(1001, &on(1001), &policy)), []);
    bench.able.no_signal = Some("no pidfd".to_owned());
    let due = bench.look(1002, &on(1002), &policy);
    assert_eq!(
        (told(&due), due.ask.len()),
        (vec![(Rung::Term, Outcome::Impossible)], 0)
    );
    // What another manager owns is not restricted, but its process is ended.
    let mut bench = Bench::new();
    bench
        .table
        .groups
        .insert(2, Grouped::Nobodys("a runtime owns it"));
    bench.go(0, &on(0), &policy);
    assert_eq!(bench.go(1000, &on(1000), &policy), [(Rung::Term, Some(2))]);
    // The operator of the node has the last word.
    let mut bench = Bench::new();
    bench.able.most = Mode::Warn;
    bench.go(0, &on(0), &policy);
    assert_eq!(bench.go(9000, &on(9000), &policy), []);
}
