//! The program `gpuquota-fake-nvml` as an operator types it.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helper functions too"
)]

use std::path::Path;
use std::process::{Command, Output};

use gpuquota_fake_nvml::file;
use gpuquota_fake_nvml::scenario::{Scenario, Virtualization};

fn run(scenario: &Path, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gpuquota-fake-nvml"))
        .arg("--scenario")
        .arg(scenario)
        .args(arguments.split(' '))
        .output()
        .unwrap()
}

fn done(scenario: &Path, arguments: &str) -> Scenario {
    let output = run(scenario, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments}: {said}");
    file::read(scenario).unwrap()
}

#[test]
fn set_changes_the_driver_and_a_gpu_in_one_edit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    done(&path, "new --preset l40s-vgpu");
    let node = done(
        &path,
        "set --driver 560.35.03 --init-return 18 --element-bytes 16 --gpu 1 --temperature 90 --utilization 75 --memory-utilization 20 --virtualization passthrough",
    );
    assert_eq!(node.driver_version, "560.35.03");
    assert_eq!((node.init_return, node.process_element_bytes), (18, 16));
    let gpu = &node.gpus[1];
    assert_eq!(gpu.virtualization, Virtualization::Passthrough);
    let readings = (
        gpu.temperature_c,
        gpu.utilization_gpu,
        gpu.utilization_memory,
    );
    assert_eq!(readings, (Some(90), Some(75), Some(20)));
    let node = done(&path, "set --gpu 1 --excluded");
    assert_eq!((node.gpus.len(), node.excluded.len()), (1, 1));
    for refused in [
        "set",
        "set --temperature 90",
        "set --element-bytes 20",
        "set --gpu 0 --time-sliced true",
        "set --gpu 0 --virtualization none",
    ] {
        assert!(!run(&path, refused).status.success(), "{refused}");
    }
    assert_eq!(file::read(&path).unwrap(), node);
}

#[test]
fn vgpus_of_a_cut_gpu_share_its_instances_by_turns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    done(&path, "new --preset rtxpro6000x1");
    done(&path, "slice --gpu 0 --layout 2g.48gb,2g.48gb");
    done(&path, "set --gpu 0 --virtualization host-vgpu");
    let add = "vgpu add --gpu 0 --type Own-24Q --memory-mib 24576 --gi";
    for (vm, gi) in [(1, 1), (2, 1), (3, 2)] {
        done(&path, &format!("{add} {gi} --vm {vm}"));
    }
    assert!(!run(&path, &format!("{add} 7 --vm 4")).status.success());
    let node = done(&path, "set --gpu 0 --time-sliced true");
    let seen: Vec<_> = node.gpus[0]
        .vgpu
        .iter()
        .map(|vgpu| (vgpu.gi, vgpu.time_sliced))
        .collect();
    assert_eq!(seen, [(Some(1), true), (Some(1), true), (Some(2), true)]);
}

#[test]
fn every_spelling_of_a_profile_is_cut_and_listed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    done(&path, "new --preset rtxpro6000x1");
    for layout in [
        "1g.24gb+me.all,1g.24gb-me,2g.48gb-me",
        "2g.48gb+gfx,1g.24gb+gfx,1g.24gb+me",
        "1c.2g.48gb+gfx,1c.2g.48gb+gfx",
    ] {
        let node = done(&path, &format!("slice --gpu 0 --layout {layout}"));
        let profiles: Vec<&str> = node.gpus[0]
            .mig
            .iter()
            .map(|mig| mig.profile.as_str())
            .collect();
        assert_eq!(profiles.join(","), layout);
        let shown = run(&path, "show").stdout;
        let shown = String::from_utf8(shown).unwrap();
        for profile in profiles {
            assert!(shown.contains(&format!("  {profile}  ")), "{shown}");
        }
    }
}

#[test]
fn an_error_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    done(&path, "new --preset h100x4");
    std::fs::write(folder.path().join("bad.toml"), "gpu = 3").unwrap();
    for (scenario, command, why) in [
        (
            "node.toml",
            "slice --gpu 0 --layout 5g.50gb",
            "has no MIG profile",
        ),
        ("node.toml", "lose --gpu 9", "no GPU is called"),
        ("absent.toml", "show", "No such file"),
        ("bad.toml", "show", "not a scenario"),
    ] {
        let output = run(&folder.path().join(scenario), command);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{command}");
        assert_eq!(said.matches(why).count(), 1, "{said}");
        assert_eq!(said.matches(scenario).count(), 1, "{said}");
    }
}
