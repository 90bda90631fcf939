//! The command `devices`: one look at this node, as a table for people or as JSON for programs.

mod table;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use crate::attribute::{AttributionConfig, Observer};
use crate::clock::{boottime_ms, unix_s};
use crate::config::{Config, ConfigError, Overrides};
use crate::control::quiet::Quiet;
use crate::facts::boot_id;
use crate::gpu::library::check_library;
use crate::gpu::reading::{GpuFacts, HiddenGpu, Licence, NvmlState, ProcessKind};
use crate::gpu::sampler::{Collected, Sampler, SamplerConfig};
use crate::observation::{AttributedProcess, Device, DeviceKey, Observation, Reason};
use crate::openers::keeper::{self, Opened, is_blind};
use crate::report::wire::health_text;

mod open;

/// Whoever knows of containers and jobs gets this long to answer.
const ANSWERS_DEADLINE: Duration = Duration::from_secs(3);
/// NVML is absent or does not answer.
const NO_NVML: u8 = 3;

/// Command line of `devices`.
#[derive(Clone, Debug, clap::Args)]
pub struct DevicesOptions {
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// NVML to load instead of the system's.
    #[arg(long, value_name = "PATH")]
    pub nvml_library: Option<PathBuf>,
    /// The agent's folder, for its attribution rules and registered processes.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where the proc file system is.
    #[arg(long, value_name = "PATH", hide = true, default_value = "/proc")]
    pub proc_root: PathBuf,
}

/// Looks once and prints. 0 when NVML answered, 3 when it did not, 1 when the options or the configuration are wrong.
pub async fn devices(options: DevicesOptions) -> ExitCode {
    match look(&options).await {
        Ok(Look {
            observation,
            unidentified,
            open_nodes,
        }) => {
            let printed = if options.json {
                print_json(&observation, &open_nodes)
            } else {
                table::print(&observation, unidentified).and_then(|()| open::print(&open_nodes))
            };
            // A reader that stops reading, such as head(1), is no failure.
            match (printed, &observation.nvml) {
                (Err(error), _) if error.kind() != io::ErrorKind::BrokenPipe => complain(&error),
                (_, NvmlState::Ok) => ExitCode::SUCCESS,
                _ => ExitCode::from(NO_NVML),
            }
        }
        Err(error) => complain(error.as_ref()),
    }
}

fn complain(error: &dyn std::error::Error) -> ExitCode {
    // Without standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "gpuquota-agent: {error}");
    ExitCode::FAILURE
}

/// What is seen.
struct Look {
    observation: Observation,
    /// GPUs that are there without a name.
    unidentified: u32,
    /// Only while NVML cannot be asked.
    open_nodes: Opened,
}

async fn look(options: &DevicesOptions) -> Result<Look, Box<dyn std::error::Error>> {
    let mut sampling = SamplerConfig {
        events: None,
        proc_root: options.proc_root.clone(),
        ..SamplerConfig::default()
    };
    let mut attribution = AttributionConfig::default();
    let mut state = None;
    // A library that is not there is a state of the node, not a mistake of the caller.
    let mut absent = None;
    match &options.dir {
        Some(dir) => {
            let overrides = Overrides {
                nvml_library: options.nvml_library.clone(),
                standalone: true,
                ..Overrides::default()
            };
            match Config::load(dir, overrides) {
                Err(ConfigError::Library(refused)) if refused.is_absence() => {
                    absent = Some(refused.to_string());
                }
                config => {
                    let config = config?;
                    sampling.nvml_library = config.nvml_library;
                    sampling.call_deadline = config.call_deadline;
                    attribution = config.attribution;
                    state = Some(config.state);
                }
            }
        }
        None => match options.nvml_library.as_deref().map(check_library) {
            Some(Err(refused)) if refused.is_absence() => absent = Some(refused.to_string()),
            library => sampling.nvml_library = library.transpose()?,
        },
    }
    let mut observer = Observer::new(&attribution, state.as_deref())?;
    observer.names_asked(ANSWERS_DEADLINE).await;
    let quiet = || Quiet::load(state.as_deref()?, &boot_id().ok()?, boottime_ms());
    let closed = absent
        .map(NvmlState::Absent)
        .or_else(|| quiet().map(|quiet| NvmlState::Quiesced(quiet.text(boottime_ms(), unix_s()))));
    if let Some(nvml) = closed {
        let now_ms = boottime_ms();
        let collected = Collected {
            nvml,
            reading: None,
            asked_boottime_ms: now_ms,
        };
        return Ok(Look {
            observation: observer.observe(collected, None, now_ms),
            unidentified: 0,
            open_nodes: Opened::default(),
        });
    }
    let mut sampler = Sampler::start(sampling);
    let now_ms = boottime_ms();
    let collected = sampler.sample(now_ms).await;
    let mut observation = observer.observe(collected.clone(), None, now_ms);
    // What was asked about containers and jobs comes a moment later.
    if observer.answered(ANSWERS_DEADLINE).await {
        observation = observer.observe(collected, Some(&observation), now_ms);
    }
    let unidentified = sampler.stats().unidentified;
    sampler.shutdown().await;
    let open_nodes = if is_blind(&observation.nvml) {
        keeper::look(&options.proc_root, &mut observer, boottime_ms())
    } else {
        Opened::default()
    };
    Ok(Look {
        observation,
        unidentified,
        open_nodes,
    })
}

#[derive(Debug, Serialize)]
struct Document<'o> {
    driver: Option<&'o str>,
    devices: Vec<Row<'o>>,
    /// Only when NVML did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'o NvmlState>,
    /// Only while NVML cannot be asked: who has device nodes open.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    open_nodes: Vec<open::NodeRow<'o>>,
    /// Processes that may have more open than that.
    #[serde(skip_serializing_if = "Option::is_none")]
    open_nodes_missed: Option<open::MissedRow>,
}

#[derive(Debug, Default, Serialize)]
struct Row<'o> {
    uuid: Option<&'o str>,
    /// Of the GPU, or of the one that it is a part of.
    pci_bus_id: Option<&'o str>,
    kind: &'static str,
    model: Option<&'o str>,
    gpu_model: Option<&'o str>,
    parent_uuid: Option<&'o str>,
    gi: Option<u32>,
    ci: Option<u32>,
    profile: Option<&'o str>,
    /// What holds a vGPU.
    vm: Option<&'o str>,
    /// Whose that VM is.
    tenant: Option<&'o str>,
    licence: Option<Licence>,
    /// Seconds since 1970; `null`: no end, or not known.
    licence_expires_at_s: Option<i64>,
    /// The driver that a vGPU's guest has loaded.
    guest_driver: Option<&'o str>,
    /// Where a vGPU lies among others of several sizes.
    placement_id: Option<u32>,
    memory_total_bytes: Option<u64>,
    memory_used_bytes: Option<u64>,
    memory_used_quality: &'static str,
    /// Held by the driver; neither used nor free.
    memory_reserved_bytes: Option<u64>,
    /// Of its SMs (a MIG instance), or the time in which something ran.
    utilization_percent: Option<u32>,
    utilization_quality: &'static str,
    /// `ok`, `lost`, `hung`, `unknown`; of GPUs that NVML does not show `excluded` or `passthrough`.
    state: &'static str,
    /// NUMA node nearest to its GPU.
    numa_node: Option<u32>,
    /// GPUs with the same number are joined by NVLink.
    nvlink_island: Option<u32>,
    /// What a full GPU is.
    gpu: Option<&'o GpuFacts>,
    /// Not known when the driver does not list them; the last known ones while `state` is not ok.
    processes: Option<Vec<ProcessRow<'o>>>,
    /// Why a GPU may hold more than is shown.
    doubts: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct ProcessRow<'o> {
    /// Not there when the driver does not name the process.
    pid: Option<u32>,
    tenant: Option<&'o str>,
    /// Which kind of rule named the tenant; `system` for the driver's daemons.
    source: Option<&'static str>,
    /// Why it is nobody's.
    reason: Option<&'static str>,
    /// The user or group of a rule that lacks an id, when that is the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// `compute`, `graphics` or `mps`, a client of an MPS server.
    kind: Option<ProcessKind>,
    used_memory_bytes: Option<u64>,
    used_memory_quality: &'static str,
    /// Of the device's SMs.
    sm_percent: Option<u32>,
    sm_quality: &'static str,
}

impl<'o> Row<'o> {
    fn new(key: &'o DeviceKey, device: &'o Device) -> Self {
        let (uuid, parent_uuid, place) = match key {
            DeviceKey::Gpu(uuid) => (Some(uuid.as_str()), None, None),
            DeviceKey::Vgpu(uuid) => {
                let parent = device.vgpu.as_ref().map(|vgpu| vgpu.parent.as_str());
                (Some(uuid.as_str()), parent, None)
            }
            DeviceKey::Mig(parent, gi, ci) => (
                device.mig_uuid.as_deref(),
                Some(parent.as_str()),
                Some((*gi, *ci)),
            ),
        };
        // Where the driver does not tell its reserve apart, what processes hold is not known.
        let used = device.memory.filter(|memory| memory.reserved.is_some());
        let facts = device.facts.as_deref();
        let vgpu = device.vgpu.as_ref();
        Self {
            uuid,
            pci_bus_id: facts.map(|facts| facts.pci_bus_id.as_str()),
            kind: key.kind(),
            model: Some(device.model.as_str()).filter(|model| !model.is_empty()),
            gpu_model: Some(&device.gpu_model),
            parent_uuid,
            gi: place.map(|(gi, _)| gi).or(vgpu.and_then(|vgpu| vgpu.gi)),
            ci: place.map(|(_, ci)| ci),
            profile: device.profile.as_deref(),
            vm: vgpu.and_then(|vgpu| vgpu.vm.as_deref()),
            tenant: vgpu.and_then(|vgpu| vgpu.owner.tenant()),
            licence: vgpu.map(|vgpu| vgpu.licence),
            licence_expires_at_s: vgpu.and_then(|vgpu| vgpu.licence_expires_at_s),
            guest_driver: vgpu.and_then(|vgpu| vgpu.guest_driver.as_deref()),
            placement_id: vgpu.and_then(|vgpu| vgpu.placement_id),
            memory_total_bytes: device.memory.map(|memory| memory.total),
            memory_used_bytes: used.map(|memory| memory.used),
            memory_used_quality: quality(used),
            memory_reserved_bytes: device.memory.and_then(|memory| memory.reserved),
            utilization_percent: device.whole.percent,
            utilization_quality: quality(device.whole.percent),
            state: health_text(device.health),
            numa_node: device.numa_node(),
            nvlink_island: device.nvlink_island,
            gpu: facts.filter(|_| place.is_none() && device.vgpu.is_none()),
            processes: processes(device),
            doubts: device.doubts.iter().map(|doubt| doubt.as_str()).collect(),
        }
    }
}

impl<'o> Row<'o> {
    /// A GPU that NVML does not show: nobody here can hold it.
    fn hidden(gpu: &'o HiddenGpu) -> Self {
        Self {
            uuid: gpu.uuid.as_deref(),
            kind: "gpu",
            state: gpu.why.as_str(),
            memory_used_quality: quality::<u64>(None),
            utilization_quality: quality::<u32>(None),
            pci_bus_id: Some(&gpu.pci_bus_id),
            ..Self::default()
        }
    }
}

impl<'o> ProcessRow<'o> {
    fn new(process: &'o AttributedProcess) -> Self {
        Self {
            pid: process.pid,
            tenant: process.owner.tenant(),
            source: process.owner.source_text(),
            reason: process.owner.reason().map(Reason::as_str),
            detail: process.owner.lacks().map(ToString::to_string),
            kind: process.kind,
            used_memory_bytes: process.used_memory_bytes,
            used_memory_quality: quality(process.used_memory_bytes),
            sm_percent: process.sm.percent(),
            sm_quality: process.sm.quality(),
        }
    }
}

/// What is known of the processes on it.
fn processes(device: &Device) -> Option<Vec<ProcessRow<'_>>> {
    let unknown = device.unlisted && device.processes.is_empty();
    (!unknown).then(|| device.processes.iter().map(ProcessRow::new).collect())
}

/// The driver says it, or nobody does.
fn quality<T>(figure: Option<T>) -> &'static str {
    match figure {
        Some(_) => "measured",
        None => "unknown",
    }
}

fn document<'o>(observation: &'o Observation, open_nodes: &'o Opened) -> Document<'o> {
    Document {
        driver: observation.driver_version.as_deref(),
        devices: observation
            .devices
            .iter()
            .map(|(key, device)| Row::new(key, device))
            .chain(observation.hidden.iter().map(Row::hidden))
            .collect(),
        error: Some(&observation.nvml).filter(|state| **state != NvmlState::Ok),
        open_nodes: open_nodes.nodes.iter().map(open::NodeRow::new).collect(),
        open_nodes_missed: open_nodes.missed.map(open::MissedRow::new),
    }
}

fn print_json(observation: &Observation, open_nodes: &Opened) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &document(observation, open_nodes))?;
    writeln!(out)
}

#[cfg(test)]
mod tests;
