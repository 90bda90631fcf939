//! Whose an XID is. Pure.
//!
//! A reading says who held what before the XID came, and the next one who holds it after; neither says who held it at that
//! moment. So a tenant is charged only where both name it alone, or where the kernel module itself names the process and the
//! reading before has that process there. All else stays on the GPU without a tenant.

use std::collections::BTreeSet;

use crate::events::xid::Class;
use crate::gpu::reading::{Doubt, Health, NvmlState};
use crate::observation::{Device, DeviceKey, Observation};

/// A reading that is older than this, milliseconds, says nothing of who holds what when an XID is heard.
const YOUNG_MS: u64 = 10_000;
/// So long a good reading afterwards is waited for, milliseconds.
const WAIT_MS: u64 = 60_000;
/// XIDs that wait for one at once.
const MOST_WAITING: usize = 512;

/// GPU instance and compute instance, where the witness names them.
pub(super) type Place = (Option<u32>, Option<u32>);

/// What is told of one XID.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'t> {
    pub(super) uuid: &'t str,
    pub(super) xid: u64,
    pub(super) place: Place,
    /// Process that the kernel module names.
    pub(super) pid: Option<u32>,
    pub(super) count: u64,
}

/// Whose it is, as far as the reading before tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Suspect {
    /// The process is this tenant's.
    Certain(String),
    /// This tenant was alone there.
    Alone(String),
    /// It cannot be told.
    Nobody,
}

pub(super) fn suspect(told: &Told<'_>, before: Option<&Observation>, now_ms: u64) -> Suspect {
    let young = |before: &&Observation| now_ms.saturating_sub(before.at_boottime_ms) <= YOUNG_MS;
    let Some(before) = before.filter(young) else {
        return Suspect::Nobody;
    };
    let named = match told.pid {
        Some(pid) => tenant_of(before, told, pid).map(Suspect::Certain),
        None => only_holder(before, told.uuid, told.place).map(Suspect::Alone),
    };
    named.unwrap_or(Suspect::Nobody)
}

/// An XID that waits for the reading after it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiting {
    uuid: String,
    xid: u64,
    place: Place,
    class: Class,
    count: u64,
    tenant: String,
    since_ms: u64,
}

/// All that wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Docket {
    waiting: Vec<Waiting>,
}

/// Whose so many XIDs of a class are; `None`: nobody knows.
pub(super) type Verdict = (Option<String>, Class, u64);

impl Docket {
    /// Waits for the reading that confirms the tenant. `false`: there is no room.
    pub(super) fn wait(
        &mut self,
        told: &Told<'_>,
        class: Class,
        tenant: String,
        now_ms: u64,
    ) -> bool {
        if self.waiting.len() >= MOST_WAITING {
            return false;
        }
        self.waiting.push(Waiting {
            uuid: told.uuid.to_owned(),
            xid: told.xid,
            place: told.place,
            class,
            count: told.count,
            tenant,
            since_ms: now_ms,
        });
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The other witness names the process of one that waits: its tenant, or nobody, is to be charged at once. Where several
    /// instances have the same, it is the one that the witness names, else the one that the process's tenant has.
    pub(super) fn take(&mut self, told: &Told<'_>, tenant: Option<&str>) -> Option<Class> {
        let same = |one: &&(usize, &Waiting)| {
            let (_, one) = one;
            let here = told.place.0.is_none() || one.place.0 == told.place.0;
            one.uuid == told.uuid && one.xid == told.xid && here
        };
        let waiting: Vec<(usize, &Waiting)> = self.waiting.iter().enumerate().collect();
        let mut fitting = waiting.iter().filter(same);
        let of_tenant = fitting
            .clone()
            .find(|(_, one)| Some(one.tenant.as_str()) == tenant);
        let at = of_tenant.or_else(|| fitting.next()).map(|(at, _)| *at)?;
        let found = self.waiting.get_mut(at)?;
        let class = found.class;
        found.count = found.count.saturating_sub(told.count);
        if found.count == 0 {
            self.waiting.remove(at);
        }
        Some(class)
    }

    /// Decides what can be decided by a reading.
    pub(super) fn decide(&mut self, after: &Observation, now_ms: u64) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        self.waiting.retain(|one| {
            // The reading that was under way when it was heard may be older than the XID.
            let later = after.at_boottime_ms > one.since_ms;
            let good = later && is_good(after, &one.uuid, one.place);
            let given_up = now_ms.saturating_sub(one.since_ms) > WAIT_MS;
            if !good && !given_up {
                return true;
            }
            let holder = only_holder(after, &one.uuid, one.place).filter(|_| good);
            let confirmed = holder.filter(|holder| *holder == one.tenant);
            verdicts.push((confirmed, one.class, one.count));
            false
        });
        verdicts
    }
}

/// The devices that an XID is about: the instance where it names one, else the whole GPU.
fn about<'o>(seen: &'o Observation, uuid: &str, place: Place) -> impl Iterator<Item = &'o Device> {
    let fits = move |key: &DeviceKey| match (key, place) {
        (DeviceKey::Mig(gpu, gi, ci), (Some(at), part)) => {
            gpu == uuid && *gi == at && part.is_none_or(|part| part == *ci)
        }
        (DeviceKey::Gpu(gpu), (None, _)) => gpu == uuid,
        _ => false,
    };
    let of_gpu = seen.devices.iter();
    let fitting = of_gpu.filter(move |(key, _)| fits(key));
    fitting
        .map(|(_, device)| device)
        .collect::<Vec<_>>()
        .into_iter()
}

/// All that it is about was read, and so was the GPU.
fn is_good(seen: &Observation, uuid: &str, place: Place) -> bool {
    let gpu = seen.devices.get(&DeviceKey::Gpu(uuid.to_owned()));
    seen.nvml == NvmlState::Ok
        && gpu.is_some_and(|gpu| {
            let doubted = |doubt| gpu.doubts.contains(&doubt);
            gpu.health == Health::Ok && !doubted(Doubt::ProcessRows) && !doubted(Doubt::Pids)
        })
        && about(seen, uuid, place).all(|device| device.health == Health::Ok)
}

/// The one tenant that held what it is about, in a good reading.
fn only_holder(seen: &Observation, uuid: &str, place: Place) -> Option<String> {
    if !is_good(seen, uuid, place) {
        return None;
    }
    let mut tenants = BTreeSet::new();
    for device in about(seen, uuid, place) {
        if device.partitioned || device.unattributed() {
            return None;
        }
        tenants.extend(device.tenants());
    }
    let only = tenants.pop_first().map(str::to_owned);
    only.filter(|_| tenants.is_empty())
}

/// The tenant of a process that a good reading has on that GPU.
fn tenant_of(seen: &Observation, told: &Told<'_>, pid: u32) -> Option<String> {
    // Not every line names the instance.
    let of_gpu = |key: &DeviceKey| match key {
        DeviceKey::Gpu(gpu) | DeviceKey::Mig(gpu, ..) => gpu == told.uuid,
        DeviceKey::Vgpu(_) => false,
    };
    let devices = seen.devices.iter().filter(|(key, _)| of_gpu(key));
    let mut processes = devices.flat_map(|(_, device)| &device.processes);
    let process = processes.find(|process| process.pid == Some(pid))?;
    let known = process.start_time.is_some() && is_good(seen, told.uuid, told.place);
    process.owner.tenant().filter(|_| known).map(str::to_owned)
}
