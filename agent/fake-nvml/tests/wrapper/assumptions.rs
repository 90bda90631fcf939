//! Defects of nvml-wrapper that the agent works round. Should one of these fail, the wrapper was mended: the agent's own call can go.

use std::time::{Duration, Instant};

use gpuquota_fake_nvml::scenario::{Action, Fault, Kind};
use nvml_wrapper::Device;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::event::EventData;

use crate::stage::{Running, Stage, play};

const PATIENCE: Duration = Duration::from_secs(20);

/// What `call` gives while the processes change between its first call of `function`, which counts them, and its second.
fn between<R: Send>(
    stage: &Stage,
    function: &str,
    call: impl Fn() -> R + Send,
    change: impl FnOnce(),
) -> R {
    stage.edit(|scenario| {
        let fault = Fault {
            from_call: 2,
            ..Fault::new(function, Action::Hang)
        };
        scenario.add_fault(fault).unwrap();
    });
    std::thread::scope(|scope| {
        let asked = scope.spawn(call);
        change();
        stage.edit(|scenario| {
            scenario.clear_faults(None);
        });
        asked.join().unwrap()
    })
}

/// Nobody says when the first call is over, so what must show at some time is tried until it does.
fn until(mut shows: impl FnMut() -> bool) {
    #[expect(clippy::disallowed_methods, reason = "a deadline of a test")]
    let start = Instant::now();
    while !shows() {
        assert!(start.elapsed() < PATIENCE, "the wrapper was mended");
    }
}

/// The length of the answer is never set. The agent reads the places of instances from `nvmlGpuInstanceGetInfo`.
#[test]
fn the_wrapper_knows_no_possible_placements() {
    play(
        "assumptions::the_wrapper_knows_no_possible_placements",
        "a100-mig",
        |stage| {
            let nvml = stage.nvml();
            let gpu = nvml.device_by_index(0).unwrap();
            let profile = gpu.profile_info(0).unwrap();
            assert_eq!(there_are(&gpu, profile.id), 7);
            assert!(gpu.possible_placements(profile.id).unwrap().is_empty());
        },
    );
}

#[expect(unsafe_code, reason = "raw NVML calls: the wrapper tells of none")]
fn there_are(gpu: &Device<'_>, profile: u32) -> u32 {
    let library = gpu.nvml().lib();
    let call = library
        .nvmlDeviceGetGpuInstancePossiblePlacements_v2
        .as_ref();
    let mut count = 0;
    // SAFETY: without a place to write to, only the number is asked for.
    let code = unsafe { call.unwrap()(gpu.handle(), profile, std::ptr::null_mut(), &mut count) };
    assert_eq!(code, 0);
    count
}

/// The answer is as long as the number that was told first. The agent asks for no accounting.
#[test]
fn the_wrapper_fills_accounting_pids_up_with_zeroes() {
    play(
        "assumptions::the_wrapper_fills_accounting_pids_up_with_zeroes",
        "t4x1",
        |stage| {
            stage.edit(|scenario| scenario.gpus[0].accounting = true);
            let nvml = stage.nvml();
            let gpu = nvml.device_by_index(0).unwrap();
            let stays = stage.run_on("0", |_| {});
            until(|| {
                let ends = stage.run_on("0", |_| {});
                let call = || gpu.accounting_pids();
                let pids = between(stage, "nvmlDeviceGetAccountingPids", call, || ends.end());
                pids.unwrap() == [stays.pid(), 0]
            });
            assert_eq!(gpu.accounting_pids().unwrap(), [stays.pid()]);
        },
    );
}

/// There is room for as many clients as were counted and for no other. The agent's own list has room to spare.
#[test]
fn the_wrapper_tells_no_mps_clients_while_one_comes() {
    play(
        "assumptions::the_wrapper_tells_no_mps_clients_while_one_comes",
        "t4x1",
        |stage| {
            let nvml = stage.nvml();
            let gpu = nvml.device_by_index(0).unwrap();
            let client = || stage.run_on("0", |process| process.kind = Kind::Mps);
            let mut clients: Vec<Running> = vec![client()];
            until(|| {
                let call = || gpu.mps_running_compute_processes();
                let function = "nvmlDeviceGetMPSComputeRunningProcesses_v3";
                let told = between(stage, function, call, || clients.push(client()));
                matches!(told, Err(NvmlError::InsufficientSize(_)))
            });
            let told = gpu.mps_running_compute_processes().unwrap();
            assert_eq!(told.len(), clients.len());
        },
    );
}

/// An event has no instance there. The agent waits by its own call.
#[test]
fn the_wrapper_drops_the_instance_of_an_event() {
    play(
        "assumptions::the_wrapper_drops_the_instance_of_an_event",
        "a100-mig",
        |stage| {
            let nvml = stage.nvml();
            let gpu = nvml.device_by_index(0).unwrap();
            let set = gpu
                .register_events(
                    EventTypes::CRITICAL_XID_ERROR,
                    nvml.create_event_set().unwrap(),
                )
                .unwrap();
            stage.edit(|scenario| {
                scenario.push_event("0", Some(31), Some((7, 0))).unwrap();
            });
            // All of its fields: one for the instance would not compile here.
            let EventData {
                device,
                event_type,
                event_data,
            } = set.wait(10_000).unwrap();
            assert_eq!(device.uuid().unwrap(), gpu.uuid().unwrap());
            assert_eq!(event_type, EventTypes::CRITICAL_XID_ERROR);
            assert!(matches!(event_data, Some(XidError::Value(31))));
        },
    );
}
