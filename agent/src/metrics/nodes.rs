//! Rows about open device nodes, while NVML cannot be asked.

use std::collections::BTreeMap;

use gpuquota_proto::exposition::Families;

use crate::observation::Owner;
use crate::openers::keeper::Opened;

pub(super) fn add(families: &mut Families, opened: &Opened) {
    let mut rows = families.gauge(
        "gpuquota_device_node_processes",
        "Processes that have /dev/nvidiaN open, by tenant; only while NVML is mismatched or broken. Empty: nobody's.",
    );
    for node in &opened.nodes {
        let mut counts = BTreeMap::<&str, f64>::new();
        for process in &node.processes {
            let tenant = match &process.owner {
                Owner::Tenant { name, .. } => name.as_str(),
                Owner::System => continue,
                Owner::Unattributed(_) | Owner::Unresolved(_) => "",
            };
            *counts.entry(tenant).or_default() += 1.0;
        }
        let minor = node.minor.to_string();
        for (tenant, count) in counts {
            rows.row(&[("minor", &minor), ("tenant", tenant)], count);
        }
    }
    let mut rows = families.gauge(
        "gpuquota_device_node_missed_processes",
        "Processes that may have more device nodes open than was seen; only while NVML is mismatched or broken. denied: this agent may not look into them; limit: they have too much open or mapped.",
    );
    if let Some(missed) = opened.missed {
        for (reason, count) in [("denied", missed.denied), ("limit", missed.cut)] {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            rows.row(&[("reason", reason)], f64::from(count));
        }
    }
}
