//! One vGPU instance on a GPU as a scenario describes it.

use serde::{Deserialize, Serialize};
use toml::value::Datetime;

use super::{ScenarioError, is_default};

/// A vGPU instance: a part of a GPU in `host-vgpu` mode that a virtual machine holds while it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vgpu {
    pub uuid: String,
    /// The name of its type, such as `NVIDIA L40S-8Q`.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The VM that holds it: a UUID, or a domain id as Xen has it. Absent: NVML cannot tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// GPU instance that it lives on; absent: on the whole GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gi: Option<u32>,
    /// It shares its GPU instance with others by turns: only a question about the instance lists it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub time_sliced: bool,
    /// Where it lies on a GPU with vGPUs of several sizes; absent: NVML answers 0xFFFF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement_id: Option<u32>,
    /// Framebuffer of the type.
    pub memory_total_mib: u64,
    /// What the guest uses of it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub memory_used_mib: u64,
    /// Percent of the SMs that it keeps busy; absent: no sample of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sm_percent: Option<u32>,
    /// Absent: licence questions are "not supported".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<Licence>,
    /// When a licence ends, in UTC whatever the offset says; absent: NVML gives no date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence_expires: Option<Datetime>,
    /// The guest's driver; absent: the guest has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<String>,
}

/// What the guest's driver says of its licence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Licence {
    Licensed,
    Unlicensed,
    /// The guest has not settled it, as while it boots.
    Unknown,
    /// The guest runs no driver that could say: `GetLicenseInfo` answers 9.
    NoDriver,
}

impl Vgpu {
    /// Whether the VM is named by a UUID and not by a domain id.
    pub fn vm_is_uuid(&self) -> bool {
        let groups = self.vm.iter().flat_map(|vm| vm.split('-'));
        groups.map(str::len).eq([8, 4, 4, 4, 12])
    }

    pub(super) fn check(&self) -> Result<(), ScenarioError> {
        let fits = |text: &str, most: usize| (1..=most).contains(&text.len());
        let refuse = |what: &str| {
            Err(ScenarioError::Meaning(format!(
                "vGPU {:?}: {what}",
                self.uuid
            )))
        };
        if !fits(&self.uuid, 79) || self.vm.as_ref().is_some_and(|vm| !fits(vm, 79)) {
            return refuse("uuid and vm have 1 to 79 bytes");
        }
        if !fits(&self.type_name, 63) {
            return refuse("a type's name has 1 to 63 bytes");
        }
        if self
            .licence_expires
            .is_some_and(|at| at.date.is_none() || at.time.is_none())
        {
            return refuse("licence_expires has a date and a time");
        }
        Ok(())
    }
}
