//! The subcommand `vgpu`: virtual machines come and go, and so do their licences.

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use gpuquota_fake_nvml::scenario::{Licence, Scenario, ScenarioError};
use toml::value::Datetime;

#[derive(Subcommand)]
pub(crate) enum VgpuCommand {
    /// Start a VM with a vGPU on a GPU in host-vgpu mode; prints the vGPU's UUID.
    Add {
        /// The GPU: UUID, PCI bus id or index.
        #[arg(long)]
        gpu: String,
        /// The type's name, for example "NVIDIA L40S-8Q".
        #[arg(long = "type")]
        type_name: String,
        /// UUID or domain id of the VM.
        #[arg(long)]
        vm: String,
        /// Framebuffer of a type that the GPU's model does not have.
        #[arg(long)]
        memory_mib: Option<u64>,
        /// The GPU instance that it is on, where the GPU is cut; absent: on the whole GPU.
        #[arg(long)]
        gi: Option<u32>,
        #[command(flatten)]
        licence: LicenceState,
    },
    /// Stop the VM.
    Remove {
        /// The vGPU.
        #[arg(long)]
        uuid: String,
    },
    /// Give the guest a licence, or take it away.
    License {
        /// The vGPU.
        #[arg(long)]
        uuid: String,
        #[command(flatten)]
        licence: LicenceState,
    },
}

#[derive(Args)]
pub(crate) struct LicenceState {
    #[arg(long, value_enum, default_value_t = LicenceName::Licensed)]
    licence: LicenceName,
    /// When the licence ends, for example 2027-06-30T12:00:00Z; absent: NVML gives no date.
    #[arg(long)]
    expires: Option<Datetime>,
}

#[derive(Clone, Copy, ValueEnum)]
enum LicenceName {
    Licensed,
    Unlicensed,
    Unknown,
    NoDriver,
}

impl LicenceName {
    fn licence(self) -> Licence {
        match self {
            Self::Licensed => Licence::Licensed,
            Self::Unlicensed => Licence::Unlicensed,
            Self::Unknown => Licence::Unknown,
            Self::NoDriver => Licence::NoDriver,
        }
    }
}

type Change<'c> = &'c dyn Fn(&mut Scenario) -> Result<String, ScenarioError>;

/// Makes the change through `edit` and prints the UUID of a vGPU that was added.
pub(crate) fn run(
    command: &VgpuCommand,
    edit: &dyn Fn(Change<'_>) -> Result<String>,
) -> Result<()> {
    let said = edit(&|scenario| match command {
        VgpuCommand::Add {
            gpu,
            type_name,
            vm,
            memory_mib,
            gi,
            licence,
        } => {
            let uuid = scenario.add_vgpu(gpu, type_name, vm, *memory_mib)?;
            scenario.vgpu_mut(&uuid)?.gi = *gi;
            scenario.license_vgpu(&uuid, licence.licence.licence(), licence.expires)?;
            Ok(uuid)
        }
        VgpuCommand::Remove { uuid } => scenario.remove_vgpu(uuid).map(|()| String::new()),
        VgpuCommand::License { uuid, licence } => scenario
            .license_vgpu(uuid, licence.licence.licence(), licence.expires)
            .map(|()| String::new()),
    })?;
    if !said.is_empty() {
        println!("{said}");
    }
    Ok(())
}
