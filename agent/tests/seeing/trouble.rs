//! What goes wrong on GPUs, from the driver and from the kernel log, as the running agent shows it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::Command;

use crate::node::Node;

/// An XID of an instance goes to the tenant that alone is on it; the same in the kernel log is no second one; a GPU that falls
/// off the bus without an XID shows by the kernel log alone; and nobody is ill by hearsay.
#[test]
fn rule_12_what_the_driver_and_the_kernel_tell_is_counted_once_by_gpu_and_by_tenant() {
    let node = Node::new("a100-mig");
    let kmsg = node.path().join("kmsg");
    assert!(
        Command::new("mkfifo")
            .arg(&kmsg)
            .status()
            .unwrap()
            .success()
    );
    // Both ends, so that opening does not wait.
    let mut log = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&kmsg)
        .unwrap();
    let pid = node.run_on("1", Some((1, 0)));
    node.register(pid, "team-a");
    let agent = node.run_agent(&format!("kernel_log = \"{}\"", kmsg.display()));
    agent.wait_for(&[
        "gpuquota_events_state{state=\"listening\"} 1",
        "gpuquota_kernel_log_state{state=\"following\"} 1",
        "gpuquota_tenant_devices{tenant=\"team-a\",gpu_model=\"nvidia.com/mig-3g.40gb\",kind=\"mig\"} 1",
    ]);
    let (uuid, pci, other) = node.edit(|scenario| {
        let other = scenario.gpus[3].pci_bus_id.clone();
        let gpu = &scenario.gpus[1];
        Ok((gpu.uuid.clone(), gpu.pci_bus_id.clone(), other))
    });
    // 00000000:18:00.0 is 0000:18:00 in the kernel's words.
    let (pci, other) = (&pci[4..14], &other[4..14]);
    node.edit(|scenario| scenario.push_event("1", Some(31), Some((1, 0))));
    writeln!(
        log,
        "3,10,100,-;NVRM: Xid (PCI:{} GPU-I:01 GPU-CI:00): 31, pid={pid}, name=x, MMU Fault\n SUBSYSTEM=pci",
        pci
    )
    .unwrap();
    writeln!(
        log,
        "3,11,101,-;NVRM: GPU {other}.0: GPU has fallen off the bus."
    )
    .unwrap();
    writeln!(
        log,
        "14,12,102,-;NVRM: Xid (PCI:{other}): 79, written by a program"
    )
    .unwrap();
    writeln!(log, "3,13,103,-;NVRM: Xid (PCI:{other}): 63, row remapped").unwrap();
    let last = node.edit(|scenario| Ok(scenario.gpus[3].uuid.clone()));
    let text = agent.wait_for(&[
        &format!("gpuquota_xid_errors_total{{uuid=\"{uuid}\",xid=\"31\"}} 1"),
        "gpuquota_tenant_xid_errors_total{tenant=\"team-a\",class=\"application\"} 1",
        &format!("gpuquota_xid_errors_total{{uuid=\"{last}\",xid=\"63\"}} 1"),
        &format!("gpuquota_gpu_bus_losses_total{{uuid=\"{last}\"}} 1"),
        "gpuquota_gpus{state=\"ok\"} 4",
    ]);
    assert!(!text.contains("xid=\"79\""), "{text}");
    assert!(text.contains(&format!(
        "gpuquota_xid_last_timestamp_seconds{{uuid=\"{uuid}\",xid=\"31\"}} 1"
    )));
}

#[test]
fn a_kernel_log_that_is_not_there_is_a_stated_condition() {
    let node = Node::new("t4x1");
    let absent = node.path().join("none");
    let agent = node.run_agent(&format!("kernel_log = \"{}\"", absent.display()));
    agent.wait_for(&[
        "gpuquota_kernel_log_state{state=\"absent\"} 1",
        "gpuquota_up 1",
    ]);
}
