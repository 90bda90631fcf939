//! Rows about what goes wrong on GPUs: XIDs, losses, changes of the MIG layout, and whether anybody listens.

use gpuquota_proto::exposition::{Families, truth};

use crate::events::kmsg::LogState;
use crate::events::sentinel::Shown;
use crate::gpu::event::{Ear, EventsState};

pub(super) fn add(families: &mut Families, shown: &Shown) {
    about_the_channels(families, shown);
    let ledger = &shown.ledger;
    let mut xids = families.counter(
        "gpuquota_xid_errors_total",
        "XIDs that the driver or the kernel log told of, by GPU and number.",
    );
    for (uuid, xid, times) in ledger.xids() {
        xids.row(
            &[("uuid", uuid), ("xid", &xid.to_string())],
            times.count as f64,
        );
    }
    let mut last = families.gauge(
        "gpuquota_xid_last_timestamp_seconds",
        "When the newest of these XIDs was told.",
    );
    for (uuid, xid, times) in ledger.xids() {
        let labels = [("uuid", uuid), ("xid", &xid.to_string())];
        last.row(&labels, times.last_unix_s as f64);
    }
    let mut tenants = families.counter(
        "gpuquota_tenant_xid_errors_total",
        "XIDs by whose they are: the process that the kernel log names, or the one tenant on the GPU or instance before and after. Empty: it cannot be told. class is application, reset_needed or other.",
    );
    for (tenant, class, count) in ledger.tenants() {
        tenants.row(
            &[("tenant", tenant), ("class", class.as_str())],
            count as f64,
        );
    }
    let mut falls = families.counter(
        "gpuquota_gpu_bus_losses_total",
        "Times that the kernel log told that a GPU fell off the bus.",
    );
    for (uuid, times) in ledger.falls() {
        falls.row(&[("uuid", uuid)], times.count as f64);
    }
    let mut layouts = families.counter(
        "gpuquota_mig_changes_total",
        "Changes of the MIG layout that the driver told of.",
    );
    for (uuid, times) in ledger.layouts() {
        layouts.row(&[("uuid", uuid)], times.count as f64);
    }
    let mut others = families.counter(
        "gpuquota_driver_events_total",
        "Other events of the driver; kind is the bit of nvmlEventType in hexadecimal.",
    );
    for (uuid, kind, times) in ledger.others() {
        others.row(
            &[("uuid", uuid), ("kind", &format!("{kind:#x}"))],
            times.count as f64,
        );
    }
}

fn about_the_channels(families: &mut Families, shown: &Shown) {
    let mut states = families.gauge(
        "gpuquota_events_state",
        "1 for the state in which the channel for events of the driver is; readings do not depend on it.",
    );
    for state in EventsState::NAMES {
        states.row(&[("state", state)], truth(state == shown.events.name()));
    }
    let mut states = families.gauge(
        "gpuquota_gpu_events_state",
        "1 for whether the driver's events of this GPU are heard; no rows while the channel as a whole is not there.",
    );
    for (uuid, ear) in shown.ears.iter() {
        for state in Ear::NAMES {
            let labels = [("uuid", uuid.as_str()), ("state", state)];
            states.row(&labels, truth(state == ear.name()));
        }
    }
    families
        .counter(
            "gpuquota_events_dropped_total",
            "Events that were not counted in a row of their own because there are too many kinds.",
        )
        .value(shown.ledger.dropped() as f64);
    let mut states = families.gauge(
        "gpuquota_kernel_log_state",
        "1 for the state in which reading the kernel log is.",
    );
    for state in LogState::NAMES {
        states.row(&[("state", state)], truth(state == shown.log.name()));
    }
    families
        .counter(
            "gpuquota_kernel_log_overruns_total",
            "Times that the kernel log was overwritten before it was read.",
        )
        .value(shown.overruns as f64);
}
