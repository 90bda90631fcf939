//! How far GPU-seconds are closed and stored, and whether they add up.

use std::sync::atomic::Ordering;

use gpuquota_core::State;
use gpuquota_core::meter::Hour;
use gpuquota_proto::exposition::Families;

use crate::service::Counters;

pub(super) fn meter(families: &mut Families, state: &State, counters: &Counters) {
    let error_ms = counters.usage_error_ms.load(Ordering::Relaxed) as f64;
    families
        .counter(
            "gpuquota_usage_conservation_error_seconds_total",
            "Device time by which the classes of closed hours and the existence of devices differed; must be 0.",
        )
        .value(error_ms / 1000.0);
    families
        .counter(
            "gpuquota_usage_conflicts_total",
            "Attempts to store hours of which other usage is stored; must be 0.",
        )
        .value(counters.usage_conflicts.load(Ordering::Relaxed) as f64);
    let seconds = |hour: Hour| hour.start().0 as f64 / 1000.0;
    families
        .gauge(
            "gpuquota_usage_closed_timestamp_seconds",
            "Usage before this is closed, seconds since 1970.",
        )
        .value(seconds(state.closed_before()));
    families
        .gauge(
            "gpuquota_usage_stored_timestamp_seconds",
            "Usage before this is stored, seconds since 1970; staying behind the closed one is trouble.",
        )
        .value(seconds(state.stored_before()));
}
