//! The part of `devices` about open device nodes, for a node whose NVML cannot be asked.

use std::io::{self, Write as _};

use serde::Serialize;

use super::document::ProcessRow;
use crate::observation::Owner;
use crate::openers::keeper::{OpenNode, Opened};
use crate::openers::scan::Missed;

#[derive(Debug, Serialize)]
pub(super) struct NodeRow<'o> {
    minor: u32,
    uuid: Option<&'o str>,
    processes: Vec<ProcessRow<'o>>,
}

impl<'o> NodeRow<'o> {
    pub(super) fn new(node: &'o OpenNode) -> Self {
        Self {
            minor: node.minor,
            uuid: node.uuid.as_deref(),
            processes: node.processes.iter().map(ProcessRow::new).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct MissedRow {
    denied: usize,
    limit: usize,
}

impl MissedRow {
    pub(super) fn new(missed: Missed) -> Self {
        Self {
            denied: missed.denied,
            limit: missed.cut,
        }
    }
}

pub(super) fn print(opened: &Opened) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for node in &opened.nodes {
        let uuid = node.uuid.as_deref().unwrap_or("GPU unknown");
        write!(out, "/dev/nvidia{} ({uuid}) is open in", node.minor)?;
        for process in &node.processes {
            let whose = match &process.owner {
                Owner::Tenant { name, .. } => name,
                Owner::System => "system",
                Owner::Unattributed(_) | Owner::Unresolved(_) => "nobody's",
            };
            if let Some(pid) = process.pid {
                write!(out, " {pid} ({whose})")?;
            }
        }
        writeln!(out)?;
    }
    if let Some(missed) = opened.missed.filter(|missed| !missed.is_empty()) {
        let Missed { denied, cut } = missed;
        writeln!(
            out,
            "more processes may have nodes open: {denied} may not be looked into (run this as root), {cut} have too much open or mapped"
        )?;
    }
    Ok(())
}
