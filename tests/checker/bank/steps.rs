//! Steps of agents: only against who holds the device of that node without right, only as far as was said, never more of
//! one tenant in a minute than the guard lets through without a person, and each outcome once.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::enforcement::{Guard, Mode};
use gpuquota_core::event::Event;
use gpuquota_core::id::{NodeName, TenantName};
use gpuquota_core::step::{StepClass, StepsBegun};

use super::super::Rule;
use super::super::fold::Durable;
use super::Broken;
use super::devices::Devices;
use super::leases::Leases;

const MINUTE_MS: i64 = 60_000;

/// A process that was to be ended: when, and which.
type Ended = (i64, (NodeName, Option<u32>, Option<u64>));

#[derive(Default)]
pub(super) struct Steps {
    usual: Mode,
    guard: Guard,
    own: BTreeMap<TenantName, Mode>,
    /// By tenant; `None`: nobody's processes.
    confirmed: BTreeMap<Option<TenantName>, i64>,
    ended: BTreeMap<Option<TenantName>, Vec<Ended>>,
    told: BTreeMap<(NodeName, String), u64>,
}

impl Steps {
    /// `devices` and `leases` are what was known before this event.
    pub(super) fn take(
        &mut self,
        event: &Event,
        row: &Durable,
        (devices, leases): (&Devices, &Leases),
        broken: &mut Broken,
    ) {
        match event {
            Event::SettingsSet(settings) => {
                self.usual = settings.enforcing.usual.mode;
                self.guard = settings.enforcing.guard;
            }
            Event::TenantSet(profile) => {
                match &profile.enforcement {
                    Some(own) => self.own.insert(profile.tenant.clone(), own.mode),
                    None => self.own.remove(&profile.tenant),
                };
            }
            Event::StepsConfirmed(said) => {
                self.confirmed.insert(said.tenant.clone(), said.until.0);
            }
            Event::StepsBegun(begun) => self.begun(begun, row, (devices, leases), broken),
            Event::StepEnded(ended) => {
                let before = self
                    .told
                    .insert((ended.node.clone(), ended.boot.clone()), ended.number);
                if before.is_some_and(|before| before >= ended.number) {
                    let text = format!("outcome {} of {} counts twice", ended.number, ended.node);
                    broken.add(Rule::Once, text);
                }
            }
            _ => {}
        }
    }

    fn begun(
        &mut self,
        begun: &StepsBegun,
        row: &Durable,
        (devices, leases): (&Devices, &Leases),
        broken: &mut Broken,
    ) {
        let mut touched = BTreeSet::new();
        for one in &begun.steps {
            let step = &one.step;
            let mut wrong = |what: &str| broken.add(Rule::Step, format!("{what}: {step:?}"));
            let report = devices.report(&step.device);
            if devices.node(&step.device) != Some(&begun.node) {
                wrong("a step on a device of another node");
            }
            if step.rung.ends() {
                let process = (begun.node.clone(), step.pid, step.start_time);
                let ended = self.ended.entry(step.tenant.clone()).or_default();
                ended.push((row.at, process));
                touched.insert(step.tenant.clone());
            }
            let Some(tenant) = &step.tenant else {
                if report.is_none_or(|report| !report.unattributed) {
                    wrong("a step against nobody where there is none");
                }
                continue;
            };
            if report.is_none_or(|report| !report.tenants.contains(tenant)) {
                wrong("a step against who does not hold the device");
            }
            let mut leased = leases.live.values();
            let to_another =
                leased.any(|it| it.devices.contains(&step.device) && it.terms.tenant != *tenant);
            let justified = match step.class {
                StepClass::Foreign => !to_another,
                _ => !devices.over_there(leases, tenant, &step.device, row.at),
            };
            if justified {
                wrong("a step against who has a right to the device");
            }
            let most = self.own.get(tenant).copied().unwrap_or(self.usual);
            if step.rung.needs().is_none_or(|needs| needs > most) {
                wrong("a step farther than was said");
            }
        }
        for tenant in touched {
            let ended = self.ended.entry(tenant.clone()).or_default();
            ended.retain(|(at, _)| *at > row.at - MINUTE_MS);
            let processes: BTreeSet<_> = ended.iter().map(|(_, process)| process).collect();
            let through = self
                .confirmed
                .get(&tenant)
                .is_some_and(|until| *until > row.at);
            let most = usize::try_from(self.guard.processes).unwrap_or(usize::MAX);
            if processes.len() > most && !through {
                let count = processes.len();
                let whose = tenant.as_ref().map_or("nobody", TenantName::as_str);
                let text =
                    format!("{count} processes of {whose} in a minute, and nobody was asked");
                broken.add(Rule::Step, text);
            }
        }
    }
}
