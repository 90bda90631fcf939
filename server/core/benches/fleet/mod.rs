//! 10,000 nodes with 8 GPUs each, and how a command is folded.

use gpuquota_core::command::NodeReport;
use gpuquota_core::device::{DeviceHealth, DeviceKey, DeviceReport};
use gpuquota_core::id::{GpuModel, NodeName, Region, SessionId, TenantName, Timestamp};
use gpuquota_core::{Command, Record, State};

pub(crate) const NODES: usize = 10_000;
const DEVICES: usize = 8;
pub(crate) const START: i64 = 1_800_000_000_000;

/// All nodes told of their devices; `held` says of which a tenant has a process on it.
pub(crate) fn reported(held: impl Fn(usize, usize) -> bool) -> State {
    let mut state = State::default();
    for node in 0..NODES {
        let open = Command::OpenSession {
            node: name(node),
            default_region: Region::new("r").unwrap(),
            boot_id: "b".into(),
            agent_version: "1".into(),
        };
        fold(&mut state, &open, START);
        let devices = (0..DEVICES).map(|at| device(node, at, held(node, at)));
        fold(&mut state, &report(node, 1, true, devices.collect()), START);
    }
    state
}

/// Decides and folds.
pub(crate) fn fold(state: &mut State, command: &Command, at: i64) {
    let events = state.decide(command, Timestamp(at)).unwrap().events;
    let record = Record {
        actor: "server".into(),
        request_id: None,
        from: None,
        reason: None,
        tenants: Default::default(),
        replay: None,
        events,
    };
    let seq = state.seq().next();
    state.apply(seq, Timestamp(at), None, &record);
}

/// What a node says; numbers begin at 1.
pub(crate) fn report(node: usize, number: u64, full: bool, devices: Vec<DeviceReport>) -> Command {
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

/// The node's name.
pub(crate) fn name(node: usize) -> NodeName {
    NodeName::new(&format!("node-{node}")).unwrap()
}

/// One GPU; the tenant that may hold it is one of a hundred.
pub(crate) fn device(node: usize, at: usize, held: bool) -> DeviceReport {
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
