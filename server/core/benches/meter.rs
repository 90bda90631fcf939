//! What the meter costs with 80,000 devices: a report that changes one of them, and closing, reading and forgetting hours.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::time::Instant;

use gpuquota_core::command::NodeReport;
use gpuquota_core::device::{DeviceHealth, DeviceKey, DeviceReport};
use gpuquota_core::id::{GpuModel, NodeName, Region, SessionId, TenantName, Timestamp};
use gpuquota_core::{Command, Record, State};

const NODES: usize = 10_000;
const DEVICES: usize = 8;
const START: i64 = 1_800_000_000_000;
const HOUR: i64 = 3_600_000;

fn main() {
    let mut state = State::default();
    for node in 0..NODES {
        let open = Command::OpenSession {
            node: name(node),
            default_region: Region::new("r").unwrap(),
            boot_id: "b".into(),
            agent_version: "1".into(),
        };
        fold(&mut state, &open, START);
        let devices = (0..DEVICES)
            .map(|at| device(node, at, at % 2 == 0))
            .collect();
        fold(&mut state, &report(node, 1, true, devices), START);
    }
    println!("{} devices", state.metered_devices());

    let begin = Instant::now();
    let changes = 20_000;
    for change in 0..changes {
        let (node, turn) = (change % NODES, change / NODES);
        let number = 2 + u64::try_from(turn).unwrap();
        let changed = vec![device(node, 0, turn % 2 == 1)];
        fold(
            &mut state,
            &report(node, number, false, changed),
            START + 1000,
        );
    }
    let each = begin.elapsed() / u32::try_from(changes).unwrap();
    println!("a report that changes one device, decided and folded: {each:?}");

    let begin = Instant::now();
    fold(&mut state, &Command::Sweep, START + HOUR);
    println!("closing an hour: {:?}", begin.elapsed());

    let (from, to) = (state.stored_before(), state.closed_before());
    let begin = Instant::now();
    let metered = state.metered(from, to, state.at());
    let rows = metered.rows.len();
    println!(
        "reading it, {rows} rows, error {} ms: {:?}",
        metered.error_ms,
        begin.elapsed()
    );
    black_box(metered);

    let begin = Instant::now();
    fold(
        &mut state,
        &Command::NoteUsage { through: to },
        START + HOUR,
    );
    println!("forgetting it, {changes} changes: {:?}", begin.elapsed());
}

fn fold(state: &mut State, command: &Command, at: i64) {
    let events = state.decide(command, Timestamp(at)).unwrap().events;
    let record = Record {
        actor: "server".into(),
        request_id: None,
        from: None,
        reason: None,
        replay: None,
        events,
    };
    let seq = state.seq().next();
    state.apply(seq, Timestamp(at), None, &record);
}

fn report(node: usize, number: u64, full: bool, devices: Vec<DeviceReport>) -> Command {
    Command::Report(NodeReport {
        node: name(node),
        session: SessionId(1),
        spool: "s".into(),
        number,
        age_ms: Some(0),
        heard_at: None,
        read_after: None,
        full,
        facts: None,
        devices,
        gone: Vec::new(),
    })
}

fn name(node: usize) -> NodeName {
    NodeName::new(&format!("node-{node}")).unwrap()
}

fn device(node: usize, at: usize, held: bool) -> DeviceReport {
    let holder = TenantName::new(&format!("tenant-{}", node % 100)).unwrap();
    DeviceReport {
        key: DeviceKey::gpu(&format!("GPU-{node}-{at}")).unwrap(),
        health: DeviceHealth::Ok,
        model: "H100".into(),
        gpu_model: GpuModel::new("nvidia.com/gpu").unwrap(),
        profile: None,
        memory_total_bytes: None,
        partitioned: false,
        tenants: held.then_some(holder).into_iter().collect(),
        unattributed: false,
        licence: None,
        licence_expires_at: None,
        vm: None,
        parent: None,
        numa: None,
        nvlink: None,
    }
}
