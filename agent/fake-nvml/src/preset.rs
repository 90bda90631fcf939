//! Ready-made nodes.

use toml::value::Datetime;

use crate::model::{MODELS, Model, vgpu_uuid};
use crate::scenario::{Action, Fault, Licence, Scenario, Virtualization};

/// Presets worth listing; any `MODELxCOUNT` works besides.
pub const NAMES: &[&str] = &[
    "h100x8",
    "h100x4",
    "a100-mig",
    "l40s-vgpu",
    "broken-node",
    "l4x4",
    "t4x1",
];

const MOST_GPUS: u32 = 64;

/// Builds the preset `name`. GPUs of different seeds have different UUIDs, so that each node of a demo has its own.
pub fn build(name: &str, seed: &str) -> Result<Scenario, String> {
    if name == "a100-mig" {
        return a100_mig(seed);
    }
    if name == "l40s-vgpu" {
        return l40s_vgpu(seed);
    }
    if name == "broken-node" {
        return broken_node(seed);
    }
    let unknown = || {
        let models: Vec<&str> = MODELS.iter().map(|model| model.key).collect();
        format!(
            "no preset {name:?}: there is a100-mig, l40s-vgpu, broken-node, and MODELxCOUNT with a model of {}",
            models.join(", ")
        )
    };
    let (model, count) = name.rsplit_once('x').ok_or_else(unknown)?;
    let model = Model::find(model).ok_or_else(unknown)?;
    let count: u32 = count
        .parse()
        .ok()
        .filter(|count| (1..=MOST_GPUS).contains(count))
        .ok_or_else(unknown)?;
    Ok(node(model, seed, count))
}

fn node(model: &Model, seed: &str, count: u32) -> Scenario {
    let driver = model.driver();
    Scenario {
        driver_version: driver.version.to_owned(),
        nvml_version: format!("12.{}", driver.version),
        cuda_version: driver.cuda,
        init_return: 0,
        call_cost_us: 0,
        process_element_bytes: 24,
        missing_symbols: Vec::new(),
        gpus: model.gpus(seed, count),
        excluded: Vec::new(),
        processes: Vec::new(),
        faults: Vec::new(),
        events: Vec::new(),
    }
}

/// Four A100: two cut, one of them with a gap in its slots as a destroyed instance leaves it; two whole.
fn a100_mig(seed: &str) -> Result<Scenario, String> {
    let model = Model::find("a100").ok_or("the a100 model is missing")?;
    let mut scenario = node(model, seed, 4);
    if let [first, second, ..] = scenario.gpus.as_mut_slice() {
        model.slice(
            first,
            &["3g.40gb", "1g.10gb", "1g.10gb", "1g.10gb", "1g.10gb"],
        )?;
        model.slice(second, &["3g.40gb", "2g.20gb", "1g.10gb"])?;
        for (slot, mig) in [0, 2, 3].into_iter().zip(&mut second.mig) {
            mig.slot = Some(slot);
        }
    }
    Ok(scenario)
}

/// Eight H100, half of them ill: GPU 1 off the bus, GPU 2 hangs in every call, GPU 3 has a sensor that fails, GPU 4 has had an
/// uncorrectable error and wants a reset. The rest must not notice.
fn broken_node(seed: &str) -> Result<Scenario, String> {
    let model = Model::find("h100").ok_or("the h100 model is missing")?;
    let mut scenario = node(model, seed, 8);
    let mut break_it = || {
        scenario.set_lost("1", true)?;
        scenario.add_fault(Fault {
            gpu: Some("2".to_owned()),
            ..Fault::new("*", Action::Hang)
        })?;
        scenario.add_fault(Fault {
            gpu: Some("3".to_owned()),
            code: Some(999),
            ..Fault::new("nvmlDeviceGetTemperature", Action::Return)
        })?;
        let sick = scenario.gpu_mut("4")?;
        sick.ecc_uncorrected = 2;
        sick.recovery_action = 1;
        scenario.push_event("4", Some(48), None)
    };
    break_it().map_err(|error| error.to_string())?;
    Ok(scenario)
}

/// Two L40S of a vGPU host: on the first run two VMs, one with a licence and one without; the second is idle.
fn l40s_vgpu(seed: &str) -> Result<Scenario, String> {
    let model = Model::find("l40s").ok_or("the l40s model is missing")?;
    let mut scenario = node(model, seed, 2);
    for gpu in &mut scenario.gpus {
        gpu.virtualization = Virtualization::HostVgpu;
    }
    let expires: Datetime = "2027-06-30T12:00:00Z".parse().map_err(|_| "no date")?;
    for (number, licence) in [(0, Some(expires)), (1, None)] {
        let vm = vgpu_uuid(&format!("{seed}/vm/{number}"));
        let added = scenario.add_vgpu("0", "NVIDIA L40S-8Q", &vm, None);
        let uuid = added.map_err(|error| error.to_string())?;
        if licence.is_some() {
            scenario
                .license_vgpu(&uuid, Licence::Licensed, licence)
                .map_err(|error| error.to_string())?;
        }
    }
    Ok(scenario)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_files_are_the_presets() {
        for name in NAMES {
            let path = format!("{}/scenarios/{name}.toml", env!("CARGO_MANIFEST_DIR"));
            let example = crate::file::read(std::path::Path::new(&path)).unwrap();
            assert_eq!(example, build(name, name).unwrap(), "{name}");
        }
    }

    #[test]
    fn nothing_but_presets_lies_beside_the_example_files() {
        let folder = format!("{}/scenarios", env!("CARGO_MANIFEST_DIR"));
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let preset = name.strip_suffix(".toml");
            assert!(preset.is_some_and(|of| NAMES.contains(&of)), "{name}");
        }
    }

    /// What the comments of the reference file show must be what the types accept.
    #[test]
    fn what_the_reference_file_explains_is_accepted() {
        let text = include_str!("../scenarios/a100-mig.toml");
        let assigns = |line: &str| {
            line.starts_with("[[")
                || line
                    .split_once(" = ")
                    .is_some_and(|(key, _)| !key.contains(' '))
        };
        let uncommented = |line: &str| match line.strip_prefix("# ") {
            Some(rest) if assigns(rest) => rest.to_owned(),
            _ => line.to_owned(),
        };
        let lines: Vec<String> = text.lines().map(uncommented).collect();
        let scenario = Scenario::parse(&lines.join("\n")).unwrap();
        assert_eq!(
            (
                scenario.init_return,
                scenario.call_cost_us,
                scenario.missing_symbols.len()
            ),
            (9, 20, 1)
        );
        assert!(scenario.gpus[0].lost && scenario.gpus[0].fan_percent.is_some());
        assert_eq!(
            (
                scenario.processes.len(),
                scenario.faults.len(),
                scenario.events.len()
            ),
            (1, 1, 1)
        );
    }

    #[test]
    fn every_preset_settles_and_unknown_ones_say_what_there_is() {
        for name in NAMES {
            build(name, "seed").unwrap().settle().unwrap();
        }
        build("h100x64", "seed").unwrap().settle().unwrap();
        for name in ["", "h100", "h100x0", "h100x65", "b9000x1", "x"] {
            assert!(build(name, "seed").unwrap_err().contains("a100"), "{name}");
        }
    }
}
