//! Holders that the policy does not justify, as a reading shows them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::step::Process;
use crate::gpu::reading::{Health, NvmlState};
use crate::observation::{Device, DeviceKey, Observation, Owner, Reason};
use crate::policy::{Class, Ladder, Mode, Policy, Verdict, Whom};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Why, and what may be done.
    pub verdict: Verdict,
    /// Its processes there that can be told apart from others.
    pub processes: BTreeSet<Process>,
    /// It is a virtual machine.
    pub machine: bool,
}

/// Whether what a reading says of a device is what is so: of an unknown one nothing is done.
#[must_use]
pub fn known(seen: &Observation, device: &DeviceKey) -> bool {
    let of = seen.devices.get(device);
    seen.nvml == NvmlState::Ok && of.is_none_or(|of| readable(seen, device, of))
}

fn readable(seen: &Observation, key: &DeviceKey, device: &Device) -> bool {
    // Who is on an instance is told by the list of its GPU.
    let doubted = match key {
        DeviceKey::Mig(uuid, _, _) => {
            let gpu = seen.devices.get(&DeviceKey::Gpu(uuid.clone()));
            gpu.is_some_and(|gpu| !gpu.doubts.is_empty())
        }
        DeviceKey::Gpu(_) | DeviceKey::Vgpu(_) => false,
    };
    let doubted = doubted || !device.doubts.is_empty();
    device.health == Health::Ok && !device.unlisted && !doubted
}

/// All of them.
#[must_use]
pub fn findings(seen: &Observation, policy: &Policy) -> BTreeMap<Whom, Finding> {
    let mut found = BTreeMap::new();
    if seen.nvml != NvmlState::Ok {
        return found;
    }
    let all = seen.devices.iter();
    for (key, device) in all.filter(|(key, device)| readable(seen, key, device)) {
        for tenant in device.tenants() {
            let whom = Whom {
                tenant: Some(tenant.to_owned()),
                device: key.clone(),
            };
            let verdict = policy.verdicts.get(&whom).cloned();
            if let Some(verdict) = verdict.or_else(|| kept_off(policy, &whom)) {
                let theirs = |owner: &Owner| owner.tenant() == Some(tenant);
                found.insert(whom, finding(device, verdict, theirs));
            }
        }
        // Of whom the rules know nothing, not of whom nobody could be asked about.
        let nobodys = |owner: &Owner| owner.reason() == Some(Reason::NoRule);
        if device.owners().any(nobodys) {
            let verdict = Verdict {
                class: Class::Unattributed,
                ladder: policy.unattributed,
                held: String::new(),
            };
            let whom = Whom {
                tenant: None,
                device: key.clone(),
            };
            found.insert(whom, finding(device, verdict, nobodys));
        }
    }
    crowding(seen, policy, &mut found);
    found.retain(|_, finding| finding.verdict.class != Class::Ghost);
    found
}

fn finding(device: &Device, verdict: Verdict, of: impl Fn(&Owner) -> bool) -> Finding {
    let theirs = device.processes.iter().filter(|process| of(&process.owner));
    let named = |pid: Option<u32>, start_time: Option<u64>| {
        Some(Process {
            pid: pid?,
            start_time: start_time?,
        })
    };
    Finding {
        verdict,
        processes: theirs
            .filter_map(|it| named(it.pid, it.start_time))
            .collect(),
        machine: device.vgpu.as_ref().is_some_and(|vgpu| of(&vgpu.owner)),
    }
}

// Until the ledger has judged it, nothing above a warning is done by a rule alone.
fn provisional(class: Class, ladder: Ladder) -> Verdict {
    let mode = ladder.mode.min(Mode::Warn);
    Verdict {
        class,
        ladder: Ladder { mode, ..ladder },
        held: "the ledger has not judged it yet".to_owned(),
    }
}

fn kept_off(policy: &Policy, whom: &Whom) -> Option<Verdict> {
    let rule = policy.rules.get(&whom.device)?;
    let tenant = whom.tenant.as_ref()?;
    (!rule.only.contains(tenant)).then(|| provisional(rule.otherwise, policy.others))
}

// Which of the cards are too many is the ledger's to say; until it does, those that come last in order are shown.
fn crowding(seen: &Observation, policy: &Policy, found: &mut BTreeMap<Whom, Finding>) {
    for (tenant, most) in &policy.cards {
        let judged = |whom: &Whom| whom.tenant.as_deref() == Some(tenant.as_str());
        if found.keys().any(judged) {
            continue;
        }
        let mut cards = BTreeSet::new();
        for (key, device) in &seen.devices {
            if !readable(seen, key, device) || !device.tenants().contains(tenant.as_str()) {
                continue;
            }
            let card = match key {
                DeviceKey::Gpu(uuid) | DeviceKey::Mig(uuid, _, _) => uuid.as_str(),
                DeviceKey::Vgpu(_) => match &device.vgpu {
                    Some(vgpu) => vgpu.parent.as_str(),
                    None => continue,
                },
            };
            if cards.contains(card) || cards.len() < usize::try_from(*most).unwrap_or(usize::MAX) {
                cards.insert(card);
            } else {
                let verdict = provisional(Class::OverNodeLimit, policy.others);
                let theirs = |owner: &Owner| owner.tenant() == Some(tenant.as_str());
                let whom = Whom {
                    tenant: Some(tenant.clone()),
                    device: key.clone(),
                };
                found.insert(whom, finding(device, verdict, theirs));
            }
        }
    }
}
