//! Events of the driver on the worker's own raw loop: they are heard with their instance, and whatever becomes of the loop, the
//! readings go on.

use gpuquota_agent::gpu::event::{DriverEvent, Ear, EventsState, Happening};
use gpuquota_agent::gpu::reading::{Health, NvmlState};
use gpuquota_agent::gpu::sampler::Sampler;
use gpuquota_fake_nvml::scenario::{Action, Mig};
use rustix::process::{Pid, Signal, kill_process};

use crate::node::{Node, healths, reading, sample_until};

/// Samples, with all that comes by the way, until the wanted thing has been heard.
async fn hear(
    sampler: &mut Sampler,
    wanted: impl Fn(&[DriverEvent], &EventsState) -> bool,
) -> Vec<DriverEvent> {
    let heard = std::cell::RefCell::new(Vec::new());
    let end = tokio::time::Instant::now() + crate::node::PATIENCE;
    loop {
        let sampled = sample_until(sampler, |_| true).await;
        assert_eq!(sampled.nvml, NvmlState::Ok, "readings go on");
        let news = sampler.take_news();
        heard.borrow_mut().extend(news.events);
        if wanted(&heard.borrow(), &news.state) {
            return heard.into_inner();
        }
        assert!(
            tokio::time::Instant::now() < end,
            "{heard:?}, {:?}",
            news.state
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn listening(sampler: &mut Sampler) {
    hear(sampler, |_, state| *state == EventsState::Listening).await;
}

fn xid(node: &Node, gpu: &str, xid: u64, place: Option<(u32, u32)>) {
    node.edit(|scenario| scenario.push_event(gpu, Some(xid), place));
}

fn total(events: &[DriverEvent], what: Happening) -> u64 {
    let same = events.iter().filter(|event| event.what == what);
    same.map(|event| event.count).sum()
}

/// Defect 1.2.6 of the wrapper: it drops the ids of the instance.
#[tokio::test]
async fn fault_m_rule_12_an_xid_comes_with_its_instance_or_without_one() {
    let node = Node::new("a100-mig");
    let mut sampler = node.sampler();
    let seen = reading(&mut sampler).await;
    listening(&mut sampler).await;
    xid(&node, "0", 31, Some((7, 0)));
    xid(&node, "3", 79, None);
    let heard = hear(&mut sampler, |events, _| events.len() == 2).await;
    let expected = |gpu: usize, xid, place: Option<(u32, u32)>| DriverEvent {
        uuid: seen.gpus[gpu].uuid.clone(),
        what: Happening::Xid(xid),
        gi: place.map(|(gi, _)| gi),
        ci: place.map(|(_, ci)| ci),
        count: 1,
    };
    for event in [expected(0, 31, Some((7, 0))), expected(3, 79, None)] {
        assert!(heard.contains(&event), "{heard:?}");
    }
    // An XID alone makes nobody ill.
    assert_eq!(healths(&reading(&mut sampler).await), [Health::Ok; 4]);
    sampler.shutdown().await;
}

#[tokio::test]
async fn fault_m_a_burst_is_counted_and_delays_no_reading() {
    let node = Node::new("h100x4");
    let mut sampler = node.sampler();
    reading(&mut sampler).await;
    listening(&mut sampler).await;
    node.edit(|scenario| (0..2000).try_for_each(|_| scenario.push_event("1", Some(13), None)));
    let heard = hear(&mut sampler, |events, _| {
        total(events, Happening::Xid(13)) == 2000
    })
    .await;
    assert!(heard.len() < 200, "{} lines for 2000 events", heard.len());
    assert_eq!(sampler.stats().workers_restarted, 0);
    sampler.shutdown().await;
}

/// The reading is stuck and the GPU tells why: what was told comes with the news of the hang.
#[tokio::test]
async fn fault_m_an_event_during_a_hang_is_heard() {
    let node = Node::new("h100x4");
    let mut sampler = node.sampler();
    reading(&mut sampler).await;
    listening(&mut sampler).await;
    node.edit(|scenario| {
        scenario.push_event("1", Some(119), None)?;
        scenario.add_fault(gpuquota_fake_nvml::scenario::Fault {
            gpu: Some("1".to_owned()),
            ..gpuquota_fake_nvml::scenario::Fault::new("nvmlDeviceGetTemperature", Action::Hang)
        })
    });
    let heard = hear(&mut sampler, |events, _| {
        total(events, Happening::Xid(119)) == 1
    })
    .await;
    assert_eq!(heard.len(), 1);
    assert_eq!(
        healths(&reading(&mut sampler).await)[1],
        Health::Hung,
        "and it went into quarantine"
    );
    // Where nobody listens to it.
    listening(&mut sampler).await;
    xid(&node, "1", 120, None);
    xid(&node, "0", 45, None);
    let heard = hear(&mut sampler, |events, _| {
        total(events, Happening::Xid(45)) == 1
    })
    .await;
    assert_eq!(total(&heard, Happening::Xid(120)), 0);
    sampler.shutdown().await;
}

#[tokio::test]
async fn fault_a_a_wait_that_hangs_or_fails_is_a_state_of_the_events_only() {
    let node = Node::new("h100x4");
    let mut sampler = node.sampler();
    reading(&mut sampler).await;
    listening(&mut sampler).await;
    let worker = sampler.worker_pid();
    for function in ["nvmlEventSetWait_v2", "nvmlDeviceRegisterEvents"] {
        node.fault(function, None, Action::Hang);
        // Registering happens in a new worker.
        if function != "nvmlEventSetWait_v2" {
            let pid = sampler.worker_pid().unwrap();
            let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            kill_process(pid, Signal::KILL).unwrap();
        }
        hear(&mut sampler, |_, state| {
            *state
                == EventsState::Hung {
                    call: function.to_owned(),
                }
        })
        .await;
        if function == "nvmlEventSetWait_v2" {
            assert_eq!(sampler.worker_pid(), worker, "the worker goes on");
        }
        node.heal();
        listening(&mut sampler).await;
    }
    for code in [999, 15] {
        node.answer("nvmlEventSetWait_v2", None, code);
        let failing = EventsState::Failing {
            call: "nvmlEventSetWait_v2".to_owned(),
            code: Some(code),
        };
        hear(&mut sampler, |_, state| *state == failing).await;
        node.heal();
        listening(&mut sampler).await;
    }
    xid(&node, "2", 31, None);
    hear(&mut sampler, |events, _| !events.is_empty()).await;
    assert_eq!(sampler.stats().quarantined, 0);
    sampler.shutdown().await;
}

#[tokio::test]
async fn fault_e_a_library_without_events_is_read_all_the_same() {
    let node = Node::new("t4x1");
    node.answer("nvmlEventSetCreate", None, 13);
    let mut sampler = node.sampler();
    hear(&mut sampler, |_, state| *state == EventsState::Unsupported).await;
    sampler.shutdown().await;
}

/// The library dies in the thread that listens: no GPU is blamed, and after a while workers do not listen any more.
#[tokio::test]
async fn fault_o_a_crash_in_the_wait_is_no_crash_of_a_gpu() {
    let node = Node::new("h100x4");
    let mut sampler = node.sampler();
    reading(&mut sampler).await;
    node.fault("nvmlEventSetWait_v2", None, Action::Crash);
    hear(&mut sampler, |_, state| *state == EventsState::Off).await;
    for _ in 0..5 {
        assert_eq!(healths(&reading(&mut sampler).await), [Health::Ok; 4]);
    }
    assert_eq!(sampler.stats().quarantined, 0);
    node.heal();
    listening(&mut sampler).await;
    sampler.shutdown().await;
}

/// Rule 9: an instance more beside others that stay shows in nothing that is asked each pass. The driver says so, and the next pass
/// looks, whatever the turn of looks is; three times, so that it is not that turn by chance.
#[tokio::test]
async fn rule_12_a_change_of_the_mig_layout_is_looked_at_at_once() {
    let node = Node::new("a100-mig");
    let mut sampler = node.sampler();
    let before = reading(&mut sampler).await.gpus[1].instances.len();
    listening(&mut sampler).await;
    for expected in [before + 1, before, before + 1] {
        node.edit(|scenario| {
            let gpu = scenario.gpu_mut("1")?;
            if expected > before {
                let last = gpu.mig[before - 1].clone();
                gpu.mig.push(Mig {
                    gi: last.gi + 1,
                    uuid: "MIG-00000000-0000-0000-0000-000000000001".to_owned(),
                    slot: Some(6),
                    ..last
                });
            } else {
                gpu.mig.pop();
            }
            scenario.push_event("1", None, None)
        });
        let end = tokio::time::Instant::now() + crate::node::PATIENCE;
        loop {
            assert!(tokio::time::Instant::now() < end);
            reading(&mut sampler).await;
            if total(&sampler.take_news().events, Happening::MigChange) == 1 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        // It may have been told with a reading that was under way.
        let seen = reading(&mut sampler).await.gpus[1].instances.len();
        assert_eq!(seen, expected, "not only at the next turn");
    }
    sampler.shutdown().await;
}

/// One GPU that speaks says nothing of the others: each is registered, has no events, or could not be registered.
#[tokio::test]
async fn rule_12_whose_events_are_heard_is_told_of_each_gpu() {
    let node = Node::new("h100x4");
    node.answer("nvmlDeviceRegisterEvents", Some("1"), 999);
    node.answer("nvmlDeviceGetSupportedEventTypes", Some("2"), 3);
    let mut sampler = node.sampler();
    let uuids: Vec<String> = reading(&mut sampler)
        .await
        .gpus
        .into_iter()
        .map(|gpu| gpu.uuid)
        .collect();
    hear(&mut sampler, |_, state| *state == EventsState::Partly).await;
    let ears = sampler.take_news().gpus;
    let failed = Ear::Failed {
        call: "nvmlDeviceRegisterEvents".to_owned(),
        code: Some(999),
    };
    let told = uuids.iter().map(|uuid| ears[uuid].clone());
    let expected = [Ear::Registered, failed, Ear::Unsupported, Ear::Registered];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    sampler.shutdown().await;
}
