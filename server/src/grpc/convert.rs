//! From the wire's messages to the ledger's words. Every text from an agent is checked here.

use gpuquota_core::command::NodeReport;
use gpuquota_core::device::{DeviceHealth, DeviceKey, DeviceKind, DeviceReport};
use gpuquota_core::id::{GpuModel, NodeName, SessionId, TenantName};
use gpuquota_core::node::NodeFacts;
use gpuquota_proto::agent_v1 as wire;
use gpuquota_proto::{DEVICES_PER_REPORT, TENANTS_PER_DEVICE};
use tonic::Status;

const LONGEST_TEXT: usize = 512;
const LONGEST_DETAIL: usize = 2048;

/// A report in the ledger's words.
pub(super) fn report(
    node: &NodeName,
    session: SessionId,
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
        licence: None,
    })
}

fn key(key: &wire::DeviceKey) -> Result<DeviceKey, Status> {
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
            report(&node, SessionId(1), message)
        };
        let good = refused(&|_| {}).unwrap();
        let names: Vec<&str> = good.devices[0].tenants.iter().map(|t| t.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(good.devices[0].health, DeviceHealth::Unknown);
        let changes: [&dyn Fn(&mut wire::Report); 9] = [
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
        ];
        for (at, change) in changes.iter().enumerate() {
            let status = refused(change).map(|_| ()).map_err(|status| status.code());
            assert_eq!(status, Err(tonic::Code::InvalidArgument), "{at}");
        }
    }
}
