//! vGPU instances: the numbers that programs know them by, and what those lead to.

use std::sync::Mutex;

use crate::scenario::{Gpu, Scenario, Vgpu};

use super::devices::Target;
use super::{Answer, Code, hold};

/// As with device handles, a number stands for a UUID and is never given to another vGPU.
#[derive(Default)]
pub(super) struct VgpuNumbers {
    uuids: Mutex<Vec<String>>,
}

const FIRST_NUMBER: u32 = 3_251_634_178;

impl VgpuNumbers {
    pub(super) fn number(&self, uuid: &str) -> u32 {
        let mut uuids = hold(&self.uuids);
        let position = uuids
            .iter()
            .position(|known| known == uuid)
            .unwrap_or_else(|| {
                uuids.push(uuid.to_owned());
                uuids.len() - 1
            });
        FIRST_NUMBER.wrapping_add(u32::try_from(position).unwrap_or(u32::MAX))
    }

    /// Refuses 0 and numbers that were never given out, as NVML does.
    pub(super) fn uuid(&self, number: u32) -> Answer<String> {
        if number == 0 {
            return Err(Code::INVALID_ARGUMENT);
        }
        let position = number
            .checked_sub(FIRST_NUMBER)
            .and_then(|position| usize::try_from(position).ok());
        let uuids = hold(&self.uuids);
        let uuid = position.and_then(|position| uuids.get(position));
        uuid.cloned().ok_or(Code::NOT_FOUND)
    }
}

/// A vGPU and the GPU that it lives on, in the scenario as it is now.
pub(super) fn find<'s>(scenario: &'s Scenario, uuid: &str) -> Option<(&'s Gpu, &'s Vgpu)> {
    let on = |gpu: &'s Gpu| gpu.vgpu.iter().map(move |vgpu| (gpu, vgpu));
    scenario
        .gpus
        .iter()
        .flat_map(on)
        .find(|(_, vgpu)| vgpu.uuid == uuid)
}

/// Whom faults are about.
pub(super) fn target((gpu, vgpu): (&Gpu, &Vgpu)) -> Target {
    Target {
        gpu: gpu.uuid.clone(),
        part: Some(vgpu.uuid.clone()),
    }
}
