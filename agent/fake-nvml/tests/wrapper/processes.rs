//! Processes on GPUs: real ones, that come and go while a program holds its handles.

use std::ffi::c_uint;

use gpuquota_fake_nvml::scenario::Kind;
use nvml_wrapper::Device;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;

use crate::stage::play;

const MIB: u64 = 1 << 20;

fn pids(list: &[ProcessInfo]) -> Vec<u32> {
    list.iter().map(|process| process.pid).collect()
}

#[test]
fn a_process_is_listed_where_it_runs_and_only_while_it_lives() {
    play(
        "processes::a_process_is_listed_where_it_runs_and_only_while_it_lives",
        "a100-mig",
        |stage| {
            let nvml = stage.nvml();
            let (cut, whole) = (
                nvml.device_by_index(0).unwrap(),
                nvml.device_by_index(2).unwrap(),
            );
            assert!(cut.running_compute_processes().unwrap().is_empty());

            let on_mig = stage.run_on("0", |process| {
                (process.gi, process.memory_mib) = (Some(8), Some(700))
            });
            let on_other = stage.run_on("0", |process| {
                (process.gi, process.memory_mib) = (Some(1), Some(90))
            });
            let on_whole = stage.run_on("2", |_| {});
            let drawing = stage.run_on("2", |process| {
                (process.kind, process.memory_mib) = (Kind::Graphics, Some(5))
            });

            let all = cut.running_compute_processes().unwrap();
            assert_eq!(
                pids(&all),
                [on_mig.pid(), on_other.pid()],
                "the parent shows all instances"
            );
            assert_eq!(
                (all[0].gpu_instance_id, all[0].compute_instance_id),
                (Some(8), Some(0))
            );
            assert_eq!(all[0].used_gpu_memory, UsedGpuMemory::Used(700 * MIB));
            let instance = cut.mig_device_by_index(2).unwrap();
            assert_eq!(
                pids(&instance.running_compute_processes().unwrap()),
                [on_mig.pid()]
            );
            assert_eq!(instance.memory_info().unwrap().used, 700 * MIB);
            assert_eq!(cut.memory_info().unwrap().used, 790 * MIB);

            let list = whole.running_compute_processes().unwrap();
            assert_eq!(pids(&list), [on_whole.pid()]);
            assert_eq!(
                list[0].used_gpu_memory,
                UsedGpuMemory::Unavailable,
                "unknown is not zero"
            );
            assert_eq!(
                (list[0].gpu_instance_id, list[0].compute_instance_id),
                (None, None)
            );
            assert_eq!(
                pids(&whole.running_graphics_processes().unwrap()),
                [drawing.pid()]
            );
            assert!(whole.mps_running_compute_processes().unwrap().is_empty());
            assert!(
                nvml.sys_process_name(on_whole.pid(), 64)
                    .unwrap()
                    .contains("sleep")
            );

            on_mig.end();
            assert_eq!(
                pids(&cut.running_compute_processes().unwrap()),
                [on_other.pid()]
            );
            assert!(instance.running_compute_processes().unwrap().is_empty());
            assert_eq!(
                instance.memory_info().unwrap().used,
                0,
                "a dead process holds no memory"
            );
            drop((on_other, on_whole, drawing));
            assert!(cut.running_compute_processes().unwrap().is_empty());
        },
    );
}

#[test]
fn utilisation_of_a_process_is_told_once_per_sample() {
    play(
        "processes::utilisation_of_a_process_is_told_once_per_sample",
        "t4x1",
        |stage| {
            let nvml = stage.nvml();
            let gpu = nvml.device_by_index(0).unwrap();
            let busy = stage.run_on("0", |process| process.sm_percent = Some(73));
            let _idle = stage.run_on("0", |_| {});
            let samples = gpu.process_utilization_stats(None).unwrap();
            assert_eq!(
                (samples.len(), samples[0].pid, samples[0].sm_util),
                (1, busy.pid(), 73)
            );
            assert!(
                gpu.process_utilization_stats(samples[0].timestamp + 10_000_000)
                    .is_err(),
                "nothing newer yet"
            );
        },
    );
}

#[expect(unsafe_code, reason = "raw NVML calls, as the agent makes them")]
fn list_raw(device: &Device<'_>, room: c_uint, element: usize) -> (u32, c_uint, Vec<u8>) {
    let library = device.nvml().lib();
    // Guard bytes behind what was promised show how far the library writes.
    let mut buffer = vec![0xaa_u8; 4096];
    let mut count = room;
    // SAFETY: the buffer is larger than any list here, at any element size.
    let code = unsafe {
        let call = library
            .nvmlDeviceGetComputeRunningProcesses_v3
            .as_ref()
            .unwrap();
        call(device.handle(), &mut count, buffer.as_mut_ptr().cast())
    };
    let written = buffer
        .iter()
        .rposition(|byte| *byte != 0xaa)
        .map_or(0, |last| last + 1);
    buffer.truncate(written);
    assert_eq!(written % element, 0);
    (code, count, buffer)
}

#[test]
fn a_list_that_grows_between_two_calls_says_how_much_room_it_needs() {
    play(
        "processes::a_list_that_grows_between_two_calls_says_how_much_room_it_needs",
        "t4x1",
        |stage| {
            let nvml = stage.nvml();
            let gpu = nvml.device_by_index(0).unwrap();
            assert_eq!(list_raw(&gpu, 0, 24), (0, 0, vec![]));
            let first = stage.run_on("0", |_| {});
            let (code, room, _) = list_raw(&gpu, 0, 24);
            assert_eq!((code, room), (7, 1));
            let second = stage.run_on("0", |_| {});
            let (code, room, buffer) = list_raw(&gpu, room, 24);
            assert_eq!(
                (code, room, buffer),
                (7, 2, vec![]),
                "too small is not written to"
            );
            second.end();
            let (code, count, buffer) = list_raw(&gpu, room, 24);
            assert_eq!((code, count, buffer.len()), (0, 1, 24));
            assert_eq!(buffer[..4], first.pid().to_ne_bytes());
        },
    );
}

#[test]
fn the_elements_of_faulty_drivers_are_as_long_as_theirs_were() {
    play(
        "processes::the_elements_of_faulty_drivers_are_as_long_as_theirs_were",
        "t4x1",
        |stage| {
            let nvml = stage.nvml();
            let gpu = nvml.device_by_index(0).unwrap();
            let running = [stage.run_on("0", |_| {}), stage.run_on("0", |_| {})];
            for (bytes, element) in [(16, 16), (24, 24), (32, 32)] {
                stage.edit(|scenario| scenario.process_element_bytes = bytes);
                let (code, count, buffer) = list_raw(&gpu, 2, element);
                assert_eq!((code, count, buffer.len()), (0, 2, 2 * element));
                for (process, part) in running.iter().zip(buffer.chunks(element)) {
                    assert_eq!(part[..4], process.pid().to_ne_bytes());
                    assert_eq!(part[8..16], [0xff; 8], "memory is not available");
                    assert!(element < 24 || part[16..24] == [0xff; 8], "no instance");
                }
            }
        },
    );
}
