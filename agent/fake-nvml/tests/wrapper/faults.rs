//! What goes wrong: hangs, losses, crashes, refused starts, broken files; and that nothing else goes wrong with it.

use std::fs;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use gpuquota_fake_nvml::scenario::{Action, Fault, Kind, Virtualization};
use gpuquota_fake_nvml::{SCENARIO_VARIABLE, file};
use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::error::NvmlError;

use crate::stage::{play, play_to_death, text};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_lost_gpu_affects_only_itself_and_comes_back() {
    play(
        "faults::a_lost_gpu_affects_only_itself_and_comes_back",
        "h100x4",
        |stage| {
            let nvml = stage.nvml();
            let gpus: Vec<_> = (0..4)
                .map(|index| nvml.device_by_index(index).unwrap())
                .collect();
            let uuid = gpus[1].uuid().unwrap();
            stage.edit(|scenario| scenario.set_lost("1", true).unwrap());
            for (index, gpu) in (0..).zip(&gpus) {
                let lost = index == 1;
                assert_eq!(matches!(gpu.memory_info(), Err(NvmlError::GpuLost)), lost);
                assert_eq!(
                    matches!(nvml.device_by_index(index), Err(NvmlError::GpuLost)),
                    lost
                );
            }
            assert!(matches!(
                nvml.device_by_uuid(&*uuid),
                Err(NvmlError::GpuLost)
            ));
            assert_eq!(nvml.device_count().unwrap(), 4);
            stage.edit(|scenario| scenario.set_lost(&uuid, false).unwrap());
            assert!(
                gpus[1].memory_info().is_ok(),
                "the old handle is good again"
            );

            stage.edit(|scenario| scenario.remove_gpu("1").unwrap());
            assert_eq!(nvml.device_count().unwrap(), 3);
            assert!(matches!(gpus[1].memory_info(), Err(NvmlError::GpuLost)));
            assert_eq!(gpus[2].index().unwrap(), 1, "indices shift, handles do not");
        },
    );
}

#[test]
fn a_hang_blocks_its_gpu_alone_until_it_is_cleared() {
    play(
        "faults::a_hang_blocks_its_gpu_alone_until_it_is_cleared",
        "h100x4",
        |stage| {
            let nvml = stage.nvml();
            let (stuck, fine) = (
                nvml.device_by_index(0).unwrap(),
                nvml.device_by_index(1).unwrap(),
            );
            let hang = Fault {
                gpu: Some("0".into()),
                ..Fault::new("nvmlDeviceGetMemoryInfo_v2", Action::Hang)
            };
            stage.edit(|scenario| scenario.add_fault(hang).unwrap());
            thread::scope(|scope| {
                let (done, wait) = mpsc::channel();
                scope.spawn(move || done.send(stuck.memory_info().is_ok()).unwrap());
                assert!(
                    wait.recv_timeout(Duration::from_millis(400)).is_err(),
                    "it hangs"
                );
                assert!(fine.memory_info().is_ok());
                assert!(
                    nvml.device_by_index(0).unwrap().name().is_ok(),
                    "other calls to the GPU go on"
                );
                // An edit of something else must not set it free.
                stage.edit(|scenario| scenario.set_lost("3", true).unwrap());
                assert!(wait.recv_timeout(Duration::from_millis(200)).is_err());
                stage.edit(|scenario| assert_eq!(scenario.clear_faults(None), 1));
                assert_eq!(
                    wait.recv_timeout(SOON),
                    Ok(true),
                    "the call goes on as if nothing had been"
                );
            });
        },
    );
}

#[test]
fn a_fault_returns_its_code_for_as_many_calls_as_asked() {
    play(
        "faults::a_fault_returns_its_code_for_as_many_calls_as_asked",
        "h100x4",
        |stage| {
            let nvml = stage.nvml();
            let gpu = nvml.device_by_index(0).unwrap();
            let fault = Fault {
                code: Some(999),
                from_call: 2,
                times: 1,
                ..Fault::new("nvmlDeviceGetName", Action::Return)
            };
            stage.edit(|scenario| scenario.add_fault(fault).unwrap());
            let answers: Vec<bool> = (0..3).map(|_| gpu.name().is_ok()).collect();
            assert_eq!(answers, [true, false, true]);
            stage.edit(|scenario| scenario.missing_symbols = vec!["nvmlDeviceGetUUID".into()]);
            assert!(matches!(
                gpu.uuid(),
                Err(NvmlError::FailedToLoadSymbol(_)) | Err(NvmlError::FunctionNotFound)
            ));
        },
    );
}

#[test]
fn a_crash_kills_the_process_by_sigsegv() {
    let signal = play_to_death(
        "faults::a_crash_kills_the_process_by_sigsegv",
        "t4x1",
        |stage| {
            let nvml = stage.nvml();
            stage.edit(|scenario| {
                scenario
                    .add_fault(Fault::new("nvmlDeviceGetCount_v2", Action::Crash))
                    .unwrap()
            });
            let _ = nvml.device_count();
        },
    );
    assert!(signal.is_none_or(|signal| signal == 11), "{signal:?}");
}

#[test]
fn a_start_that_fails_can_succeed_later_and_ends_with_shutdown() {
    play(
        "faults::a_start_that_fails_can_succeed_later_and_ends_with_shutdown",
        "t4x1",
        |stage| {
            let start = || Nvml::builder().lib_path(stage.library.as_os_str()).init();
            let refused = |code| {
                stage.edit(|scenario| scenario.init_return = code);
                start().unwrap_err()
            };
            assert!(matches!(refused(9), NvmlError::DriverNotLoaded));
            assert!(matches!(refused(18), NvmlError::LibRmVersionMismatch));
            assert!(matches!(refused(999), NvmlError::Unknown));
            stage.edit(|scenario| scenario.init_return = 0);
            let (first, second) = (start().unwrap(), start().unwrap());
            first.shutdown().unwrap();
            assert_eq!(second.device_count().unwrap(), 1, "one reference is left");
            #[expect(unsafe_code, reason = "raw NVML calls")]
            // SAFETY: no arguments; the wrapper could not ask after its own shutdown.
            unsafe {
                let library = second.lib();
                assert_eq!(library.nvmlShutdown.as_ref().unwrap()(), 0);
                let mut count = 0;
                assert_eq!(
                    library.nvmlDeviceGetCount_v2.as_ref().unwrap()(&mut count),
                    1
                );
                assert_eq!(
                    library.nvmlInit_v2.as_ref().unwrap()(),
                    0,
                    "for the wrapper's own end"
                );
            }
        },
    );
}

#[test]
fn a_broken_file_keeps_the_last_good_scenario() {
    play(
        "faults::a_broken_file_keeps_the_last_good_scenario",
        "h100x4",
        |stage| {
            let nvml = stage.nvml();
            let good = fs::read(&stage.scenario).unwrap();
            for broken in [&b"gpu = 3"[..], b"", &good[..good.len() / 2]] {
                fs::write(&stage.scenario, broken).unwrap();
                assert_eq!(nvml.device_count().unwrap(), 4);
            }
            fs::remove_file(&stage.scenario).unwrap();
            assert_eq!(nvml.device_count().unwrap(), 4);
            fs::write(&stage.scenario, good).unwrap();
            stage.edit(|scenario| scenario.remove_gpu("0").unwrap());
            assert_eq!(nvml.device_count().unwrap(), 3);
        },
    );
}

#[test]
fn events_arrive_once_with_their_instance_and_a_wait_ends_in_time() {
    play(
        "faults::events_arrive_once_with_their_instance_and_a_wait_ends_in_time",
        "a100-mig",
        |stage| {
            let nvml = stage.nvml();
            let gpu = nvml.device_by_index(0).unwrap();
            let wanted = EventTypes::CRITICAL_XID_ERROR | EventTypes::MIG_CONFIG_CHANGE;
            assert!(gpu.supported_event_types().unwrap().contains(wanted));
            let set = gpu
                .register_events(wanted, nvml.create_event_set().unwrap())
                .unwrap();
            assert!(matches!(set.wait(50), Err(NvmlError::Timeout)));
            stage.edit(|scenario| {
                scenario.push_event("3", Some(79), None).unwrap();
                scenario.push_event("0", Some(31), Some((7, 0))).unwrap();
                scenario.slice("0", &["7g.80gb"]).unwrap();
            });
            let mut data = nvml_wrapper_sys::bindings::nvmlEventData_t {
                device: std::ptr::null_mut(),
                eventType: 0,
                eventData: 0,
                gpuInstanceId: 0,
                computeInstanceId: 0,
            };
            #[expect(unsafe_code, reason = "raw NVML calls: the wrapper drops the ids")]
            // SAFETY: the set is the wrapper's, and the data has a place to go to.
            unsafe {
                assert_eq!(
                    nvml.lib().nvmlEventSetWait_v2.as_ref().unwrap()(
                        set.handle(),
                        &mut data,
                        10_000
                    ),
                    0
                );
                assert_eq!(data.device, gpu.handle());
            }
            assert_eq!((data.eventType, data.eventData), (8, 31));
            assert_eq!((data.gpuInstanceId, data.computeInstanceId), (7, 0));
            assert_eq!(
                set.wait(10_000).unwrap().event_type,
                EventTypes::MIG_CONFIG_CHANGE
            );
            assert!(
                matches!(set.wait(50), Err(NvmlError::Timeout)),
                "the other GPU's XID is not for this set"
            );
            let mig = gpu.mig_device_by_index(0).unwrap();
            assert!(
                mig.register_events(wanted, nvml.create_event_set().unwrap())
                    .is_err()
            );
        },
    );
}

#[test]
fn the_program_makes_and_changes_a_scenario() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = folder.path().join("scenario.toml");
    let run = |line: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_gpuquota-fake-nvml"))
            .args(line.split_whitespace())
            .env(SCENARIO_VARIABLE, &scenario)
            .output()
            .unwrap();
        (
            output.status.success(),
            text(&output.stdout) + &text(&output.stderr),
        )
    };
    let done = |line: &str| {
        let (success, said) = run(line);
        assert!(success, "{line}: {said}");
        said
    };
    done("new --preset a100-mig --seed n1");
    let own = std::process::id();
    done(&format!(
        "add-process --gpu 1 --gi 3 --ci 0 --pid {own} --memory-mib 12 --kind mps"
    ));
    done(
        "fault --function nvmlDeviceGetName --gpu 00000000:18:00.0 --hang-ms 5 --calls-from 2 --times 3",
    );
    done("lose --gpu 3");
    done("xid --gpu 0 --code 79");
    let now = file::read(&scenario).unwrap();
    let process = &now.processes[0];
    assert_eq!(
        (process.pid, process.gi, process.memory_mib, process.kind),
        (own, Some(3), Some(12), Kind::Mps)
    );
    assert_eq!(process.start_time, gpuquota_fake_nvml::start_time(own));
    let fault = &now.faults[0];
    assert_eq!(
        (fault.action, fault.ms, fault.from_call, fault.times),
        (Action::Delay, Some(5), 2, 3)
    );
    assert_eq!(fault.gpu.as_ref(), Some(&now.gpus[0].uuid));
    assert!(now.gpus[3].lost && now.events[0].xid == Some(79));
    let shown = done("show");
    for part in ["LOST", "2g.20gb", &own.to_string(), "nvmlDeviceGetName"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    done("restore --gpu 3");
    done("clear-faults");
    done(&format!("remove-process --pid {own}"));
    assert!(!run("vgpu add --gpu 3 --type L40S-8Q --vm 7 --memory-mib 8192").0);
    file::edit(&scenario, |node| {
        node.gpus[3].virtualization = Virtualization::HostVgpu;
        Ok(())
    })
    .unwrap();
    let vgpu = done("vgpu add --gpu 3 --type L40S-8Q --vm 7 --memory-mib 8192");
    let vgpu = vgpu.trim();
    done(&format!(
        "vgpu license --uuid {vgpu} --licence unlicensed --expires 2027-01-31T00:00:00Z"
    ));
    assert!(done("show").contains("VM 7  unlicensed until 2027-01-31"));
    done(&format!("vgpu remove --uuid {vgpu}"));
    assert!(!run(&format!("vgpu remove --uuid {vgpu}")).0);
    done("slice --gpu 2 --layout 7g.80gb");
    let now = file::read(&scenario).unwrap();
    assert!(
        !now.gpus[3].lost
            && now.faults.is_empty()
            && now.processes.is_empty()
            && now.gpus[2].mig_enabled()
    );
    for line in [
        "add-process --gpu 0 --gi 7 --pid 0",
        "lose --gpu 9",
        "new --preset z9x1",
        "fault --function f",
    ] {
        assert!(!run(line).0, "{line}");
    }
    let linked = done(&format!("link --dir {}", folder.path().display()));
    assert!(
        linked.trim_end().ends_with("/libnvidia-ml.so.1")
            && fs::metadata(linked.trim_end()).is_ok()
    );
}
