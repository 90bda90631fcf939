//! What the agent needs of the driver: asked as the agent asks, by a worker process.

use super::files::Root;
use super::{About, DoctorOptions, Finding, Grade};
use crate::clock::{boottime_ms, unix_s};
use crate::config::Config;
use crate::control::quiet::Quiet;
use crate::facts::boot_id;
use crate::gpu::reading::{Health, NvmlState, Reading};
use crate::gpu::sampler::{Sampler, SamplerConfig};
use crate::gpu::upgrade::module_version;
use crate::report::wire::nvml_text;

pub(super) async fn examine(
    root: &Root,
    config: Option<&Config>,
    options: &DoctorOptions,
) -> Vec<Finding> {
    let quiet =
        config.and_then(|config| Quiet::load(&config.state, &boot_id().ok()?, boottime_ms()));
    if let Some(quiet) = quiet {
        let text = format!(
            "left alone on request ({})",
            quiet.text(boottime_ms(), unix_s())
        );
        return vec![
            found("nvml", Grade::Unknown, text).advise("gpuquota-agent resume, when it is over"),
        ];
    }
    let named = config.and_then(|config| config.nvml_library.clone());
    let mut sampler = Sampler::start(SamplerConfig {
        nvml_library: named.or_else(|| options.nvml_library.clone()),
        proc_root: root.at("proc"),
        events: None,
        ..SamplerConfig::default()
    });
    let collected = sampler.sample(boottime_ms()).await;
    let unidentified = sampler.stats().unidentified;
    sampler.shutdown().await;
    let reading = collected.reading.as_ref();
    let module = module_version(&root.at("proc"));
    vec![
        nvml(&collected.nvml),
        versions(reading, module.as_deref(), &collected.nvml),
        gpus(reading, unidentified),
        mig(root, reading),
    ]
}

fn found(id: &'static str, grade: Grade, text: impl Into<String>) -> Finding {
    Finding::new(id, About::Precondition, grade, text)
}

fn nvml(state: &NvmlState) -> Finding {
    let (_, detail) = nvml_text(state);
    let advice = match state {
        NvmlState::Ok => return found("nvml", Grade::Ok, "answers"),
        NvmlState::Absent(_) => {
            "install the driver's libnvidia-ml.so.1, or name it by nvml_library"
        }
        NvmlState::DriverNotLoaded(_) => {
            "load the kernel module (modprobe nvidia), and see dmesg if it does not load"
        }
        NvmlState::Mismatch(_) => {
            "reboot, or unload the old kernel module and load the one that fits the library"
        }
        NvmlState::Unresponsive(_) => "see dmesg for what hangs; a GPU reset or a reboot ends it",
        NvmlState::Quiesced(_) => "gpuquota-agent resume, when it is over",
        NvmlState::Broken(_) => "try nvidia-smi, see dmesg, reinstall the driver",
    };
    found("nvml", Grade::Fail, detail).advise(advice)
}

fn versions(reading: Option<&Reading>, module: Option<&str>, state: &NvmlState) -> Finding {
    let id = "driver_version";
    let library = reading.and_then(|reading| reading.driver_version.as_deref());
    match (library, module) {
        (Some(library), Some(module)) if library == module => found(
            id,
            Grade::Ok,
            format!("{library}, library and kernel module"),
        ),
        (Some(library), Some(module)) => found(
            id,
            Grade::Fail,
            format!("the library is {library}, the kernel module {module}"),
        )
        .advise("reboot, or load the module that fits"),
        (None, Some(module)) if matches!(state, NvmlState::Mismatch(_)) => found(
            id,
            Grade::Fail,
            format!("the kernel module is {module}, the library another one"),
        )
        .advise("reboot, or load the module that fits"),
        (library, module) => {
            let known = library.or(module).unwrap_or("neither");
            found(
                id,
                Grade::Unknown,
                format!("only one of library and module tells: {known}"),
            )
        }
    }
}

fn gpus(reading: Option<&Reading>, unidentified: u32) -> Finding {
    let Some(reading) = reading else {
        return found("gpus", Grade::Unknown, "NVML does not tell");
    };
    let all = reading.gpus.len();
    let ill = reading.gpus.iter().filter(|gpu| gpu.health != Health::Ok);
    let ill: Vec<&str> = ill.map(|gpu| gpu.pci_bus_id.as_str()).collect();
    if ill.is_empty() && unidentified == 0 {
        return found("gpus", Grade::Ok, format!("{all} answer"));
    }
    let text = format!("of {all}, {ill:?} do not answer; {unidentified} more cannot be named");
    found("gpus", Grade::Warn, text).advise("see dmesg for NVRM; reset the GPU or reboot")
}

/// An agent that is not root sees processes on MIG instances only through the nodes of their capabilities.
fn mig(root: &Root, reading: Option<&Reading>) -> Finding {
    let id = "mig_capabilities";
    let on =
        reading.is_some_and(|reading| reading.gpus.iter().any(|gpu| gpu.mig_enabled == Some(true)));
    if !on {
        return found(id, Grade::Ok, "no GPU is in MIG mode");
    }
    let nodes = root.names("dev/nvidia-caps").len();
    if nodes > 0 {
        return found(
            id,
            Grade::Ok,
            format!("{nodes} nodes below /dev/nvidia-caps"),
        );
    }
    found(
        id,
        Grade::Warn,
        "MIG is on, and /dev/nvidia-caps is empty or not to be seen",
    )
    .advise("nvidia-modprobe -f makes the nodes; a container needs them given")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_14_library_and_module_are_compared() {
        let reading = Reading {
            driver_version: Some("550.90.07".to_owned()),
            ..Reading::default()
        };
        let grade = |module, state: &NvmlState| versions(Some(&reading), module, state).grade;
        assert_eq!(grade(Some("550.90.07"), &NvmlState::Ok), Grade::Ok);
        assert_eq!(grade(Some("560.35.03"), &NvmlState::Ok), Grade::Fail);
        assert_eq!(grade(None, &NvmlState::Ok), Grade::Unknown);
        let mismatch = NvmlState::Mismatch(String::new());
        assert_eq!(versions(None, Some("1.2"), &mismatch).grade, Grade::Fail);
        assert_eq!(gpus(Some(&reading), 1).grade, Grade::Warn);
        assert_eq!(nvml(&mismatch).grade, Grade::Fail);
    }
}
