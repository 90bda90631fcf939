//! Devices: things that can be held, and who holds them as their node last said.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{GpuModel, NodeName, TenantName, Timestamp};
use crate::profile::CanonicalModel;

/// The address of a device: a UUID, never an index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceKey {
    /// A full GPU.
    Gpu(String),
    /// A MIG instance: its GPU, GPU instance and compute instance.
    Mig {
        /// UUID of the GPU.
        gpu: String,
        /// GPU instance id.
        gi: u32,
        /// Compute instance id.
        ci: u32,
    },
    /// A vGPU instance.
    Vgpu(String),
}

/// A text that is no device key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a device is GPU-UUID, GPU-UUID/gi/ci or vgpu:UUID, a UUID being 1 to 96 of A-Z a-z 0-9 -")]
pub struct InvalidDeviceKey;

impl DeviceKey {
    /// A full GPU.
    ///
    /// # Errors
    /// When the UUID is not plain.
    pub fn gpu(uuid: &str) -> Result<Self, InvalidDeviceKey> {
        Ok(Self::Gpu(checked(uuid)?))
    }

    /// A MIG instance.
    ///
    /// # Errors
    /// When the GPU's UUID is not plain.
    pub fn mig(gpu: &str, gi: u32, ci: u32) -> Result<Self, InvalidDeviceKey> {
        Ok(Self::Mig {
            gpu: checked(gpu)?,
            gi,
            ci,
        })
    }

    /// A vGPU instance.
    ///
    /// # Errors
    /// When the UUID is not plain.
    pub fn vgpu(uuid: &str) -> Result<Self, InvalidDeviceKey> {
        Ok(Self::Vgpu(checked(uuid)?))
    }

    /// What kind of device it addresses.
    #[must_use]
    pub fn kind(&self) -> DeviceKind {
        match self {
            Self::Gpu(_) => DeviceKind::Gpu,
            Self::Mig { .. } => DeviceKind::Mig,
            Self::Vgpu(_) => DeviceKind::Vgpu,
        }
    }

    /// Where the MIG instances of a GPU stand among all keys.
    pub(crate) fn instances(gpu: &str) -> std::ops::RangeInclusive<Self> {
        let instance = |number| Self::Mig {
            gpu: gpu.to_owned(),
            gi: number,
            ci: number,
        };
        instance(u32::MIN)..=instance(u32::MAX)
    }

    /// The form in which agent and server digest it: a vGPU by its bare UUID.
    #[must_use]
    pub fn digest_text(&self) -> String {
        match self {
            Self::Vgpu(uuid) => uuid.clone(),
            other => other.to_string(),
        }
    }
}

/// UUID of a physical GPU.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GpuUuid(String);

impl GpuUuid {
    /// Checks and takes the text.
    ///
    /// # Errors
    /// When the UUID is not plain.
    pub fn new(uuid: &str) -> Result<Self, InvalidDeviceKey> {
        Ok(Self(checked(uuid)?))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GpuUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for GpuUuid {
    type Error = InvalidDeviceKey;
    fn try_from(text: String) -> Result<Self, InvalidDeviceKey> {
        Self::new(&text)
    }
}

impl From<GpuUuid> for String {
    fn from(uuid: GpuUuid) -> Self {
        uuid.0
    }
}

fn checked(uuid: &str) -> Result<String, InvalidDeviceKey> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if (1..=96).contains(&uuid.len()) && uuid.bytes().all(plain) {
        Ok(uuid.to_owned())
    } else {
        Err(InvalidDeviceKey)
    }
}

impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpu(uuid) => f.write_str(uuid),
            Self::Mig { gpu, gi, ci } => write!(f, "{gpu}/{gi}/{ci}"),
            Self::Vgpu(uuid) => write!(f, "vgpu:{uuid}"),
        }
    }
}

impl FromStr for DeviceKey {
    type Err = InvalidDeviceKey;
    fn from_str(text: &str) -> Result<Self, InvalidDeviceKey> {
        if let Some(uuid) = text.strip_prefix("vgpu:") {
            return Self::vgpu(uuid);
        }
        let number = |text: &str| text.parse::<u32>().map_err(|_| InvalidDeviceKey);
        match text.split('/').collect::<Vec<_>>().as_slice() {
            [uuid] => Self::gpu(uuid),
            [gpu, gi, ci] => Self::mig(gpu, number(gi)?, number(ci)?),
            _ => Err(InvalidDeviceKey),
        }
    }
}

impl TryFrom<String> for DeviceKey {
    type Error = InvalidDeviceKey;
    fn try_from(text: String) -> Result<Self, InvalidDeviceKey> {
        text.parse()
    }
}

impl From<DeviceKey> for String {
    fn from(key: DeviceKey) -> Self {
        key.to_string()
    }
}

/// Kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A full GPU.
    Gpu,
    /// A MIG instance.
    Mig,
    /// A vGPU instance.
    Vgpu,
}

impl DeviceKind {
    /// The word of digests and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::Mig => "mig",
            Self::Vgpu => "vgpu",
        }
    }
}

/// Whether the holders of a device are fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceHealth {
    /// It answers.
    Ok,
    /// The driver says it is gone.
    Lost,
    /// A call on it passed its deadline.
    Hung,
    /// NVML does not answer on its node.
    Unknown,
}

impl DeviceHealth {
    /// The word of digests and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Lost => "lost",
            Self::Hung => "hung",
            Self::Unknown => "unknown",
        }
    }
}

/// What the driver says of a vGPU's licence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LicenceState {
    /// The guest holds one.
    Licensed,
    /// It does not.
    Unlicensed,
    /// The driver does not say, as while the guest boots.
    Unknown,
}

impl LicenceState {
    /// The word of digests and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Licensed => "licensed",
            Self::Unlicensed => "unlicensed",
            Self::Unknown => "unknown",
        }
    }
}

/// What a node says of one of its devices; the body of a report row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceReport {
    /// Its address.
    pub key: DeviceKey,
    /// Whether the holders are fresh.
    pub health: DeviceHealth,
    /// Product or vGPU type name as NVML gives it.
    pub model: String,
    /// What quotas call it.
    pub gpu_model: GpuModel,
    /// MIG profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Framebuffer, bytes; `None` when the driver did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_total_bytes: Option<u64>,
    /// A GPU in MIG mode or a vGPU host: it is seen, but only its instances can be held.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partitioned: bool,
    /// Tenants with at least one process, or the VM, here, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<TenantName>,
    /// At least one process, or the VM, belongs to no tenant that the agent knows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unattributed: bool,
    /// Licence of a vGPU instance; `None` for anything else, or when the agent does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<LicenceState>,
    /// When that licence ends, where the driver says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence_expires_at: Option<Timestamp>,
    /// VM that holds a vGPU instance, as the driver names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// UUID of the GPU that a vGPU instance lives on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// NUMA node that its GPU is nearest to; `None` when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa: Option<u32>,
    /// Number of the GPUs on its node that NVLink joins with it; `None` when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvlink: Option<u32>,
}

impl DeviceReport {
    /// Whether what it says of holders is fresh.
    #[must_use]
    pub fn readable(&self) -> bool {
        match self.health {
            DeviceHealth::Ok => true,
            DeviceHealth::Lost | DeviceHealth::Hung | DeviceHealth::Unknown => false,
        }
    }

    /// UUID of the physical GPU; `None` for a vGPU of which the agent does not say it.
    #[must_use]
    pub fn gpu(&self) -> Option<&str> {
        match &self.key {
            DeviceKey::Gpu(uuid) => Some(uuid),
            DeviceKey::Mig { gpu, .. } => Some(gpu),
            DeviceKey::Vgpu(_) => self.parent.as_deref(),
        }
    }
}

/// A device in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Whose it is.
    pub node: NodeName,
    /// The model that quotas match.
    pub canonical: CanonicalModel,
    /// What its node last said.
    pub report: DeviceReport,
    /// Since when each tenant holds it.
    pub holders: BTreeMap<TenantName, Timestamp>,
    /// Since when nobody holds it; `None` while somebody does.
    pub idle_since: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_key_survives_its_text(uuid in "[A-Za-z0-9-]{1,96}", gi: u32, ci: u32, kind in 0..3) {
            let key = match kind {
                0 => DeviceKey::gpu(&uuid).unwrap(),
                1 => DeviceKey::mig(&uuid, gi, ci).unwrap(),
                _ => DeviceKey::vgpu(&uuid).unwrap(),
            };
            prop_assert_eq!(key.to_string().parse::<DeviceKey>(), Ok(key));
        }

        #[test]
        fn hostile_text_is_refused_or_plain(text in "\\PC{0,40}") {
            if let Ok(key) = text.parse::<DeviceKey>() {
                let plain = |c: char| c.is_ascii_alphanumeric() || "-/:".contains(c);
                prop_assert!(key.to_string().chars().all(plain));
            }
        }
    }
}
