//! The subcommand `set`: what the driver and one GPU say of themselves.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use gpuquota_fake_nvml::edit::{GpuSettings, NodeSettings};
use gpuquota_fake_nvml::scenario::{Scenario, ScenarioError, Virtualization};

#[derive(Args)]
pub(crate) struct Set {
    /// The driver's version, for example 560.35.03.
    #[arg(long)]
    driver: Option<String>,
    /// What every nvmlInit answers: 0, 9 (driver not loaded), 18 (library mismatch), 999.
    #[arg(long, value_name = "CODE")]
    init_return: Option<u32>,
    /// Bytes of an element in the process lists: 24, or 16 or 32 as some drivers did by mistake.
    #[arg(long)]
    element_bytes: Option<u32>,
    /// The GPU that the options below are about: UUID, PCI bus id or index.
    #[arg(long)]
    gpu: Option<String>,
    #[command(flatten)]
    of_gpu: OfGpu,
}

#[derive(Args)]
struct OfGpu {
    /// Degrees Celsius.
    #[arg(long, requires = "gpu")]
    temperature: Option<u32>,
    /// How busy the GPU is, in percent.
    #[arg(long, requires = "gpu", value_name = "PERCENT")]
    utilization: Option<u32>,
    /// How busy its memory is, in percent.
    #[arg(long, requires = "gpu", value_name = "PERCENT")]
    memory_utilization: Option<u32>,
    /// Whether virtual machines have it.
    #[arg(long, requires = "gpu", value_enum)]
    virtualization: Option<Mode>,
    /// Whether its vGPUs that are on GPU instances (`vgpu add --gi`) share them by turns.
    #[arg(long, requires = "gpu")]
    time_sliced: Option<bool>,
    /// The driver leaves it out: neither counted nor given a handle.
    #[arg(long, requires = "gpu")]
    excluded: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    None,
    Passthrough,
    Vgpu,
    HostVgpu,
}

impl Mode {
    fn virtualization(self) -> Virtualization {
        match self {
            Self::None => Virtualization::None,
            Self::Passthrough => Virtualization::Passthrough,
            Self::Vgpu => Virtualization::Vgpu,
            Self::HostVgpu => Virtualization::HostVgpu,
        }
    }
}

type Change<'c> = &'c dyn Fn(&mut Scenario) -> Result<(), ScenarioError>;

/// Makes all changes as one edit.
pub(crate) fn run(set: &Set, edit: &dyn Fn(Change<'_>) -> Result<()>) -> Result<()> {
    let node = NodeSettings {
        driver: set.driver.clone(),
        init_return: set.init_return,
        element_bytes: set.element_bytes,
    };
    let one = GpuSettings {
        temperature_c: set.of_gpu.temperature,
        utilization_gpu: set.of_gpu.utilization,
        utilization_memory: set.of_gpu.memory_utilization,
        virtualization: set.of_gpu.virtualization.map(Mode::virtualization),
        time_sliced: set.of_gpu.time_sliced,
        excluded: set.of_gpu.excluded,
    };
    if node == NodeSettings::default() && one == GpuSettings::default() {
        bail!("nothing to set: see gpuquota-fake-nvml set --help");
    }
    edit(&|scenario| {
        scenario.set_node(&node);
        match &set.gpu {
            Some(gpu) => scenario.set_gpu(gpu, &one),
            None => Ok(()),
        }
    })
}
