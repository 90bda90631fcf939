//! Keeps looking who has device nodes open while NVML cannot be asked, and adds them to the last known holders.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::{JoinHandle, spawn_blocking};

use super::scan::{Missed, Openers, scan, uuids};
use crate::attribute::Observer;
use crate::gpu::reading::{GpuProcess, GpuReading, Health, NvmlState, ProcessKind, Reading};
use crate::gpu::sampler::Collected;
use crate::observation::{AttributedProcess, Device, DeviceKey, Observation};

/// Between two scans, milliseconds: a scan reads every process of the node.
pub const EVERY_MS: u64 = 5_000;

/// One device node and who has it open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenNode {
    /// N of `/dev/nvidiaN`.
    pub minor: u32,
    /// UUID of that GPU; `None` when neither the last reading nor the kernel module tells.
    pub uuid: Option<String>,
    /// Processes that have it open.
    pub processes: Vec<AttributedProcess>,
}

/// What a look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The nodes that somebody has open.
    pub nodes: Vec<OpenNode>,
    /// Who may have more open; `None` before the first scan.
    pub missed: Option<Missed>,
}

/// Whether holders have to be told by device nodes.
#[must_use]
pub fn is_blind(nvml: &NvmlState) -> bool {
    match nvml {
        NvmlState::Mismatch(_) | NvmlState::Broken(_) => true,
        NvmlState::Ok
        | NvmlState::Absent(_)
        | NvmlState::Quiesced(_)
        | NvmlState::DriverNotLoaded(_)
        | NvmlState::Unresponsive(_) => false,
    }
}

/// One look at `now_ms`: scans `/proc` at `root` and says whose the processes are.
pub fn look(root: &Path, observer: &mut Observer, now_ms: u64) -> Opened {
    let found = scan(root);
    Opened {
        nodes: attributed(&found, &uuids(root), observer, now_ms, now_ms),
        missed: Some(found.missed),
    }
}

/// A scan, the GPUs' names, and when it began.
type Scanned = (u64, Openers, BTreeMap<u32, String>);
type Seen = BTreeSet<(u32, Option<u32>, Option<u64>)>;

/// The keeper.
#[derive(Debug)]
pub struct Keeper {
    root: PathBuf,
    every_ms: u64,
    next_ms: u64,
    scan: Option<JoinHandle<Scanned>>,
    opened: Arc<Opened>,
    /// Seen by the newest scan, and by the one before as well.
    once: Seen,
    twice: Seen,
}

impl Keeper {
    /// `root`: usually `/proc`; `every_ms`: usually [`EVERY_MS`].
    #[must_use]
    pub fn new(root: &Path, every_ms: u64) -> Self {
        Self {
            root: root.to_owned(),
            every_ms,
            next_ms: 0,
            scan: None,
            opened: Arc::default(),
            once: Seen::new(),
            twice: Seen::new(),
        }
    }

    /// Once a pass. While NVML cannot be asked: scans in the background, and adds to each whole GPU of `observation` the processes
    /// that two scans in a row found on its node. A tool that only has a look at all GPUs holds none.
    pub async fn mind(
        &mut self,
        observation: &mut Observation,
        observer: &mut Observer,
        now_ms: u64,
    ) -> Arc<Opened> {
        if !is_blind(&observation.nvml) {
            if let Some(scan) = self.scan.take() {
                scan.abort();
            }
            if self.opened.missed.is_some() {
                *self = Self::new(&self.root, self.every_ms);
            }
            return Arc::clone(&self.opened);
        }
        if let Some(ended) = self.scan.take_if(|scan| scan.is_finished())
            && let Ok((began_ms, found, uuids)) = ended.await
        {
            let nodes = attributed(&found, &uuids, observer, began_ms, now_ms);
            self.take(&found, nodes);
        }
        if self.scan.is_none() && now_ms >= self.next_ms {
            self.next_ms = now_ms.saturating_add(self.every_ms);
            let root = self.root.clone();
            self.scan = Some(spawn_blocking(move || (now_ms, scan(&root), uuids(&root))));
        }
        self.add_to(observation);
        Arc::clone(&self.opened)
    }

    fn take(&mut self, found: &Openers, nodes: Vec<OpenNode>) {
        let Missed { denied, cut } = found.missed;
        let told = self.opened.missed.is_some_and(|before| !before.is_empty());
        if !found.missed.is_empty() && !told {
            tracing::warn!(
                denied,
                cut,
                "not every process could be looked at: more may have device nodes open; look at who has very many files open or mapped, \
                 and run the agent with CAP_SYS_PTRACE"
            );
        }
        let seen: Seen = nodes
            .iter()
            .flat_map(|node| {
                let of =
                    |process: &AttributedProcess| (node.minor, process.pid, process.start_time);
                node.processes.iter().map(of)
            })
            .collect();
        self.twice = seen.intersection(&self.once).copied().collect();
        self.once = seen;
        self.opened = Arc::new(Opened {
            nodes,
            missed: Some(found.missed),
        });
    }

    fn add_to(&self, observation: &mut Observation) {
        for (key, device) in &mut observation.devices {
            let (DeviceKey::Gpu(_), Some(minor), false) = (key, device.minor, device.partitioned)
            else {
                continue;
            };
            let node = self.opened.nodes.iter().find(|node| node.minor == minor);
            for process in node.into_iter().flat_map(|node| &node.processes) {
                let seen = (minor, process.pid, process.start_time);
                let known = device
                    .processes
                    .iter()
                    .any(|known| known.pid == process.pid);
                if !known && self.twice.contains(&seen) {
                    device.processes.push(process.clone());
                }
            }
            device.processes.sort_by_key(|process| process.pid);
        }
    }
}

/// Whose the processes are, by the observer's own way: as if a driver had listed them when the scan began. What began later is
/// another process, to which the pid has gone.
fn attributed(
    found: &Openers,
    uuids: &BTreeMap<u32, String>,
    observer: &mut Observer,
    began_ms: u64,
    now_ms: u64,
) -> Vec<OpenNode> {
    let minors: BTreeSet<u32> = found.minors.values().flatten().copied().collect();
    let gpu = |minor: &u32| GpuReading {
        uuid: minor.to_string(),
        index: *minor,
        minor: Some(*minor),
        health: Health::Ok,
        mig_enabled: Some(false),
        vgpu_host: Some(false),
        processes: Some(rows(found, *minor)),
        ..GpuReading::default()
    };
    let collected = Collected {
        nvml: NvmlState::Ok,
        reading: Some(Reading {
            gpus: minors.iter().map(gpu).collect(),
            ..Reading::default()
        }),
        asked_boottime_ms: began_ms,
    };
    let mut seen = observer.observe(collected, None, now_ms);
    let node = |minor: u32| {
        let device = seen.devices.remove(&DeviceKey::Gpu(minor.to_string()));
        OpenNode {
            minor,
            uuid: uuids.get(&minor).cloned(),
            processes: device.map(opened).unwrap_or_default(),
        }
    };
    minors.iter().copied().map(node).collect()
}

/// They have a node open; no list of the driver's says what they do with it.
fn opened(device: Device) -> Vec<AttributedProcess> {
    let found = device.processes.into_iter();
    found
        .map(|process| AttributedProcess {
            kind: None,
            ..process
        })
        .collect()
}

fn rows(found: &Openers, minor: u32) -> Vec<GpuProcess> {
    let has = found
        .minors
        .iter()
        .filter(|(_, minors)| minors.contains(&minor));
    has.map(|(pid, _)| GpuProcess {
        pid: Some(*pid),
        gi: None,
        ci: None,
        kind: ProcessKind::Compute,
        used_memory_bytes: None,
        sm_percent: None,
        memory_percent: None,
    })
    .collect()
}

#[cfg(test)]
mod tests;
