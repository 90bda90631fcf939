//! What the machine is and how busy: cores and memory once, load and uptime at each scrape.

use std::sync::LazyLock;

use gpuquota_proto::exposition::Families;
use sysinfo::System;

use crate::facts::Node;

static NODE: LazyLock<Node> = LazyLock::new(Node::read);

pub(super) fn add(families: &mut Families) {
    if let Some(cores) = NODE.cpu_cores {
        families
            .gauge("gpuquota_node_cpu_cores", "Logical processors of the node.")
            .value(f64::from(cores));
    }
    if let Some(bytes) = NODE.memory_bytes {
        families
            .gauge(
                "gpuquota_node_memory_bytes",
                "Installed memory of the node.",
            )
            .value(bytes as f64);
    }
    if let Ok(load) = System::load_average() {
        let mut rows = families.gauge(
            "gpuquota_node_load",
            "Processes of the node that run or wait, on average over so many minutes.",
        );
        for (minutes, load) in [("1", load.one), ("5", load.five), ("15", load.fifteen)] {
            rows.row(&[("minutes", minutes)], load);
        }
    }
    if let Ok(seconds) = System::uptime() {
        families
            .gauge(
                "gpuquota_node_uptime_seconds",
                "Time since the node was booted.",
            )
            .value(seconds as f64);
    }
}
