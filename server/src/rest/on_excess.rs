//! `on_excess`: what becomes of a change to a quota that leaves something in use unjustified.

use gpuquota_core::command::OnExcess;

use super::call::Call;
use super::json::invalid;
use super::status::Problem;

/// What the caller wants of it; it is refused where nothing is said.
pub(super) fn on_excess(call: &Call) -> Result<OnExcess, Problem> {
    match call.query.single("on_excess")? {
        None | Some("deny") => Ok(OnExcess::Deny),
        Some("drain") => Ok(OnExcess::Drain),
        Some(_) => Err(invalid("on_excess", "must be deny or drain")),
    }
}
