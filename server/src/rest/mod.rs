//! The REST surface: five quota dialects and the native API over one ledger.
//!
//! `routes` is the one table of what is served; `front` does for every request what all dialects share (request id,
//! method, credential, role, body limits); a dialect's folder holds its handlers, its bodies and its error shape.

mod audited;
mod call;
mod credential;
mod docs;
mod enforcement_schema;
mod explain;
mod freshness;
mod front;
mod generation;
mod gpu_quota;
mod instance;
mod json;
mod kept;
mod known;
mod licence;
mod names;
mod native;
mod on_excess;
mod openapi;
mod plan;
mod project;
mod query;
mod quota_set;
mod reached;
mod reply;
mod routes;
mod serve;
mod status;
pub(crate) mod time;
#[cfg(test)]
mod walk;
mod workspace;

pub(crate) use audited::REASON;
pub use call::Api;
pub use front::router;
pub use kept::Kept;
pub use reached::Endpoint;
pub use serve::{HttpListener, ServeLimits, serve};
pub(crate) use time::parse as parse_time;
