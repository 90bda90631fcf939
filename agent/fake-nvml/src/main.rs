//! `gpuquota-fake-nvml`: makes and changes scenarios while programs are looking at them.

mod set_command;
mod show;
mod vgpu_command;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use gpuquota_fake_nvml::link::{How, link, without};
use gpuquota_fake_nvml::scenario::{Action, Fault, Kind, Process, Scenario, ScenarioError};
use gpuquota_fake_nvml::{SCENARIO_VARIABLE, file, preset, start_time, wall_millis};

/// Makes and changes scenarios of the fake NVML.
#[derive(Parser)]
#[command(name = "gpuquota-fake-nvml", version)]
struct Arguments {
    /// The scenario file; the one named by GPUQUOTA_FAKE_NVML when absent.
    #[arg(long, global = true)]
    scenario: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a ready-made node: a100-mig, l40s-vgpu, broken-node, or MODELxCOUNT with a model of h100, a100, l40s, l4, t4, a30, h200, b200,
    /// rtxpro6000.
    New {
        #[arg(long)]
        preset: String,
        /// GPUs of different seeds have different UUIDs: give each node its own.
        #[arg(long)]
        seed: Option<String>,
    },
    /// Say that a running process uses a GPU.
    AddProcess(AddProcess),
    /// Say that a process uses no GPU any more.
    RemoveProcess {
        #[arg(long)]
        pid: u32,
    },
    /// Make a function hang, wait, fail or crash.
    Fault(PlantFault),
    /// Take faults away: all, or those of one function.
    ClearFaults {
        #[arg(long)]
        function: Option<String>,
    },
    /// Let a GPU fall off the bus.
    Lose(Gpu),
    /// Bring a lost GPU back.
    Restore(Gpu),
    /// Take a GPU out of the node for good; the ones behind it move up.
    RemoveGpu(Gpu),
    /// Cut a GPU into MIG instances, for example `--layout 3g.40gb,2g.20gb`; no layout leaves MIG mode.
    Slice {
        #[command(flatten)]
        gpu: Gpu,
        #[arg(long, value_delimiter = ',')]
        layout: Vec<String>,
    },
    /// Send an XID event.
    Xid {
        #[command(flatten)]
        gpu: Gpu,
        #[arg(long)]
        code: u64,
        #[arg(long, requires = "ci")]
        gi: Option<u32>,
        #[arg(long, requires = "gi")]
        ci: Option<u32>,
    },
    /// Change what the driver or a GPU says of itself.
    Set(set_command::Set),
    /// Start and stop virtual machines with vGPUs, and change their licences.
    #[command(subcommand)]
    Vgpu(vgpu_command::VgpuCommand),
    /// Print the scenario as a table.
    Show,
    /// Put the library into a folder as libnvidia-ml.so.1.
    Link {
        #[arg(long)]
        dir: PathBuf,
        /// A copy instead of a symbolic link.
        #[arg(long)]
        copy: bool,
        /// Take a symbol out of the copy, as an old driver lacks it; may be given several times.
        #[arg(long, value_name = "SYMBOL", requires = "copy")]
        without: Vec<String>,
    },
}

#[derive(Args)]
struct Gpu {
    /// UUID, PCI bus id or index.
    #[arg(long)]
    gpu: String,
}

#[derive(Args)]
struct AddProcess {
    #[command(flatten)]
    gpu: Gpu,
    /// GPU instance.
    #[arg(long)]
    gi: Option<u32>,
    /// Compute instance.
    #[arg(long, requires = "gi")]
    ci: Option<u32>,
    #[arg(long)]
    pid: u32,
    /// Absent: the driver cannot tell.
    #[arg(long)]
    memory_mib: Option<u64>,
    #[arg(long, value_enum, default_value_t = KindName::Compute)]
    kind: KindName,
    #[arg(long)]
    sm_percent: Option<u32>,
    /// Tensor cores, as GPM tells it from Hopper on.
    #[arg(long)]
    tensor_percent: Option<u32>,
    /// List it although no such process lives.
    #[arg(long)]
    phantom: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum KindName {
    Compute,
    Graphics,
    Mps,
}

#[derive(Args)]
struct PlantFault {
    /// The C name, or `*` for every function.
    #[arg(long)]
    function: String,
    /// Only calls about this GPU, or this MIG or vGPU instance's UUID.
    #[arg(long)]
    gpu: Option<String>,
    #[command(flatten)]
    action: FaultAction,
    /// The first call that is hit.
    #[arg(long, default_value_t = 1)]
    calls_from: u64,
    /// How many calls are hit; 0 is all of them.
    #[arg(long, default_value_t = 0)]
    times: u64,
    /// It begins so many milliseconds from now.
    #[arg(long, default_value_t = 0)]
    after_ms: u64,
    /// It is over so many milliseconds after its begin.
    #[arg(long)]
    for_ms: Option<u64>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct FaultAction {
    /// Never return, until the fault is cleared.
    #[arg(long)]
    hang: bool,
    /// Return after so many milliseconds.
    #[arg(long)]
    hang_ms: Option<u64>,
    /// Return this code.
    #[arg(long = "return")]
    code: Option<u32>,
    /// Die of SIGSEGV.
    #[arg(long)]
    crash: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gpuquota-fake-nvml: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let path = || {
        let named = arguments
            .scenario
            .clone()
            .or_else(|| std::env::var_os(SCENARIO_VARIABLE).map(PathBuf::from));
        named.with_context(|| format!("name the scenario with --scenario or {SCENARIO_VARIABLE}"))
    };
    let edit = |change: &dyn Fn(&mut Scenario) -> Result<(), ScenarioError>| -> Result<()> {
        Ok(file::edit(&path()?, change)?)
    };
    match &arguments.command {
        Command::New { preset, seed } => {
            let scenario = preset::build(preset, seed.as_ref().unwrap_or(preset))
                .map_err(anyhow::Error::msg)?;
            Ok(file::write(&path()?, &scenario)?)
        }
        Command::AddProcess(request) => {
            if !request.phantom && start_time(request.pid).is_none() {
                bail!(
                    "no process {} lives here (--phantom lists it nevertheless)",
                    request.pid
                );
            }
            let process = process_of(request);
            edit(&|scenario| scenario.add_process(process.clone()))
        }
        Command::RemoveProcess { pid } => {
            let removed = file::edit(&path()?, |scenario| Ok(scenario.remove_process(*pid)))?;
            if removed == 0 {
                bail!("process {pid} is on no GPU");
            }
            Ok(())
        }
        Command::Fault(request) => {
            let fault = fault_of(request);
            edit(&|scenario| scenario.add_fault(fault.clone()))
        }
        Command::ClearFaults { function } => edit(&|scenario| {
            scenario.clear_faults(function.as_deref());
            Ok(())
        }),
        Command::Lose(Gpu { gpu }) => edit(&|scenario| scenario.set_lost(gpu, true)),
        Command::Restore(Gpu { gpu }) => edit(&|scenario| scenario.set_lost(gpu, false)),
        Command::RemoveGpu(Gpu { gpu }) => edit(&|scenario| scenario.remove_gpu(gpu)),
        Command::Slice {
            gpu: Gpu { gpu },
            layout,
        } => {
            let layout: Vec<&str> = layout.iter().map(String::as_str).collect();
            edit(&|scenario| scenario.slice(gpu, &layout))
        }
        Command::Xid {
            gpu: Gpu { gpu },
            code,
            gi,
            ci,
        } => edit(&|scenario| scenario.push_event(gpu, Some(*code), gi.zip(*ci))),
        Command::Set(set) => set_command::run(set, &edit),
        Command::Vgpu(command) => {
            vgpu_command::run(command, &|change| Ok(file::edit(&path()?, change)?))
        }
        Command::Show => {
            print!("{}", show::table(&file::read(&path()?)?));
            Ok(())
        }
        Command::Link {
            dir,
            copy,
            without: symbols,
        } => {
            let target = link(dir, if *copy { How::Copy } else { How::Symlink })?;
            for symbol in symbols {
                without(&target, symbol)?;
            }
            println!("{}", target.display());
            Ok(())
        }
    }
}

fn process_of(request: &AddProcess) -> Process {
    Process {
        gi: request.gi,
        ci: request.ci,
        memory_mib: request.memory_mib,
        kind: match request.kind {
            KindName::Compute => Kind::Compute,
            KindName::Graphics => Kind::Graphics,
            KindName::Mps => Kind::Mps,
        },
        sm_percent: request.sm_percent,
        tensor_percent: request.tensor_percent,
        phantom: request.phantom,
        ..Process::new(&request.gpu.gpu, request.pid)
    }
}

fn fault_of(request: &PlantFault) -> Fault {
    let FaultAction {
        hang,
        hang_ms,
        code,
        crash,
    } = request.action;
    let action = if hang {
        Action::Hang
    } else if crash {
        Action::Crash
    } else if hang_ms.is_some() {
        Action::Delay
    } else {
        Action::Return
    };
    let begin = wall_millis().saturating_add(request.after_ms);
    Fault {
        gpu: request.gpu.clone(),
        code,
        ms: hang_ms,
        from_call: request.calls_from,
        times: request.times,
        from_unix_ms: Some(begin).filter(|_| request.after_ms > 0),
        until_unix_ms: request.for_ms.map(|ms| begin.saturating_add(ms)),
        ..Fault::new(&request.function, action)
    }
}
