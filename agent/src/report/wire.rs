//! The agent's types as messages of the wire. Conversions only, nothing is decided here.

use gpuquota_proto::agent_v1 as wire;

use crate::facts::Node;
use crate::gpu::reading::{Health, Licence, NvmlState};
use crate::observation::DeviceKey;

use super::view::{DeviceView, VgpuView};

/// The message form of a device's address.
#[must_use]
pub fn device_key(key: &DeviceKey) -> wire::DeviceKey {
    match key {
        DeviceKey::Gpu(uuid) => wire::DeviceKey {
            gpu_uuid: uuid.clone(),
            ..Default::default()
        },
        DeviceKey::Mig(uuid, gi, ci) => wire::DeviceKey {
            gpu_uuid: uuid.clone(),
            gi: Some(*gi),
            ci: Some(*ci),
            ..Default::default()
        },
        DeviceKey::Vgpu(uuid) => wire::DeviceKey {
            vgpu_uuid: uuid.clone(),
            ..Default::default()
        },
    }
}

/// The address back from its message form; `None` when it names nothing.
#[must_use]
pub fn key_of(key: &wire::DeviceKey) -> Option<DeviceKey> {
    match (
        key.gpu_uuid.as_str(),
        key.gi,
        key.ci,
        key.vgpu_uuid.as_str(),
    ) {
        ("", None, None, vgpu) if !vgpu.is_empty() => Some(DeviceKey::Vgpu(vgpu.to_owned())),
        (gpu, None, None, "") if !gpu.is_empty() => Some(DeviceKey::Gpu(gpu.to_owned())),
        (gpu, Some(gi), Some(ci), "") if !gpu.is_empty() => {
            Some(DeviceKey::Mig(gpu.to_owned(), gi, ci))
        }
        _ => None,
    }
}

/// One row of a report.
#[must_use]
pub fn device_state(key: &DeviceKey, view: &DeviceView) -> wire::DeviceState {
    let kind = match key {
        DeviceKey::Gpu(_) => wire::DeviceKind::Gpu,
        DeviceKey::Mig(..) => wire::DeviceKind::Mig,
        DeviceKey::Vgpu(_) => wire::DeviceKind::Vgpu,
    };
    let vgpu = view.vgpu.as_ref();
    wire::DeviceState {
        key: Some(device_key(key)),
        kind: kind.into(),
        health: device_health(view.health).into(),
        model: view.model.clone(),
        gpu_model: view.gpu_model.clone(),
        profile: view.profile.clone(),
        memory_total_bytes: view.memory_total_bytes,
        partitioned: view.partitioned,
        tenants: view.tenants.clone(),
        unattributed: view.unattributed,
        licence: vgpu
            .map_or(wire::LicenceState::Unspecified, |vgpu| {
                licence_of(vgpu.licence)
            })
            .into(),
        licence_expires_at_s: vgpu.and_then(|vgpu| vgpu.licence_expires_at_s),
        vm: vgpu.map_or_else(String::new, |vgpu| vgpu.vm.clone()),
        gpu_parent_uuid: vgpu.map_or_else(String::new, |vgpu| vgpu.parent.clone()),
        numa_node: view.numa_node,
        nvlink_island: view.nvlink_island,
    }
}

pub(super) fn licence_of(licence: Licence) -> wire::LicenceState {
    match licence {
        Licence::Licensed => wire::LicenceState::Licensed,
        Licence::Unlicensed => wire::LicenceState::Unlicensed,
        Licence::Unknown => wire::LicenceState::Unknown,
    }
}

fn remembered_vgpu(row: &wire::DeviceState) -> VgpuView {
    VgpuView {
        licence: match row.licence() {
            wire::LicenceState::Licensed => Licence::Licensed,
            wire::LicenceState::Unlicensed => Licence::Unlicensed,
            wire::LicenceState::Unknown | wire::LicenceState::Unspecified => Licence::Unknown,
        },
        licence_expires_at_s: row.licence_expires_at_s,
        vm: row.vm.clone(),
        parent: row.gpu_parent_uuid.clone(),
    }
}

/// The last reported row back from its message form, as unknown: it was true when it was reported.
#[must_use]
pub fn remembered_view(row: wire::DeviceState) -> Option<(DeviceKey, DeviceView)> {
    let key = key_of(row.key.as_ref()?)?;
    let vgpu = matches!(key, DeviceKey::Vgpu(_)).then(|| remembered_vgpu(&row));
    let view = DeviceView {
        health: Health::Unknown,
        model: row.model,
        gpu_model: row.gpu_model,
        profile: row.profile,
        memory_total_bytes: row.memory_total_bytes,
        partitioned: row.partitioned,
        tenants: row.tenants,
        unattributed: row.unattributed,
        vgpu,
        numa_node: row.numa_node,
        nvlink_island: row.nvlink_island,
    };
    Some((key, view))
}

/// Health as the holder digest and metrics write it.
#[must_use]
pub fn health_text(health: Health) -> &'static str {
    match health {
        Health::Ok => "ok",
        Health::Lost => "lost",
        Health::Hung => "hung",
        Health::Unknown => "unknown",
    }
}

/// NVML's state by name, and one line for a person (empty while it answers).
#[must_use]
pub fn nvml_text(state: &NvmlState) -> (&'static str, &str) {
    match state {
        NvmlState::Ok => ("ok", ""),
        NvmlState::Absent(detail) => ("absent", detail),
        NvmlState::DriverNotLoaded(detail) => ("driver_not_loaded", detail),
        NvmlState::Mismatch(detail) => ("mismatch", detail),
        NvmlState::Unresponsive(detail) => ("unresponsive", detail),
        NvmlState::Quiesced(detail) => ("quiesced", detail),
        NvmlState::Broken(detail) => ("broken", detail),
    }
}

/// The node's facts, with what NVML says of itself.
#[must_use]
pub fn node_facts(node: &Node, nvml: &NvmlState, driver_version: Option<&str>) -> wire::NodeFacts {
    let (state, detail) = nvml_text(nvml);
    wire::NodeFacts {
        cpu_cores: node.cpu_cores,
        memory_bytes: node.memory_bytes,
        driver_version: driver_version.unwrap_or_default().to_owned(),
        nvml: state.to_owned(),
        nvml_detail: one_line(detail),
    }
}

fn device_health(health: Health) -> wire::DeviceHealth {
    match health {
        Health::Ok => wire::DeviceHealth::Ok,
        Health::Lost => wire::DeviceHealth::Lost,
        Health::Hung => wire::DeviceHealth::Hung,
        Health::Unknown => wire::DeviceHealth::Unknown,
    }
}

// A line for a person: no control characters, at most 200 of the rest.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(200)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_the_wire() {
        for key in [
            DeviceKey::Gpu("GPU-1".into()),
            DeviceKey::Mig("GPU-1".into(), 0, 3),
            DeviceKey::Vgpu("v-1".into()),
        ] {
            assert_eq!(key_of(&device_key(&key)), Some(key));
        }
        assert_eq!(key_of(&wire::DeviceKey::default()), None);
        let half = wire::DeviceKey {
            gpu_uuid: "GPU-1".into(),
            gi: Some(1),
            ..Default::default()
        };
        assert_eq!(key_of(&half), None);
    }

    #[test]
    fn facts_carry_the_state_and_one_line() {
        let node = Node {
            cpu_cores: Some(2),
            memory_bytes: None,
        };
        let facts = node_facts(&node, &NvmlState::Mismatch("a\nb".into()), Some("550.54"));
        assert_eq!(
            (facts.nvml.as_str(), facts.nvml_detail.as_str()),
            ("mismatch", "a b")
        );
        assert_eq!(facts.driver_version, "550.54");
        assert_eq!(facts.memory_bytes, None);
    }
}
