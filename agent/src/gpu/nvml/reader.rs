//! One pass over all GPUs. What does not change is kept between passes; each figure that does is asked once.
//!
//! Every [`LOOK_EVERY`] passes, and at once when anything does not fit what is known, the GPUs and their MIG instances are
//! looked up anew. Between that a pass costs one call for the count, seven for a GPU and one for a GPU instance.

use nvml_wrapper::{Device, Nvml};

use super::Unavailable;
use super::ask::{Asker, Got};
use super::slot::Slot;
use crate::gpu::gate::Gate;
use crate::gpu::protocol::Target;
use crate::gpu::raw::usage::UsageBuffer;
use crate::gpu::raw::{self, ProcessBuffer, misleads};
use crate::gpu::reading::{Doubt, HiddenGpu, NvmlState, Reading};

/// Passes between two looks at which GPUs and instances there are.
const LOOK_EVERY: u64 = 10;
/// Looks in a row that something that does not fit may cause; a driver that never fits must not be looked at all the time.
const LOOKS_IN_A_ROW: u32 = 3;
/// Passes after which a call that a GPU did not know is tried again.
const RETRY_LACKING_EVERY: u64 = 60;

/// A node has no more GPUs than this.
const MOST_EXCLUDED: u32 = 64;

/// Which GPUs are read.
#[derive(Clone, Debug, Default)]
pub(in crate::gpu) struct Scope {
    /// Only these, addressed without touching any other; all when empty.
    pub(in crate::gpu) only: Vec<Target>,
    /// Not these.
    pub(in crate::gpu) exclude: Vec<Target>,
}

/// What one pass gave.
#[derive(Debug)]
pub(in crate::gpu) struct Pass {
    pub(in crate::gpu) reading: Reading,
    /// GPUs that NVML counts but gives no handle for.
    pub(in crate::gpu) unidentified: u32,
    /// Newest return code that is a fault.
    pub(in crate::gpu) code: Option<u32>,
}

/// Reads NVML again and again.
#[derive(Debug)]
pub(in crate::gpu) struct Reader<'n> {
    nvml: &'n Nvml,
    gate: &'n Gate,
    scope: Scope,
    driver_version: Option<String>,
    /// It is one of those that write other process rows than their header says.
    misleading: bool,
    excluded: Vec<HiddenGpu>,
    slots: Vec<Slot<'n>>,
    count: u32,
    unidentified: u32,
    /// Newest fault of the last look; it stands until the next one.
    look_code: Option<u32>,
    passes: u64,
    /// Something did not fit: look at once.
    stale: bool,
    /// The driver said that a MIG layout changed: ask everything about it.
    recut: bool,
    looks_in_a_row: u32,
    buffer: ProcessBuffer,
    usage: UsageBuffer,
}

impl<'n> Reader<'n> {
    pub(in crate::gpu) fn new(nvml: &'n Nvml, gate: &'n Gate, scope: Scope) -> Self {
        Self {
            nvml,
            gate,
            scope,
            driver_version: None,
            misleading: false,
            excluded: Vec::new(),
            slots: Vec::new(),
            count: 0,
            unidentified: 0,
            look_code: None,
            passes: 0,
            stale: true,
            recut: false,
            looks_in_a_row: 0,
            buffer: ProcessBuffer::default(),
            usage: UsageBuffer::default(),
        }
    }

    /// UUID and PCI bus id of each GPU that is read.
    pub(in crate::gpu) fn gpus(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.slots.iter().map(|slot| (slot.uuid(), slot.pci()))
    }

    /// Something happened that a look must find: the next pass looks at once.
    pub(in crate::gpu) fn look_again(&mut self) {
        self.stale = true;
        self.recut = true;
    }

    /// One pass, with `more` also over what few ask for. `announce` hears of each GPU before it is touched.
    pub(in crate::gpu) fn read(
        &mut self,
        more: bool,
        announce: &mut dyn FnMut(&Target),
    ) -> Result<Pass, Unavailable> {
        self.gate.aim(None);
        let mut asker = Asker::new(self.gate);
        self.census(&mut asker)?;
        self.looks_in_a_row = if self.stale {
            self.looks_in_a_row.saturating_add(1)
        } else {
            0
        };
        let surprised = self.stale && self.looks_in_a_row <= LOOKS_IN_A_ROW;
        if surprised || self.passes.is_multiple_of(LOOK_EVERY) {
            self.look(announce)?;
        }
        self.stale = false;
        self.passes = self.passes.wrapping_add(1);
        let mut gpus = Vec::with_capacity(self.slots.len());
        let mut code = asker.code.or(self.look_code);
        for slot in &mut self.slots {
            let target = Target::Pci(slot.pci().to_owned());
            announce(&target);
            self.gate.aim(Some(target));
            let mut asker = Asker::new(self.gate);
            let mut row = slot.read(&mut asker, &mut self.buffer, &mut self.usage, more);
            let listed = row.processes.is_some();
            if listed && self.misleading && !row.doubts.contains(&Doubt::ProcessRows) {
                row.doubts.push(Doubt::ProcessRows);
            }
            gpus.push(row);
            self.stale |= asker.stale;
            code = asker.code.or(code);
            if let Some(unavailable) = asker.unavailable {
                return Err(unavailable);
            }
        }
        self.gate.aim(None);
        let reading = Reading {
            driver_version: self.driver_version.clone(),
            gpus,
            hidden: self.excluded.clone(),
        };
        Ok(Pass {
            reading,
            unidentified: self.unidentified,
            code,
        })
    }

    /// The calls about the node: driver version once, the count each time.
    fn census(&mut self, asker: &mut Asker<'_>) -> Result<(), Unavailable> {
        let nvml = self.nvml;
        if self.driver_version.is_none() {
            let version = asker.ask("nvmlSystemGetDriverVersion", || nvml.sys_driver_version());
            self.driver_version = version.value();
            self.misleading = self.driver_version.as_deref().is_some_and(misleads);
        }
        if self.scope.only.is_empty() {
            let call = "nvmlDeviceGetCount_v2";
            match asker.ask(call, || nvml.device_count()) {
                Got::Value(count) if count == self.count => {}
                Got::Value(count) => {
                    self.count = count;
                    self.stale = true;
                }
                Got::Lacking | Got::Unknown => {
                    return Err(asker.unavailable.take().unwrap_or_else(|| Unavailable {
                        state: NvmlState::Broken(format!("{call} does not answer")),
                        code: asker.code,
                    }));
                }
            }
        }
        asker.unavailable.take().map_or(Ok(()), Err)
    }

    /// Which GPUs and instances there are. A GPU without a handle drops out here; the agent shows it as lost.
    fn look(&mut self, announce: &mut dyn FnMut(&Target)) -> Result<(), Unavailable> {
        self.unidentified = 0;
        self.look_code = None;
        let retry = self.passes.is_multiple_of(RETRY_LACKING_EVERY);
        if retry {
            self.look_for_excluded()?;
        }
        let recut = std::mem::take(&mut self.recut);
        let mut known = std::mem::take(&mut self.slots);
        let targets = if self.scope.only.is_empty() {
            (0..self.count).map(Target::Index).collect()
        } else {
            self.scope.only.clone()
        };
        for target in targets {
            if self.scope.exclude.contains(&target) {
                continue;
            }
            let aim = name_of(&target, &known);
            announce(&aim);
            self.gate.aim(Some(aim));
            let mut asker = Asker::new(self.gate);
            match self.find(&mut asker, &target, &mut known) {
                Some(slot) if self.excluded(&slot) => {}
                Some(mut slot) => {
                    if recut {
                        slot.expect_another_layout();
                    }
                    slot.look(&mut asker, retry);
                    self.slots.push(slot);
                }
                None => self.unidentified = self.unidentified.saturating_add(1),
            }
            self.look_code = asker.code.or(self.look_code);
            if let Some(unavailable) = asker.unavailable {
                return Err(unavailable);
            }
        }
        Ok(())
    }

    /// GPUs that the driver leaves out. It does so when it is loaded.
    fn look_for_excluded(&mut self) -> Result<(), Unavailable> {
        let nvml = self.nvml;
        let mut asker = Asker::new(self.gate);
        let count = asker.ask("nvmlGetExcludedDeviceCount", || {
            nvml.excluded_device_count()
        });
        let count = match count {
            Got::Value(count) => count.min(MOST_EXCLUDED),
            Got::Lacking => 0,
            Got::Unknown => return asker.unavailable.take().map_or(Ok(()), Err),
        };
        self.excluded.clear();
        for index in 0..count {
            let gpu = asker.ask("nvmlGetExcludedDeviceInfoByIndex", || {
                raw::device::excluded(nvml, index)
            });
            self.excluded.extend(gpu.value());
        }
        asker.unavailable.take().map_or(Ok(()), Err)
    }

    fn find(
        &self,
        asker: &mut Asker<'_>,
        target: &Target,
        known: &mut Vec<Slot<'n>>,
    ) -> Option<Slot<'n>> {
        let nvml = self.nvml;
        let device: Device<'n> = match target {
            Target::Index(index) => asker.ask("nvmlDeviceGetHandleByIndex_v2", || {
                nvml.device_by_index(*index)
            }),
            Target::Pci(pci) => asker.ask("nvmlDeviceGetHandleByPciBusId_v2", || {
                nvml.device_by_pci_bus_id(pci.as_str())
            }),
        }
        .value()?;
        let uuid = asker.ask("nvmlDeviceGetUUID", || device.uuid()).value()?;
        let index = match target {
            Target::Index(index) => *index,
            Target::Pci(_) => asker.ask("nvmlDeviceGetIndex", || device.index()).value()?,
        };
        match known.iter().position(|slot| slot.uuid() == uuid) {
            Some(at) => {
                let mut slot = known.swap_remove(at);
                slot.readdress(device, index);
                Some(slot)
            }
            None => Slot::new(asker, device, uuid, index),
        }
    }

    fn excluded(&self, slot: &Slot<'_>) -> bool {
        let excludes = |target: &Target| target.is(slot.pci(), slot.index());
        self.scope.exclude.iter().any(excludes)
    }
}

/// The PCI bus id of what `target` was at the last look, because it stays when indices shift.
fn name_of(target: &Target, known: &[Slot<'_>]) -> Target {
    let index = match target {
        Target::Index(index) => *index,
        Target::Pci(_) => return target.clone(),
    };
    let slot = known.iter().find(|slot| slot.index() == index);
    slot.map_or_else(|| target.clone(), |slot| Target::Pci(slot.pci().to_owned()))
}
