//! From the wire's messages to the ledger's words. Every text from an agent is checked here.

use gpuquota_core::command::NodeReport;
use gpuquota_core::device::{DeviceHealth, DeviceKey, DeviceKind, DeviceReport, LicenceState};
use gpuquota_core::id::{GpuModel, NodeName, Seq, SessionId, TenantName, Timestamp};
use gpuquota_core::node::NodeFacts;
use gpuquota_proto::agent_v1 as wire;
use gpuquota_proto::{DEVICES_PER_REPORT, TENANTS_PER_DEVICE};
use tonic::Status;

const LONGEST_TEXT: usize = 512;
const LONGEST_DETAIL: usize = 2048;
const LONGEST_VM: usize = 128;
/// The end of the year 9999, seconds since 1970.
const LATEST_S: i64 = 253_402_300_799;

/// A report in the ledger's words.
pub(super) fn report(
    node: &NodeName,
    session: SessionId,
    heard_at: Timestamp,
    read_after: Option<Seq>,
    report: wire::Report,
) -> Result<NodeReport, Status> {
    if report.devices.len() > DEVICES_PER_REPORT || report.gone.len() > DEVICES_PER_REPORT {
        return Err(Status::invalid_argument(format!(
            "a report holds at most {DEVICES_PER_REPORT} devices"
        )));
    }
    if report.full && !report.gone.is_empty() {
        return Err(Status::invalid_argument(
            "a full report names no gone devices",
        ));
    }
    if report.number == 0 {
        return Err(Status::invalid_argument("report numbers begin at 1"));
    }
    Ok(NodeReport {
        node: node.clone(),
        session,
        spool: identifier("spool_id", report.spool_id)?,
        number: report.number,
        age_ms: report.age_ms,
        heard_at: Some(heard_at),
        read_after,
        full: report.full,
        facts: report.facts.map(facts).transpose()?,
        devices: report
            .devices
            .into_iter()
            .map(device)
            .collect::<Result<_, _>>()?,
        gone: report.gone.iter().map(key).collect::<Result<_, _>>()?,
    })
}

/// An opaque identifier of the agent: boot and spool ids.
pub(super) fn identifier(what: &str, text: String) -> Result<String, Status> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text)
    } else {
        Err(Status::invalid_argument(format!(
            "{what} must be 1 to 64 of A-Z a-z 0-9 -"
        )))
    }
}

/// A free text of the agent: bounded, without control characters.
pub(super) fn text(what: &str, text: String, longest: usize) -> Result<String, Status> {
    if text.len() <= longest && !text.contains(char::is_control) {
        Ok(text)
    } else {
        Err(Status::invalid_argument(format!(
            "{what} must be at most {longest} bytes without control characters"
        )))
    }
}

fn facts(facts: wire::NodeFacts) -> Result<NodeFacts, Status> {
    let driver_version = text("driver_version", facts.driver_version, LONGEST_TEXT)?;
    Ok(NodeFacts {
        cpu_cores: facts.cpu_cores,
        memory_bytes: facts.memory_bytes,
        driver_version: Some(driver_version).filter(|version| !version.is_empty()),
        nvml: text("nvml", facts.nvml, LONGEST_TEXT)?,
        nvml_detail: text("nvml_detail", facts.nvml_detail, LONGEST_DETAIL)?,
    })
}

fn device(device: wire::DeviceState) -> Result<DeviceReport, Status> {
    let key = key(device
        .key
        .as_ref()
        .ok_or_else(|| Status::invalid_argument("a device without key"))?)?;
    let kind = match device.kind() {
        wire::DeviceKind::Gpu => DeviceKind::Gpu,
        wire::DeviceKind::Mig => DeviceKind::Mig,
        wire::DeviceKind::Vgpu => DeviceKind::Vgpu,
        wire::DeviceKind::Unspecified => {
            return Err(Status::invalid_argument("a device without kind"));
        }
    };
    if kind != key.kind() {
        return Err(Status::invalid_argument(format!(
            "device {key} is not of the kind it claims"
        )));
    }
    let health = match device.health() {
        wire::DeviceHealth::Ok => DeviceHealth::Ok,
        wire::DeviceHealth::Lost => DeviceHealth::Lost,
        wire::DeviceHealth::Hung => DeviceHealth::Hung,
        // An agent that does not say is not trusted to know.
        wire::DeviceHealth::Unknown | wire::DeviceHealth::Unspecified => DeviceHealth::Unknown,
    };
    if device.tenants.len() > TENANTS_PER_DEVICE {
        return Err(Status::invalid_argument(format!(
            "a device has at most {TENANTS_PER_DEVICE} tenants"
        )));
    }
    let mut tenants = device
        .tenants
        .iter()
        .map(|name| TenantName::new(name).map_err(|e| Status::invalid_argument(e.to_string())))
        .collect::<Result<Vec<_>, _>>()?;
    tenants.sort_unstable();
    tenants.dedup();
    let vgpu = vgpu(&key, &device)?;
    let profile = text("profile", device.profile, LONGEST_TEXT)?;
    Ok(DeviceReport {
        key,
        health,
        model: text("model", device.model, LONGEST_TEXT)?,
        gpu_model: GpuModel::new(&device.gpu_model)
            .map_err(|e| Status::invalid_argument(e.to_string()))?,
        profile: Some(profile).filter(|profile| !profile.is_empty()),
        memory_total_bytes: device.memory_total_bytes,
        partitioned: device.partitioned,
        tenants,
        unattributed: device.unattributed,
        licence: vgpu.licence,
        licence_expires_at: vgpu.licence_expires_at,
        vm: vgpu.vm,
        parent: vgpu.parent,
        numa: device.numa_node,
        nvlink: device.nvlink_island,
    })
}

/// What only a vGPU instance has.
struct Vgpu {
    licence: Option<LicenceState>,
    licence_expires_at: Option<Timestamp>,
    vm: Option<String>,
    parent: Option<String>,
}

fn vgpu(key: &DeviceKey, device: &wire::DeviceState) -> Result<Vgpu, Status> {
    let licence = match wire::LicenceState::try_from(device.licence) {
        Ok(wire::LicenceState::Unspecified) => None,
        Ok(wire::LicenceState::Licensed) => Some(LicenceState::Licensed),
        Ok(wire::LicenceState::Unlicensed) => Some(LicenceState::Unlicensed),
        Ok(wire::LicenceState::Unknown) => Some(LicenceState::Unknown),
        Err(_) => return Err(Status::invalid_argument("a licence is in no such state")),
    };
    let licence_expires_at = match device.licence_expires_at_s {
        None => None,
        Some(seconds @ 0..=LATEST_S) => Some(Timestamp(seconds * 1000)),
        Some(_) => {
            return Err(Status::invalid_argument(
                "licence_expires_at_s must be from 1970 to 9999",
            ));
        }
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._:@-".contains(&b);
    if device.vm.len() > LONGEST_VM || !device.vm.bytes().all(plain) {
        return Err(Status::invalid_argument(format!(
            "vm must be at most {LONGEST_VM} of A-Z a-z 0-9 . _ : @ -"
        )));
    }
    let vm = Some(device.vm.clone()).filter(|vm| !vm.is_empty());
    let parent = match device.gpu_parent_uuid.as_str() {
        "" => None,
        uuid => {
            DeviceKey::gpu(uuid).map_err(|e| Status::invalid_argument(e.to_string()))?;
            Some(uuid.to_owned())
        }
    };
    let vgpu = Vgpu {
        licence,
        licence_expires_at,
        vm,
        parent,
    };
    let says_nothing = vgpu.licence.is_none()
        && vgpu.licence_expires_at.is_none()
        && vgpu.vm.is_none()
        && vgpu.parent.is_none();
    if key.kind() == DeviceKind::Vgpu || says_nothing {
        Ok(vgpu)
    } else {
        Err(Status::invalid_argument(format!(
            "device {key} is no vGPU and has neither licence nor VM"
        )))
    }
}

/// A device's address.
pub(super) fn key(key: &wire::DeviceKey) -> Result<DeviceKey, Status> {
    let key = match (
        key.gpu_uuid.as_str(),
        key.gi,
        key.ci,
        key.vgpu_uuid.as_str(),
    ) {
        (gpu, None, None, "") => DeviceKey::gpu(gpu),
        (gpu, Some(gi), Some(ci), "") => DeviceKey::mig(gpu, gi, ci),
        ("", None, None, vgpu) => DeviceKey::vgpu(vgpu),
        _ => {
            return Err(Status::invalid_argument(
                "a device is a GPU, a GPU with gi and ci, or a vGPU",
            ));
        }
    };
    key.map_err(|e| Status::invalid_argument(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(
        gpu: &str,
        gi: Option<u32>,
        kind: wire::DeviceKind,
        tenants: &[&str],
    ) -> wire::DeviceState {
        wire::DeviceState {
            key: Some(wire::DeviceKey {
                gpu_uuid: gpu.into(),
                gi,
                ci: gi,
                vgpu_uuid: String::new(),
            }),
            kind: kind.into(),
            gpu_model: "nvidia.com/gpu".into(),
            tenants: tenants.iter().map(|t| (*t).to_owned()).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn case_62_what_no_agent_should_say_is_refused() {
        let node = NodeName::new("n").unwrap();
        let refused = |change: &dyn Fn(&mut wire::Report)| {
            let mut message = wire::Report {
                spool_id: "s".into(),
                number: 1,
                full: true,
                devices: vec![row("GPU-1", None, wire::DeviceKind::Gpu, &["b", "a", "b"])],
                ..Default::default()
            };
            change(&mut message);
            report(&node, SessionId(1), Timestamp(0), None, message)
        };
        let good = refused(&|_| {}).unwrap();
        let names: Vec<&str> = good.devices[0].tenants.iter().map(|t| t.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(good.devices[0].health, DeviceHealth::Unknown);
        let changes: [&dyn Fn(&mut wire::Report); 13] = [
            &|r| r.number = 0,
            &|r| r.spool_id = "a\nb".into(),
            &|r| r.devices = vec![r.devices[0].clone(); DEVICES_PER_REPORT + 1],
            &|r| {
                r.gone = vec![wire::DeviceKey {
                    gpu_uuid: "GPU-2".into(),
                    ..Default::default()
                }]
            },
            &|r| r.devices[0] = row("GPU-1", Some(1), wire::DeviceKind::Gpu, &[]),
            &|r| r.devices[0] = row("GPU/1", None, wire::DeviceKind::Gpu, &[]),
            &|r| r.devices[0] = row("GPU-1", None, wire::DeviceKind::Gpu, &["../x"]),
            &|r| r.devices[0].kind = 99,
            &|r| r.devices[0].model = "x\u{1b}[31m".into(),
            &|r| r.devices[0].licence = 1,
            &|r| r.devices[0].licence_expires_at_s = Some(1),
            &|r| r.devices[0].vm = "v".into(),
            &|r| r.devices[0].gpu_parent_uuid = "GPU-2".into(),
        ];
        for (at, change) in changes.iter().enumerate() {
            let status = refused(change).map(|_| ()).map_err(|status| status.code());
            assert_eq!(status, Err(tonic::Code::InvalidArgument), "{at}");
        }
    }
    fn vgpu_row(change: impl FnOnce(&mut wire::DeviceState)) -> Result<DeviceReport, tonic::Code> {
        let mut row = wire::DeviceState {
            key: Some(wire::DeviceKey {
                vgpu_uuid: "v-1".into(),
                ..Default::default()
            }),
            kind: wire::DeviceKind::Vgpu.into(),
            gpu_model: "L40S-8Q".into(),
            ..Default::default()
        };
        change(&mut row);
        device(row).map_err(|status| status.code())
    }

    #[test]
    fn a_vgpu_has_a_licence_and_one_of_an_older_agent_has_none() {
        let old = vgpu_row(|_| {}).unwrap();
        assert_eq!((old.licence, &old.vm, &old.parent), (None, &None, &None));
        let text = serde_json::to_string(&old).unwrap();
        assert!(!text.contains("licence") && !text.contains("vm"), "{text}");
        let told = vgpu_row(|row| {
            row.licence = wire::LicenceState::Licensed.into();
            row.licence_expires_at_s = Some(7);
            row.vm = "5e0d3c9a-0d9f-4d5c-8a41-1f0f7c2b9e11".into();
            row.gpu_parent_uuid = "GPU-1".into();
        });
        let told = told.unwrap();
        assert_eq!(told.licence, Some(LicenceState::Licensed));
        assert_eq!(told.licence_expires_at, Some(Timestamp(7000)));
        assert_eq!(told.parent.as_deref(), Some("GPU-1"));
        let text = serde_json::to_string(&told).unwrap();
        assert_eq!(serde_json::from_str::<DeviceReport>(&text).unwrap(), told);
        let bad: [fn(&mut wire::DeviceState); 6] = [
            |row| row.licence = 9,
            |row| row.licence_expires_at_s = Some(-1),
            |row| row.licence_expires_at_s = Some(i64::MAX),
            |row| row.vm = "a b".into(),
            |row| row.vm = "a".repeat(129),
            |row| row.gpu_parent_uuid = "GPU/1".into(),
        ];
        for change in bad {
            assert_eq!(vgpu_row(change), Err(tonic::Code::InvalidArgument));
        }
    }
}
