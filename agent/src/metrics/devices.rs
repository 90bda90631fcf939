//! Rows about how full and how busy each device is, whoever it is that fills it. Pure.

use gpuquota_proto::exposition::Families;

use super::text::{answering, gpu_uuid, mig_name, share_memory};
use crate::observation::{Device, DeviceKey, Observation};

pub(super) fn add(families: &mut Families, observation: &Observation) {
    // A vGPU's framebuffer and load stand in families of their own.
    let devices: Vec<(&DeviceKey, &Device)> = answering(observation)
        .filter(|(key, _)| !matches!(key, DeviceKey::Vgpu(_)))
        .collect();
    let mut memory = families.gauge(
        "gpuquota_device_memory_bytes",
        "Framebuffer of a device by kind: total, used (by processes) and reserved (by the driver; where it is not known, it is among used); a GPU instance's is told of its first device.",
    );
    for shared in devices.chunk_by(|(a, _), (b, _)| share_memory(a, b)) {
        let Some((key, device)) = shared.first() else {
            continue;
        };
        let Some(known) = device.memory else { continue };
        let mig = mig_name(key, device);
        let kinds = [
            ("total", Some(known.total)),
            ("used", Some(known.used)),
            ("reserved", known.reserved),
        ];
        for (kind, bytes) in kinds {
            if let Some(bytes) = bytes {
                let labels = [("uuid", gpu_uuid(key)), ("mig", &mig), ("kind", kind)];
                memory.row(&labels, bytes as f64);
            }
        }
    }
    let mut busy = families.gauge(
        "gpuquota_device_busy_ratio",
        "Share of its SMs that a device keeps busy (measured), or of the time in which something ran on it (estimated); absent when unknown.",
    );
    for (key, device) in devices {
        if let Some(percent) = device.whole.percent {
            let quality = if device.whole.exact {
                "measured"
            } else {
                "estimated"
            };
            let mig = mig_name(key, device);
            let labels = [("uuid", gpu_uuid(key)), ("mig", &mig), ("quality", quality)];
            busy.row(&labels, f64::from(percent) / 100.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::reading::{Health, Memory, NvmlState};
    use crate::observation::WholeUse;

    #[test]
    fn what_is_not_known_of_a_device_has_no_row_and_instances_that_share_memory_one() {
        let device = |health, reserved, percent, exact| Device {
            health,
            memory: Some(Memory {
                total: 100,
                reserved,
                free: 60,
                used: 30,
            }),
            whole: WholeUse { percent, exact },
            ..Device::default()
        };
        let ok = Health::Ok;
        let observation = Observation {
            at_boottime_ms: 0,
            nvml: NvmlState::Ok,
            driver_version: None,
            devices: [
                (
                    DeviceKey::Gpu("G0".into()),
                    device(ok, Some(10), Some(25), false),
                ),
                (
                    DeviceKey::Gpu("G1".into()),
                    device(Health::Hung, None, Some(1), false),
                ),
                (
                    DeviceKey::Mig("G2".into(), 1, 0),
                    device(ok, None, Some(60), true),
                ),
                (
                    DeviceKey::Mig("G2".into(), 1, 1),
                    device(ok, None, None, false),
                ),
            ]
            .into(),
            hidden: Vec::new(),
        };
        let mut families = Families::default();
        add(&mut families, &observation);
        let text = String::from_utf8(families.text().unwrap()).unwrap();
        let rows: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            rows,
            [
                "gpuquota_device_memory_bytes{uuid=\"G0\",mig=\"\",kind=\"total\"} 100",
                "gpuquota_device_memory_bytes{uuid=\"G0\",mig=\"\",kind=\"used\"} 30",
                "gpuquota_device_memory_bytes{uuid=\"G0\",mig=\"\",kind=\"reserved\"} 10",
                "gpuquota_device_memory_bytes{uuid=\"G2\",mig=\"1/0\",kind=\"total\"} 100",
                "gpuquota_device_memory_bytes{uuid=\"G2\",mig=\"1/0\",kind=\"used\"} 30",
                "gpuquota_device_busy_ratio{uuid=\"G0\",mig=\"\",quality=\"estimated\"} 0.25",
                "gpuquota_device_busy_ratio{uuid=\"G2\",mig=\"1/0\",quality=\"measured\"} 0.6",
            ]
        );
    }
}
