//! Rows about the way to the server and the spool. Pure.

use gpuquota_proto::exposition::{Families, truth};

use super::snapshot::Reporting;

pub(super) fn add(families: &mut Families, reporting: &Reporting) {
    families
        .gauge(
            "gpuquota_uplink_connected",
            "Whether a session with the server is up.",
        )
        .value(truth(reporting.connected));
    families
        .counter(
            "gpuquota_uplink_reconnects_total",
            "Sessions with the server after the first one.",
        )
        .value(reporting.reconnects as f64);
    if let Some(end) = reporting.certificate_not_after_unix_s {
        families
            .gauge(
                "gpuquota_certificate_not_after_timestamp_seconds",
                "When the certificate of the newest connection ends.",
            )
            .value(end as f64);
    }
    let spool = reporting.spool;
    families
        .gauge(
            "gpuquota_spool_records",
            "Reports that the server has not acknowledged.",
        )
        .value(spool.records as f64);
    families
        .gauge("gpuquota_spool_bytes", "Size of the spool on disk.")
        .value(spool.bytes as f64);
    families
        .gauge(
            "gpuquota_spool_in_memory_only",
            "Whether the spool cannot be written, so that a restart loses reports.",
        )
        .value(truth(spool.in_memory_only));
    families
        .counter("gpuquota_reports_total", "Reports made.")
        .value(spool.reports as f64);
}
