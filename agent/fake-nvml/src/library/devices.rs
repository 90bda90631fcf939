//! Device handles and what they lead to.
//!
//! A handle stands for a UUID, not for a place in the file, so it stays good while the scenario changes around it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::scenario::{Gpu, Mig, Process, Scenario};

use super::{Answer, Code, hold, library};

/// What a handle stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(super) gpu: String,
    /// A MIG device or a vGPU instance on it.
    pub(super) part: Option<String>,
}

/// What the handle of a GPU instance stands for. No UUID looks like its part.
pub(super) fn instance_target(gpu: &Gpu, gi: u32) -> Target {
    Target {
        gpu: gpu.uuid.clone(),
        part: Some(format!("{INSTANCE}{gi}")),
    }
}

const INSTANCE: &str = "GPU instance ";

impl Target {
    /// The GPU and the id of a GPU instance, if it stands for one.
    pub(super) fn of_instance(&self) -> Option<(Self, u32)> {
        let gi = self.part.as_ref()?.strip_prefix(INSTANCE)?.parse().ok()?;
        let gpu = Self {
            gpu: self.gpu.clone(),
            part: None,
        };
        Some((gpu, gi))
    }
}

/// Handles are numbers that look like pointers and are never followed: a stale or invented one is refused, not crashed on.
#[derive(Default)]
pub(super) struct Handles {
    targets: Mutex<Vec<Target>>,
}

const FIRST_HANDLE: usize = 0x4e56_4000;
const STEP: usize = 0x40;

impl Handles {
    pub(super) fn handle(&self, target: Target) -> usize {
        let mut targets = hold(&self.targets);
        let position = targets
            .iter()
            .position(|known| *known == target)
            .unwrap_or_else(|| {
                targets.push(target);
                targets.len() - 1
            });
        FIRST_HANDLE + position * STEP
    }

    pub(super) fn target(&self, handle: usize) -> Option<Target> {
        let offset = handle
            .checked_sub(FIRST_HANDLE)
            .filter(|offset| offset.is_multiple_of(STEP))?;
        hold(&self.targets).get(offset / STEP).cloned()
    }
}

/// A GPU, or one MIG device on it, in the scenario as it is now.
pub(crate) struct Device<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) gpu: &'a Gpu,
    pub(crate) index: u32,
    /// The slot and the instance when the handle is a MIG device's.
    pub(crate) mig: Option<(u32, &'a Mig)>,
}

impl<'a> Device<'a> {
    /// A handle's device: a GPU that left the node is lost, an instance that was destroyed leaves a bad handle.
    pub(super) fn of(scenario: &'a Scenario, target: &Target) -> Answer<Self> {
        let gpu = Self::all(scenario)
            .find(|device| device.gpu.uuid == target.gpu)
            .ok_or(Code::GPU_IS_LOST)?;
        match &target.part {
            None => Ok(gpu),
            Some(uuid) => gpu
                .instances()
                .find(|device| device.has_uuid(uuid))
                .ok_or(Code::INVALID_ARGUMENT),
        }
    }

    /// The GPUs in index order.
    pub(crate) fn all(scenario: &'a Scenario) -> impl Iterator<Item = Self> {
        (0..).zip(&scenario.gpus).map(move |(index, gpu)| Self {
            scenario,
            gpu,
            index,
            mig: None,
        })
    }

    /// The MIG devices that exist on this GPU.
    pub(crate) fn instances(&self) -> impl Iterator<Item = Self> + use<'a> {
        let Self {
            scenario,
            gpu,
            index,
            ..
        } = *self;
        let enabled = gpu.mig_enabled();
        gpu.slotted_mig()
            .filter(move |_| enabled)
            .map(move |mig| Self {
                scenario,
                gpu,
                index,
                mig: Some(mig),
            })
    }

    pub(crate) fn uuid(&self) -> &'a str {
        self.mig.map_or(&self.gpu.uuid, |(_, mig)| &mig.uuid)
    }

    pub(crate) fn has_uuid(&self, uuid: &str) -> bool {
        self.uuid() == uuid
    }

    pub(super) fn target(&self) -> Target {
        Target {
            gpu: self.gpu.uuid.clone(),
            part: self.mig.map(|(_, mig)| mig.uuid.clone()),
        }
    }

    pub(super) fn reachable(&self) -> Answer {
        if self.gpu.lost {
            Err(Code::GPU_IS_LOST)
        } else {
            Ok(())
        }
    }

    /// The GPU, for questions that cannot be asked of a MIG device.
    pub(crate) fn whole(&self) -> Answer<&'a Gpu> {
        if self.mig.is_some() {
            Err(Code::NOT_SUPPORTED)
        } else {
            Ok(self.gpu)
        }
    }

    /// The GPU, for questions that have no answer once it is cut.
    pub(crate) fn uncut(&self) -> Answer<&'a Gpu> {
        if self.gpu.mig_enabled() {
            Err(Code::NOT_SUPPORTED)
        } else {
            self.whole()
        }
    }

    /// The instance, for questions that can only be asked of a MIG device.
    pub(crate) fn instance(&self) -> Answer<(u32, &'a Mig)> {
        self.mig.ok_or(Code::INVALID_ARGUMENT)
    }

    /// The living processes on this device: a GPU shows those of all its instances, a MIG device its own.
    pub(crate) fn processes(&self, wanted: impl Fn(&Process) -> bool) -> Vec<&'a Process> {
        library().alive.filter(self.scenario, |process| {
            let here = match self.mig {
                None => true,
                Some((_, mig)) => process.gi == Some(mig.gi) && process.ci.unwrap_or(0) == mig.ci,
            };
            here && process.gpu == self.gpu.uuid && wanted(process)
        })
    }

    pub(crate) fn memory(&self) -> Memory {
        let (total, reserved, fixed) = match self.mig {
            None => (
                self.gpu.memory_total_mib,
                self.gpu.memory_reserved_mib,
                self.gpu.memory_used_mib,
            ),
            Some((_, mig)) => (
                mig.memory_total_mib,
                mig.memory_reserved_mib,
                mig.memory_used_mib,
            ),
        };
        Memory {
            total: bytes(total),
            reserved: bytes(reserved),
            used: bytes(fixed.unwrap_or_else(|| self.used_mib() + self.given_away_mib())),
        }
    }

    /// A vGPU's framebuffer is taken from its GPU whether the guest uses it or not.
    fn given_away_mib(&self) -> u64 {
        let vgpus = self.gpu.vgpu.iter().filter(|_| self.mig.is_none());
        vgpus.map(|vgpu| vgpu.memory_total_mib).sum()
    }

    /// Memory belongs to the GPU instance, so its compute instances all show the same; and a process that has a compute
    /// and a graphics context stands in two lists with the same memory.
    fn used_mib(&self) -> u64 {
        let mut used: BTreeMap<(u32, Option<u32>), u64> = BTreeMap::new();
        let here = |process: &Process| {
            process.gpu == self.gpu.uuid
                && self.mig.is_none_or(|(_, mig)| process.gi == Some(mig.gi))
        };
        for process in library().alive.filter(self.scenario, here) {
            let entry = used.entry((process.pid, process.gi)).or_default();
            *entry = process.memory_mib.unwrap_or(0).max(*entry);
        }
        used.values().sum()
    }
}

/// In bytes. `used` is without `reserved`.
pub(crate) struct Memory {
    pub(crate) total: u64,
    pub(crate) reserved: u64,
    pub(crate) used: u64,
}

impl Memory {
    pub(crate) fn free(&self) -> u64 {
        self.total
            .saturating_sub(self.reserved)
            .saturating_sub(self.used)
    }
}

pub(crate) fn bytes(mib: u64) -> u64 {
    mib.saturating_mul(1 << 20)
}
