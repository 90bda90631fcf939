//! What a step needs to know of the kernel: whose group a process is in, and which nodes a device has.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::neighbours::Neighbours;
use crate::observation::{DeviceKey, Observation};
use crate::plan::Kernel;
use crate::plan::group::{Grouped, group_of};
use crate::plan::step::Process;
use crate::process::procfs::ProcessFolder;

/// The kernel of this host, beside a reading.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) seen: Arc<Observation>,
    /// Where the proc file system tells of the node as a whole.
    pub(crate) proc_root: PathBuf,
}

impl Host {
    // Through one open folder: what is read is of the process whose start time fits.
    fn cgroup(&self, process: Process) -> Option<Vec<u8>> {
        let folder = ProcessFolder::open(process.pid).ok()?;
        if folder.start_time().ok()? != process.start_time {
            return None;
        }
        folder.cgroup().ok()
    }

    fn minor(&self, device: &DeviceKey) -> Option<u32> {
        self.seen.devices.get(device)?.minor
    }

    /// Nodes that a process must open to use the device; `None`: the driver does not name them all.
    pub(crate) fn all_nodes(&self, device: &DeviceKey) -> Option<Vec<String>> {
        let minor = self.minor(device)?;
        let gpu = format!("/dev/nvidia{minor}");
        match device {
            DeviceKey::Gpu(_) => Some(vec![gpu]),
            DeviceKey::Mig(_, gi, ci) => {
                let instance = format!("gpu{minor}/mig/gi{gi}");
                let whole = self.capability(&format!("{instance}/access"))?;
                let part = self.capability(&format!("{instance}/ci{ci}/access"))?;
                Some(vec![gpu, whole, part])
            }
            DeviceKey::Vgpu(_) => None,
        }
    }

    // The driver names the node of an instance's capability in this file (MIG user guide, "Device nodes and capabilities").
    fn capability(&self, path: &str) -> Option<String> {
        let file = self.proc_root.join("driver/nvidia/capabilities").join(path);
        let text = fs::read_to_string(file).ok()?;
        let minor = text
            .lines()
            .find_map(|line| line.strip_prefix("DeviceFileMinor:"))?;
        let minor: u32 = minor.trim().parse().ok()?;
        Some(format!("/dev/nvidia-caps/nvidia-cap{minor}"))
    }
}

/// That kernel, and who is asked whose its processes are.
#[derive(Debug)]
pub(super) struct Inhabited<'a> {
    pub(super) host: Host,
    pub(super) neighbours: &'a mut Neighbours,
}

impl Kernel for Inhabited<'_> {
    fn group(&mut self, process: Process) -> Option<Grouped> {
        self.host.cgroup(process).map(|text| group_of(&text))
    }

    fn path(&mut self, process: Process) -> Option<String> {
        let text = self.host.cgroup(process)?;
        let mut lines = text.split(|byte| *byte == b'\n');
        let path = lines.find_map(|line| line.strip_prefix(b"0::"))?;
        String::from_utf8(path.to_vec()).ok()
    }

    fn nodes(&mut self, device: &DeviceKey) -> Vec<String> {
        let Some(minor) = self.host.minor(device) else {
            return Vec::new();
        };
        match device {
            DeviceKey::Gpu(_) => vec![format!("/dev/nvidia{minor}")],
            // Without the node of its compute instance nobody can use it; the other nodes serve others as well.
            DeviceKey::Mig(_, gi, ci) => {
                let path = format!("gpu{minor}/mig/gi{gi}/ci{ci}/access");
                self.host.capability(&path).into_iter().collect()
            }
            DeviceKey::Vgpu(_) => Vec::new(),
        }
    }

    fn open_nodes(&mut self, device: &DeviceKey) -> Vec<String> {
        let mut nodes = self.nodes(device);
        // Capabilities may be closed again once they were shown; the GPU's own node stays open.
        if let DeviceKey::Mig(..) = device
            && let Some(minor) = self.host.minor(device)
        {
            nodes.push(format!("/dev/nvidia{minor}"));
        }
        nodes
    }

    fn tenants(&mut self, group: &str) -> Option<BTreeSet<Option<String>>> {
        self.neighbours.tenants(group)
    }
}
