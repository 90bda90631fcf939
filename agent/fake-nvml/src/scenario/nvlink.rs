//! NVLinks of a GPU as a scenario describes them.

use serde::{Deserialize, Serialize};

use super::{ScenarioError, is_default};

/// NVLinks of one GPU that lead to the same place. They are numbered through in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NvLinks {
    /// PCI bus id of what is at the other end.
    pub remote: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub kind: NvLinkEnd,
    /// How many links.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub links: u32,
    /// They are there and carry nothing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub down: bool,
}

/// What is at the other end of an NVLink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NvLinkEnd {
    #[default]
    Gpu,
    Npu,
    Switch,
    Unknown,
}

impl NvLinks {
    pub(super) fn check(&self) -> Result<(), ScenarioError> {
        if super::gpu::pci_numbers(&self.remote).is_none() {
            let text = format!("{:?} is not a PCI bus id", self.remote);
            return Err(ScenarioError::Meaning(text));
        }
        Ok(())
    }

    /// `domain`, `bus`, `device` of what is at the other end.
    pub fn pci_numbers(&self) -> Option<[u32; 3]> {
        super::gpu::pci_numbers(&self.remote)
    }
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_one(links: &u32) -> bool {
    *links == one()
}
