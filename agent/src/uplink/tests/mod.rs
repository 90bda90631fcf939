//! The uplink against a real TLS server. Here: the bench that the tests share.

mod acting;
mod delivery;
mod dialogue;
mod trust;

use std::path::Path;
use std::time::Duration;

use gpuquota_proto::tls::TlsFiles;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::Status;

use gpuquota_proto::agent_v1::Mark;

use super::fake_server::{Authority, Book, FakeServer};
use super::outbox::Good;
use super::*;
use crate::facts::Node;
use crate::gpu::reading::{Health, NvmlState};
use crate::observation::{AttributedProcess, Device, DeviceKey, Observation, Owner, Source};
use crate::report::{Reporter, bucket::Allowance};
use crate::spool::{Limits, Spool};

const QUICK: Waits = Waits {
    first: Duration::from_millis(10),
    longest: Duration::from_millis(80),
    stable_after: Duration::from_secs(10),
    refused: Duration::from_millis(600),
    contended: Duration::from_millis(600),
};

struct Bench {
    dir: TempDir,
    authority: Authority,
    server_files: TlsFiles,
    outbox: Arc<Outbox>,
    reporter: Reporter,
    dialogue: Arc<Dialogue>,
    status: Arc<UplinkStatus>,
    now: u64,
}

fn spool(dir: &Path) -> Spool {
    let limits = Limits {
        bytes: 1 << 20,
        records: 1000,
    };
    Spool::open(&dir.join("spool"), "node1", "boot", limits)
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let server_files = authority.server(dir.path());
        let node = Node {
            cpu_cores: None,
            memory_bytes: None,
        };
        Self {
            outbox: Arc::new(Outbox::new(spool(dir.path()))),
            reporter: Reporter::new(node, Allowance::default(), Vec::new()),
            dialogue: Arc::new(Dialogue::new("boot")),
            status: Arc::default(),
            authority,
            server_files,
            dir,
            now: 1000,
        }
    }

    fn start(&self, server: &FakeServer, files: TlsFiles) -> (JoinHandle<()>, CancellationToken) {
        let uplink = Uplink {
            server: Server {
                host: server.address.ip().to_string(),
                port: server.address.port(),
            },
            credentials: Credentials {
                files,
                node: "node1".into(),
                forms: Default::default(),
            },
            boot_id: "boot".into(),
            waits: QUICK,
            outbox: Arc::clone(&self.outbox),
            dialogue: Arc::clone(&self.dialogue),
            status: Arc::clone(&self.status),
            authorities: None,
        };
        let stop = CancellationToken::new();
        (tokio::spawn(uplink.run(stop.clone())), stop)
    }

    fn tell(&mut self, tenants: &[&str]) -> bool {
        self.tell_read_after(self.outbox.heard(), tenants)
    }

    fn tell_read_after(&mut self, read_after: Option<Mark>, tenants: &[&str]) -> bool {
        self.now += 1000;
        let process = |name: &&str| AttributedProcess {
            pid: Some(1),
            kind: None,
            start_time: None,
            owner: Owner::Tenant {
                name: (*name).into(),
                source: Source::Slice,
            },
            used_memory_bytes: None,
            sm: Default::default(),
        };
        let device = Device {
            health: Health::Ok,
            model: "H100".into(),
            gpu_model: "nvidia.com/gpu".into(),
            profile: None,
            mig_uuid: None,
            minor: None,
            partitioned: false,
            memory: None,
            processes: tenants.iter().map(process).collect(),
            vgpu: None,
            ..Device::default()
        };
        let observation = Observation {
            hidden: Vec::new(),
            at_boottime_ms: self.now,
            nvml: NvmlState::Ok,
            driver_version: None,
            devices: [(DeviceKey::Gpu("GPU-a".into()), device)].into(),
        };
        let good = Good {
            at_boottime_ms: self.now,
            read_after,
        };
        self.outbox
            .tell(&mut self.reporter, &observation, 0, Some(good))
    }
}
