//! A scenario as a table for people.

use std::fmt::{self, Write};

use gpuquota_fake_nvml::scenario::{Fault, Licence, Process, Scenario, Vgpu};
use gpuquota_fake_nvml::start_time;

pub(crate) fn table(scenario: &Scenario) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_all(&mut text, scenario);
    text
}

fn write_all(out: &mut String, scenario: &Scenario) -> fmt::Result {
    writeln!(
        out,
        "driver {}, init answers {}",
        scenario.driver_version, scenario.init_return
    )?;
    for (index, gpu) in scenario.gpus.iter().enumerate() {
        let lost = if gpu.lost { "  LOST" } else { "" };
        writeln!(
            out,
            "GPU {index}  {}  {}  {}  {} MiB{lost}",
            gpu.uuid, gpu.pci_bus_id, gpu.name, gpu.memory_total_mib
        )?;
        for process in scenario
            .processes
            .iter()
            .filter(|process| process.gpu == gpu.uuid && process.gi.is_none())
        {
            write_process(out, "  ", process)?;
        }
        for vgpu in &gpu.vgpu {
            let vm = vgpu.vm.as_deref().unwrap_or("unknown");
            writeln!(
                out,
                "  vGPU  {}  {}  {} MiB  VM {vm}  {}",
                vgpu.uuid,
                vgpu.type_name,
                vgpu.memory_total_mib,
                licence_text(vgpu)
            )?;
        }
        for (slot, mig) in gpu.slotted_mig() {
            let mib = mig.memory_total_mib;
            writeln!(
                out,
                "  MIG {slot}  {}/{}  {}  {}  {mib} MiB",
                mig.gi, mig.ci, mig.uuid, mig.profile
            )?;
            let here = |process: &&Process| {
                process.gpu == gpu.uuid
                    && process.gi == Some(mig.gi)
                    && process.ci.unwrap_or(0) == mig.ci
            };
            for process in scenario.processes.iter().filter(here) {
                write_process(out, "    ", process)?;
            }
        }
    }
    scenario
        .faults
        .iter()
        .try_for_each(|fault| write_fault(out, fault))
}

fn licence_text(vgpu: &Vgpu) -> String {
    let state = match vgpu.licence {
        Some(Licence::Licensed) => "licensed",
        Some(Licence::Unlicensed) => "unlicensed",
        Some(Licence::NoDriver) => "no driver in the guest",
        Some(Licence::Unknown) | None => "licence unknown",
    };
    match vgpu.licence_expires {
        Some(at) => format!("{state} until {at}"),
        None => state.to_owned(),
    }
}

fn write_process(out: &mut String, indent: &str, process: &Process) -> fmt::Result {
    let memory = process
        .memory_mib
        .map_or("unknown".to_owned(), |mib| format!("{mib} MiB"));
    let started = start_time(process.pid);
    let lives = process.phantom
        || (started.is_some() && process.start_time.is_none_or(|time| Some(time) == started));
    let gone = if lives { "" } else { "  gone" };
    writeln!(
        out,
        "{indent}pid {}  {:?}  {memory}{gone}",
        process.pid, process.kind
    )
}

fn write_fault(out: &mut String, fault: &Fault) -> fmt::Result {
    let what = match (fault.code, fault.ms) {
        (Some(code), _) => format!(" {code}"),
        (None, Some(ms)) => format!(" {ms} ms"),
        (None, None) => String::new(),
    };
    let times = if fault.times == 0 {
        "on".to_owned()
    } else {
        format!("{} times", fault.times)
    };
    let gpu = fault.gpu.as_deref().unwrap_or("any device");
    writeln!(
        out,
        "fault  {}  {gpu}  {:?}{what}  from call {} {times}",
        fault.function, fault.action, fault.from_call
    )
}
