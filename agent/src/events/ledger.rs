//! How often what went wrong, by GPU and by tenant. Pure. Two witnesses tell of the same events, the driver's own channel and
//! the kernel log; what both tell within a few seconds happened once.

use std::collections::BTreeMap;

use crate::gpu::event::{DriverEvent, Happening};
use crate::gpu::pci::PciAddress;
use crate::observation::{DeviceKey, Observation};

use super::nvrm::Trouble;
use super::xid::{Class, classify};

mod blame;

use blame::{Docket, Suspect, Told, suspect};

/// What one witness tells after the other is news once this has gone by since either spoke last.
const SAME_MS: u64 = 5_000;
/// Rows of one kind; a node has tens.
const MOST_ROWS: usize = 512;

/// Who told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// NVML's event set.
    Driver,
    /// The kernel log.
    KernelLog,
}

/// How often one thing happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Since the agent started.
    pub count: u64,
    /// Wall clock of the newest, seconds since 1970.
    pub last_unix_s: i64,
    told_ms: u64,
    by_driver: u64,
    by_log: u64,
}

impl Times {
    /// Adds what a witness tells and returns how much of it is new.
    fn add(&mut self, times: u64, by: Witness, now: Now) -> u64 {
        if self.count == 0 || now.boottime_ms.saturating_sub(self.told_ms) > SAME_MS {
            (self.by_driver, self.by_log) = (0, 0);
        }
        let before = self.by_driver.max(self.by_log);
        let own = match by {
            Witness::Driver => &mut self.by_driver,
            Witness::KernelLog => &mut self.by_log,
        };
        *own = own.saturating_add(times);
        let new = self.by_driver.max(self.by_log) - before;
        self.told_ms = now.boottime_ms;
        if new > 0 {
            self.count = self.count.saturating_add(new);
            self.last_unix_s = now.unix_s;
        }
        new
    }
}

/// The time on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// CLOCK_BOOTTIME, milliseconds.
    pub boottime_ms: u64,
    /// Wall clock, seconds since 1970.
    pub unix_s: i64,
}

/// All counts since the agent started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    xids: BTreeMap<(String, u64), Times>,
    falls: BTreeMap<String, Times>,
    layouts: BTreeMap<String, Times>,
    others: BTreeMap<(String, u64), Times>,
    tenants: BTreeMap<(String, Class), u64>,
    docket: Docket,
    /// By GPU and GPU instance, where the witness names one.
    last: BTreeMap<(String, Option<u32>), Last>,
    dropped: u64,
}

/// The newest XID of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Last {
    xid: u64,
    /// The layout of the GPU when it happened; the number of an instance means another one in the next.
    generation: Option<u64>,
}

impl Ledger {
    /// An event of the driver. `before`: who held what when it happened.
    pub fn heard(&mut self, event: &DriverEvent, before: Option<&Observation>, now: Now) {
        let DriverEvent {
            uuid,
            gi,
            ci,
            count,
            ..
        } = event;
        match event.what {
            Happening::Xid(xid) => {
                let told = Told {
                    uuid,
                    xid,
                    place: (*gi, *ci),
                    pid: None,
                    count: *count,
                };
                self.add_xid(&told, Witness::Driver, before, now);
            }
            Happening::MigChange => self.count(|own| &mut own.layouts, uuid.clone(), *count, now),
            Happening::Other(kind) => {
                self.count(|own| &mut own.others, (uuid.clone(), kind), *count, now);
            }
        }
    }

    /// A line of the kernel log. `uuid`: of the GPU at its address, if that was ever read.
    pub fn read(
        &mut self,
        trouble: &Trouble,
        uuid: Option<&str>,
        before: Option<&Observation>,
        now: Now,
    ) {
        let uuid = uuid.map_or_else(|| unnamed(trouble.gpu), str::to_owned);
        if let Some(xid) = trouble.xid {
            let told = Told {
                uuid: &uuid,
                xid,
                place: (trouble.gi, trouble.ci),
                pid: trouble.pid,
                count: 1,
            };
            self.add_xid(&told, Witness::KernelLog, before, now);
        }
        if trouble.fell_off {
            let room = self.falls.len() < MOST_ROWS;
            match self.falls.get_mut(&uuid) {
                // The driver says it in several lines.
                Some(times) if now.boottime_ms.saturating_sub(times.told_ms) <= SAME_MS => {
                    times.told_ms = now.boottime_ms;
                }
                Some(times) => {
                    times.add(1, Witness::KernelLog, now);
                }
                None if room => {
                    self.falls
                        .entry(uuid)
                        .or_default()
                        .add(1, Witness::KernelLog, now);
                }
                None => self.drop(1),
            }
        }
    }

    /// Events that nobody had room for.
    pub fn drop(&mut self, count: u64) {
        self.dropped = self.dropped.saturating_add(count);
    }

    /// XIDs by GPU and number.
    pub fn xids(&self) -> impl Iterator<Item = (&str, u64, &Times)> {
        self.xids
            .iter()
            .map(|((uuid, xid), times)| (uuid.as_str(), *xid, times))
    }

    /// The newest XID of a GPU (`gi` is `None`: those that no witness tied to an instance), or of a GPU instance that is still the
    /// one that it happened on: the GPU's layout has this generation. `None`: nobody told of any.
    #[must_use]
    pub fn last_xid(&self, uuid: &str, gi: Option<u32>, generation: Option<u64>) -> Option<u64> {
        let last = self.last.get(&(uuid.to_owned(), gi))?;
        (gi.is_none() || last.generation == generation).then_some(last.xid)
    }

    /// GPUs that fell off the bus, as the kernel log tells.
    pub fn falls(&self) -> impl Iterator<Item = (&str, &Times)> {
        self.falls
            .iter()
            .map(|(uuid, times)| (uuid.as_str(), times))
    }

    /// Changes of the MIG layout, as the driver tells.
    pub fn layouts(&self) -> impl Iterator<Item = (&str, &Times)> {
        self.layouts
            .iter()
            .map(|(uuid, times)| (uuid.as_str(), times))
    }

    /// Other events of the driver by GPU and bit of their kind.
    pub fn others(&self) -> impl Iterator<Item = (&str, u64, &Times)> {
        self.others
            .iter()
            .map(|((uuid, kind), times)| (uuid.as_str(), *kind, times))
    }

    /// XIDs by whose they are; an empty name: it cannot be told.
    pub fn tenants(&self) -> impl Iterator<Item = (&str, Class, u64)> {
        self.tenants
            .iter()
            .map(|((tenant, class), count)| (tenant.as_str(), *class, *count))
    }

    /// Events that had no room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whose the XIDs are that wait for a reading after them. `after`: the newest one; `now`: the time of this pass.
    pub fn decide(&mut self, after: &Observation, now: Now) {
        for (tenant, class, count) in self.docket.decide(after, now.boottime_ms) {
            self.charge(tenant, class, count);
        }
    }

    /// Whether any waits.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        !self.docket.is_empty()
    }

    fn add_xid(&mut self, told: &Told<'_>, by: Witness, before: Option<&Observation>, now: Now) {
        let Told {
            uuid, xid, place, ..
        } = *told;
        let key = (uuid.to_owned(), xid);
        if self.xids.len() >= MOST_ROWS && !self.xids.contains_key(&key) {
            self.remember(uuid, place.0, xid, before);
            self.drop(told.count);
            return;
        }
        let times = self.xids.entry(key).or_default();
        let first = times.count == 0 || now.boottime_ms.saturating_sub(times.told_ms) > SAME_MS;
        let new = times.add(told.count, by, now);
        // The second witness may know the instance where the first did not.
        if new > 0 || place.0.is_some() {
            self.remember(uuid, place.0, xid, before);
        }
        let suspect = suspect(told, before, now.boottime_ms);
        if new == 0 {
            // It may know the process, too.
            let certain = match suspect {
                Suspect::Certain(tenant) => Some(tenant),
                Suspect::Alone(_) | Suspect::Nobody => None,
            };
            if told.pid.is_some()
                && let Some(class) = self.docket.take(told, certain.as_deref())
            {
                self.charge(certain, class, told.count);
            }
            return;
        }
        let class = classify(xid);
        if first {
            let class = class.as_str();
            tracing::warn!(
                gpu.uuid = uuid,
                xid,
                class,
                ?suspect,
                ?by,
                "the driver reports an XID"
            );
        }
        let told = Told {
            count: new,
            ..*told
        };
        match suspect {
            Suspect::Certain(tenant) => self.charge(Some(tenant), class, new),
            Suspect::Alone(tenant) => {
                if !self.docket.wait(&told, class, tenant, now.boottime_ms) {
                    self.charge(None, class, new);
                }
            }
            Suspect::Nobody => self.charge(None, class, new),
        }
    }

    fn charge(&mut self, tenant: Option<String>, class: Class, count: u64) {
        let key = (tenant.unwrap_or_default(), class);
        let room = self.tenants.len() < MOST_ROWS || self.tenants.contains_key(&key);
        let key = if room { key } else { (String::new(), class) };
        let own = self.tenants.entry(key).or_default();
        *own = own.saturating_add(count);
    }

    fn remember(&mut self, uuid: &str, gi: Option<u32>, xid: u64, before: Option<&Observation>) {
        let key = (uuid.to_owned(), gi);
        if self.last.len() >= MOST_ROWS && !self.last.contains_key(&key) {
            return;
        }
        let gpu = before.and_then(|before| before.devices.get(&DeviceKey::Gpu(uuid.to_owned())));
        let generation = gpu.and_then(|gpu| gpu.mig_generation);
        self.last.insert(key, Last { xid, generation });
    }

    fn count<K: Ord>(
        &mut self,
        rows: impl FnOnce(&mut Self) -> &mut BTreeMap<K, Times>,
        key: K,
        count: u64,
        now: Now,
    ) {
        let rows = rows(self);
        if rows.len() >= MOST_ROWS && !rows.contains_key(&key) {
            self.drop(count);
            return;
        }
        rows.entry(key)
            .or_default()
            .add(count, Witness::Driver, now);
    }
}

/// A GPU that was never read has no UUID.
fn unnamed(gpu: PciAddress) -> String {
    format!("PCI-{gpu}")
}

#[cfg(test)]
mod tests;
