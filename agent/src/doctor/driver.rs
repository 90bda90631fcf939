//! What the agent needs of the driver: asked as the agent asks, by a worker process.

use std::collections::{BTreeMap, BTreeSet};

use rustix::fs::{Access, access};

use super::files::Root;
use super::{About, DoctorOptions, Finding, Grade};
use crate::clock::{boottime_ms, unix_s};
use crate::config::{Config, DEFAULT_STATE, state_folder};
use crate::control::quiet::Quiet;
use crate::facts::boot_id;
use crate::gpu::reading::{Doubt, Health, NvmlState, Reading};
use crate::gpu::sampler::{Sampler, SamplerConfig};
use crate::gpu::upgrade::module_version;
use crate::report::wire::nvml_text;

pub(super) async fn examine(
    root: &Root,
    config: Option<&Config>,
    options: &DoctorOptions,
) -> Vec<Finding> {
    if let Some(text) = quiet(config, options) {
        let text = format!("the driver is left alone on request ({text})");
        let of = |id| {
            found(id, Grade::Unknown, text.clone()).advise("gpuquota-agent resume, when it is over")
        };
        return ["nvml", "driver_version", "gpus", "mig_capabilities"]
            .map(of)
            .into();
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
    .into_iter()
    .chain(doubts(reading))
    .collect()
}

/// Why the driver is not to be opened now. A configuration that is wrong elsewhere does not undo the order.
fn quiet(config: Option<&Config>, options: &DoctorOptions) -> Option<String> {
    let dir = options.dir.as_deref();
    let state = config
        .map(|config| config.state.clone())
        .or_else(|| state_folder(dir?).ok())
        .or_else(|| Some(dir?.join(DEFAULT_STATE)))?;
    let now_ms = boottime_ms();
    let quiet = Quiet::load(&state, &boot_id().ok()?, now_ms)?;
    Some(quiet.text(now_ms, unix_s()))
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
            .advise("see what NVML says above, and cat /proc/driver/nvidia/version")
        }
    }
}

fn gpus(reading: Option<&Reading>, unidentified: u32) -> Finding {
    let Some(reading) = reading else {
        return found("gpus", Grade::Unknown, "NVML does not tell")
            .advise("mend what NVML says above");
    };
    let all = reading.gpus.len();
    let ill = reading.gpus.iter().filter(|gpu| gpu.health != Health::Ok);
    let ill: Vec<&str> = ill.map(|gpu| gpu.pci_bus_id.as_str()).collect();
    if all == 0 && unidentified == 0 {
        return found("gpus", Grade::Warn, "NVML answers and knows of none: there is nothing to watch")
            .advise("see lspci -d 10de:, dmesg for NVRM, and whether vfio-pci has them; remove the agent where there are none");
    }
    if ill.is_empty() && unidentified == 0 {
        return found("gpus", Grade::Ok, format!("{all} answer"));
    }
    let text = format!("of {all}, {ill:?} do not answer; {unidentified} more cannot be named");
    found("gpus", Grade::Warn, text).advise("see dmesg for NVRM; reset the GPU or reboot")
}

/// An agent that is not root sees processes on MIG instances only through the nodes of their capabilities: one for each GPU
/// instance and each compute instance, as the driver numbers them (MIG user guide, /proc/driver/nvidia/capabilities).
fn mig(root: &Root, reading: Option<&Reading>) -> Finding {
    let id = "mig_capabilities";
    let Some(reading) = reading else {
        return found(
            id,
            Grade::Unknown,
            "NVML does not tell whether a GPU is in MIG mode",
        )
        .advise("mend what NVML says above");
    };
    let on = reading
        .gpus
        .iter()
        .filter(|gpu| gpu.mig_enabled == Some(true));
    let on: Vec<_> = on.collect();
    if on.is_empty() {
        let untold = reading.gpus.iter().any(|gpu| gpu.mig_enabled.is_none());
        if untold || reading.gpus.is_empty() {
            return found(
                id,
                Grade::Unknown,
                "not every GPU tells whether it is in MIG mode",
            )
            .advise("see what is said of the GPUs above");
        }
        return found(id, Grade::Ok, "no GPU is in MIG mode");
    }
    let mut wanted = BTreeSet::new();
    let mut untold = 0_usize;
    for gpu in on {
        for instance in &gpu.instances {
            let (gi, ci) = (instance.gi, instance.ci);
            for of in [format!("gi{gi}"), format!("gi{gi}/ci{ci}")] {
                let path =
                    |minor| format!("proc/driver/nvidia/capabilities/gpu{minor}/mig/{of}/access");
                let text = gpu.minor.and_then(|minor| root.text(&path(minor)).ok());
                match text.as_deref().and_then(node_minor) {
                    Some(minor) => drop(wanted.insert(minor)),
                    None => untold += 1,
                }
            }
        }
    }
    let node = |minor: &u32| root.at(&format!("dev/nvidia-caps/nvidia-cap{minor}"));
    let all = wanted.len();
    let open = |minor: &u32| access(node(minor), Access::READ_OK).is_ok();
    wanted.retain(|minor| !open(minor));
    if !wanted.is_empty() || (all == 0 && root.names("dev/nvidia-caps").is_empty()) {
        let text = if all == 0 {
            "MIG is on, and /dev/nvidia-caps is empty or not to be seen".to_owned()
        } else {
            format!(
                "MIG is on, and of {all} nodes in /dev/nvidia-caps the agent cannot open {wanted:?}"
            )
        };
        return found(id, Grade::Warn, text)
            .advise("nvidia-modprobe -f makes the nodes; give the agent the right to read them, and a container the nodes");
    }
    if untold > 0 {
        return found(
            id,
            Grade::Unknown,
            format!("of {untold} instances the driver does not say which nodes they need"),
        )
        .advise("see /proc/driver/nvidia/capabilities");
    }
    found(
        id,
        Grade::Ok,
        format!("{all} nodes below /dev/nvidia-caps can be opened"),
    )
}

/// `DeviceFileMinor: N` of a capability's file.
fn node_minor(text: &str) -> Option<u32> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("DeviceFileMinor:"));
    line?.trim().parse().ok()
}

/// What the readings of some GPUs may lack, and what would mend it.
fn doubts(reading: Option<&Reading>) -> Vec<Finding> {
    let all = reading.into_iter().flat_map(|reading| &reading.gpus);
    let mut gpus: BTreeMap<Doubt, Vec<&str>> = BTreeMap::new();
    for gpu in all {
        for doubt in &gpu.doubts {
            gpus.entry(*doubt).or_default().push(&gpu.pci_bus_id);
        }
    }
    let finding = |(doubt, gpus): (Doubt, Vec<&str>)| {
        let (what, advice) = match doubt {
            Doubt::Instances => (
                "whether they are cut, or into which MIG instances, cannot be told",
                "see dmesg for NVRM; if it stays, reset the GPU",
            ),
            Doubt::Vgpus => (
                "vGPUs that take turns on GPU instances may run there, and only root may ask",
                "add CAP_SYS_ADMIN to CapabilityBoundingSet and AmbientCapabilities of the agent's unit by a drop-in",
            ),
            Doubt::ProcessRows => (
                "the driver's process list is not laid out as its header says",
                "install driver 535.104.05 or newer; until then nothing is enforced there",
            ),
            Doubt::NamelessProcesses => (
                "memory is held by processes that the driver does not name",
                "look for containers, machines or dying processes that have the GPU open (fuser -v /dev/nvidia*)",
            ),
            Doubt::Pids => (
                "the driver's process list and its utilisation samples call processes by different pids, so its list names nobody",
                "install another driver; until then nobody is known to hold these GPUs and nothing is enforced there",
            ),
        };
        found("doubts", Grade::Warn, format!("{gpus:?}: {what}")).advise(advice)
    };
    gpus.into_iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::reading::{GpuReading, MigReading};

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

    #[test]
    fn each_doubt_is_told_with_its_gpus_and_a_way_out() {
        let gpu = |pci: &str, doubts: &[Doubt]| GpuReading {
            pci_bus_id: pci.to_owned(),
            doubts: doubts.to_vec(),
            ..GpuReading::default()
        };
        let reading = Reading {
            gpus: vec![
                gpu("a", &[Doubt::Vgpus, Doubt::ProcessRows]),
                gpu("b", &[]),
                gpu("c", &[Doubt::Vgpus]),
            ],
            ..Reading::default()
        };
        let told = doubts(Some(&reading));
        assert_eq!(told.len(), 2);
        assert!(told[0].found.starts_with("[\"a\", \"c\"]"), "{told:?}");
        assert!(told[0].advice.as_deref().unwrap().contains("CAP_SYS_ADMIN"));
        assert!(told.iter().all(|told| told.grade == Grade::Warn));
    }

    #[test]
    fn rule_18_what_nvml_does_not_tell_is_not_graded_good() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let none = Reading::default();
        assert_eq!(
            gpus(Some(&none), 0).grade,
            Grade::Warn,
            "no GPU is nothing to watch"
        );
        assert_eq!(gpus(None, 0).grade, Grade::Unknown);
        assert_eq!(mig(&root, None).grade, Grade::Unknown);
        assert_eq!(mig(&root, Some(&none)).grade, Grade::Unknown);
        let gpu = |mig_enabled| GpuReading {
            minor: Some(3),
            mig_enabled,
            instances: vec![MigReading {
                gi: 2,
                ci: 0,
                ..MigReading::default()
            }],
            ..GpuReading::default()
        };
        let with = |mig_enabled| Reading {
            gpus: vec![gpu(mig_enabled)],
            ..Reading::default()
        };
        assert_eq!(mig(&root, Some(&with(None))).grade, Grade::Unknown);
        assert_eq!(mig(&root, Some(&with(Some(false)))).grade, Grade::Ok);
        let on = with(Some(true));
        let write = |path: &str, text: &str| {
            let path = root.at(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        // Two nodes are there on every machine with the driver, whatever its instances need.
        write("dev/nvidia-caps/nvidia-cap1", "");
        write("dev/nvidia-caps/nvidia-cap2", "");
        assert_eq!(mig(&root, Some(&on)).grade, Grade::Unknown);
        let capabilities = "proc/driver/nvidia/capabilities/gpu3/mig/gi2";
        write(
            &format!("{capabilities}/access"),
            "DeviceFileMinor: 21\nDeviceFileMode: 292\n",
        );
        write(
            &format!("{capabilities}/ci0/access"),
            "DeviceFileMinor: 22\n",
        );
        write("dev/nvidia-caps/nvidia-cap21", "");
        let finding = mig(&root, Some(&on));
        assert!(
            finding.grade == Grade::Warn && finding.found.contains("{22}"),
            "{finding:?}"
        );
        write("dev/nvidia-caps/nvidia-cap22", "");
        assert_eq!(mig(&root, Some(&on)).grade, Grade::Ok);
    }
}
