//! The part of `devices` about open device nodes, for a node whose NVML cannot be asked.

use std::io::{self, Write as _};

use serde::Serialize;

use super::ProcessRow;
use crate::observation::Owner;
use crate::openers::keeper::OpenNode;

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

pub(super) fn print(nodes: &[OpenNode]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for node in nodes {
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
    Ok(())
}
