//! The command `devices`: one look at this node, as a table for people or as JSON for programs.

mod document;
mod missing;
mod open;
mod table;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::attribute::{AttributionConfig, Observer};
use crate::clock::{boottime_ms, unix_s};
use crate::config::{Config, ConfigError, Overrides};
use crate::control::quiet::Quiet;
use crate::facts::boot_id;
use crate::gpu::library::check_library;
use crate::gpu::reading::NvmlState;
use crate::gpu::sampler::{Collected, Sampler, SamplerConfig};
use crate::observation::{DeviceKey, Observation};
use crate::openers::keeper::{self, Opened, is_blind};
use crate::state::gpus;
use crate::sysfs::PciBus;
use document::document;
use missing::{Missing, missing};

/// Whoever knows of containers and jobs gets this long to answer.
const ANSWERS_DEADLINE: Duration = Duration::from_secs(3);
/// Between two readings of a node with MIG instances; GPM wants 100 ms at least (NVML API, nvmlGpmMetricsGet).
const BETWEEN: Duration = Duration::from_millis(200);
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
    /// Where the sys file system is.
    #[arg(long, value_name = "PATH", hide = true, default_value = "/sys")]
    pub sys_root: PathBuf,
}

/// Looks once and prints. 0 when NVML answered, 3 when it did not, 1 when the folder or the configuration is wrong.
pub async fn devices(options: DevicesOptions) -> ExitCode {
    match look(&options).await {
        Ok(look) => {
            let printed = if options.json {
                print_json(&look)
            } else {
                table::print(&look, &mut io::stdout().lock())
                    .and_then(|()| open::print(&look.open_nodes))
            };
            // A reader that stops reading, such as head(1), is no failure.
            match (printed, &look.observation.nvml) {
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
    /// GPUs that are there, or were, and have no name here.
    missing: Vec<Missing>,
    /// Only while NVML cannot be asked.
    open_nodes: Opened,
}

async fn look(options: &DevicesOptions) -> Result<Look, Box<dyn std::error::Error>> {
    let mut sampling = SamplerConfig {
        events: None,
        proc_root: options.proc_root.clone(),
        bus: PciBus::new(&options.sys_root),
        ..SamplerConfig::default()
    };
    let mut attribution = AttributionConfig::default();
    let mut state = None;
    // A library that is not there is a state of the node, not a mistake of the caller.
    let mut absent = None;
    match &options.dir {
        Some(dir) => {
            exists(dir)?;
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
            missing: Vec::new(),
            open_nodes: Opened::default(),
        });
    }
    let mut sampler = Sampler::start(sampling);
    let mut now_ms = boottime_ms();
    let mut collected = sampler.sample(now_ms).await;
    let mut observation = observer.observe(collected.clone(), None, now_ms);
    let cut = observation.devices.keys();
    if cut.into_iter().any(|key| matches!(key, DeviceKey::Mig(..))) {
        // What an instance does lies between two samples of it (GPM).
        tokio::time::sleep(BETWEEN).await;
        now_ms = boottime_ms();
        collected = sampler.sample(now_ms).await;
        observation = observer.observe(collected.clone(), Some(&observation), now_ms);
    }
    // What was asked about containers and jobs comes a moment later.
    if observer.answered(ANSWERS_DEADLINE).await {
        observation = observer.observe(collected, Some(&observation), now_ms);
    }
    let kept = match (&state, boot_id()) {
        (Some(state), Ok(boot_id)) if observation.nvml == NvmlState::Ok => {
            gpus::load(state, &boot_id)
        }
        _ => Vec::new(),
    };
    let missing = missing(sampler.unnamed(), &kept, &observation);
    sampler.shutdown().await;
    let open_nodes = if is_blind(&observation.nvml) {
        keeper::look(&options.proc_root, &mut observer, boottime_ms())
    } else {
        Opened::default()
    };
    Ok(Look {
        observation,
        missing,
        open_nodes,
    })
}

/// A folder without a configuration is one where everything is as by default; one that is not there is a slip of the pen.
fn exists(dir: &Path) -> io::Result<()> {
    let text = |why: &dyn std::fmt::Display| format!("--dir {}: {why}", dir.display());
    match std::fs::metadata(dir) {
        Ok(about) if about.is_dir() => Ok(()),
        Ok(_) => {
            let kind = io::ErrorKind::NotADirectory;
            Err(io::Error::new(kind, text(&kind)))
        }
        Err(error) => Err(io::Error::new(error.kind(), text(&error))),
    }
}

fn print_json(look: &Look) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &document(look))?;
    writeln!(out)
}

#[cfg(test)]
mod tests;
