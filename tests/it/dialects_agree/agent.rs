//! What a node's agent reports: devices of all kinds, at random.

use gpuquota_proto::agent_v1::agent_message::Body as ToServer;
use gpuquota_proto::agent_v1::{
    DeviceKey, DeviceKind, DeviceState, Goodbye, LicenceState, NodeFacts, Report,
};
use gpuquota_tests::session::{Session, full, gpu};
use gpuquota_tests::wait::{SOON, until};

use super::model::{Device, GPU, MIG, NODES};
use super::steps::Writer;

impl Writer<'_> {
    /// A node's agent stops on purpose.
    pub(super) async fn goodbye(&mut self, node: usize) {
        if !self.world.silent.insert(node) {
            return;
        }
        let name = NODES[node].name;
        self.log.push(format!("{name} says goodbye"));
        let reason = "the test".to_owned();
        self.sessions[node]
            .send(ToServer::Goodbye(Goodbye { reason }))
            .await;
        until(&format!("{name} is silent"), SOON, async || {
            let shown = self.admin.node(name).await;
            match shown["state"] == "silent" {
                true => Ok(()),
                false => Err(shown.to_string()),
            }
        })
        .await;
    }

    /// A node's agent reports all anew, after a goodbye in a new session.
    pub(super) async fn report(&mut self, node: usize) {
        if self.world.silent.remove(&node) {
            self.sessions[node] = Session::of(self.server, NODES[node].name).await;
        }
        let mut devices = Vec::new();
        self.world.devices.retain(|device| device.node != node);
        for (count, kind, models) in [
            (2, "flexible", &[GPU][..]),
            (2, "mig", &[MIG]),
            (3, "vgpu", &["V-8Q", "V-4Q"]),
        ] {
            for number in 0..self.below(count + 1) {
                let model = self.of(models);
                let licensed = kind == "vgpu" && self.below(2) == 0;
                let most = if kind == "vgpu" { 1 } else { 2 };
                let mut tenants: Vec<&str> =
                    (0..self.below(most + 1)).map(|_| self.tenant()).collect();
                tenants.sort_unstable();
                tenants.dedup();
                let key = match kind {
                    "flexible" => format!("GPU-{node}-{number}"),
                    "mig" => format!("GPU-{node}-p/{number}/0"),
                    _ => format!("vgpu:v-{node}-{number}"),
                };
                let device = Device {
                    key,
                    node,
                    kind,
                    model,
                    tenants,
                    licensed,
                };
                devices.push(state_of(&device, number));
                self.world.devices.push(device);
            }
        }
        // The GPU that is in slices is seen, and held by nobody.
        let parent = DeviceState {
            partitioned: true,
            ..gpu(&format!("GPU-{node}-p"), &[])
        };
        devices.push(parent);
        self.reports += 1;
        let cores = NODES[node].cores;
        let facts = NodeFacts {
            cpu_cores: Some(cores),
            memory_bytes: Some(u64::from(cores) << 30),
            ..NodeFacts::default()
        };
        self.log.push(format!(
            "{} reports {:?}",
            NODES[node].name,
            self.world
                .devices
                .iter()
                .filter(|it| it.node == node)
                .collect::<Vec<_>>()
        ));
        let report = Report {
            facts: Some(facts),
            ..full(self.reports, devices)
        };
        self.sessions[node].acked(report).await;
    }
}

fn state_of(device: &Device, number: usize) -> DeviceState {
    let place = format!("{}-{number}", device.node);
    let number = u32::try_from(number).unwrap();
    let (kind, key) = match device.kind {
        "flexible" => {
            let gpu_uuid = format!("GPU-{place}");
            (
                DeviceKind::Gpu,
                DeviceKey {
                    gpu_uuid,
                    ..DeviceKey::default()
                },
            )
        }
        "mig" => {
            let gpu_uuid = format!("GPU-{}-p", device.node);
            (
                DeviceKind::Mig,
                DeviceKey {
                    gpu_uuid,
                    gi: Some(number),
                    ci: Some(0),
                    ..DeviceKey::default()
                },
            )
        }
        _ => {
            let vgpu_uuid = format!("v-{place}");
            (
                DeviceKind::Vgpu,
                DeviceKey {
                    vgpu_uuid,
                    ..DeviceKey::default()
                },
            )
        }
    };
    let licence = match (device.kind, device.licensed) {
        ("vgpu", true) => LicenceState::Licensed,
        ("vgpu", false) => LicenceState::Unlicensed,
        _ => LicenceState::Unspecified,
    };
    let model = if device.kind == "vgpu" {
        device.model
    } else {
        "NVIDIA H100 80GB HBM3"
    };
    DeviceState {
        key: Some(key),
        kind: kind.into(),
        model: model.to_owned(),
        gpu_model: device.model.to_owned(),
        profile: if device.kind == "mig" {
            "1g.10gb".to_owned()
        } else {
            String::new()
        },
        licence: licence.into(),
        ..gpu("", &device.tenants)
    }
}
