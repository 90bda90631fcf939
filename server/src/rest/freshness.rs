//! Reading one's own writes, and how old an answer is: `Gpuquota-Seq` and `Gpuquota-Age`.
//!
//! A write is answered with the journal row at which it can be read. A request that names that row is served by a server
//! that has it. Where several servers share the journal, one that cannot reach the database says how old its answers are.

use std::time::Duration;

use gpuquota_core::id::Seq;
use http::HeaderMap;

use super::call::Api;
use super::status::{Kind, Problem};

pub(super) const SEQ: &str = "gpuquota-seq";
pub(super) const AGE: &str = "gpuquota-age";

/// How long a request waits for its row.
const WAIT: Duration = Duration::from_secs(2);
/// A server that follows the journal is never so far behind.
const STALE_MS: u64 = 2_000;

/// The row that a request asks for.
///
/// # Errors
/// When the header is no row number.
pub(super) fn asked(headers: &HeaderMap) -> Result<Option<Seq>, Problem> {
    let mut values = headers.get_all(SEQ).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let seq = value
        .to_str()
        .ok()
        .filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match (seq.and_then(|text| text.parse().ok()), values.next()) {
        (Some(seq), None) => Ok(Some(Seq(seq))),
        _ => Err(Problem::new(
            Kind::InvalidField,
            "Gpuquota-Seq must be one whole number, as the answer to a write had it",
        )
        .of_field("Gpuquota-Seq")),
    }
}

/// Waits until reads see the row `seq`.
///
/// # Errors
/// When that takes too long.
pub(super) async fn reached(api: &Api, seq: Seq) -> Result<(), Problem> {
    let reached = tokio::time::timeout(WAIT, api.ledger.shared().reached(seq)).await;
    reached.map_err(|_| {
        let last = api.ledger.read().state.seq();
        Problem::new(
            Kind::Unavailable,
            format!(
                "this server has the journal up to row {last} and row {seq} is asked for; \
                 ask again, ask the server that wrote it, or leave Gpuquota-Seq out"
            ),
        )
    })
}

/// Whole seconds since the ledger was surely the newest, when that is worth telling.
pub(super) fn age_seconds(api: &Api) -> Option<u64> {
    let age_ms = api.ledger.shared().age_ms(api.clock.boot_ms());
    (age_ms >= STALE_MS).then_some(age_ms / 1000)
}
