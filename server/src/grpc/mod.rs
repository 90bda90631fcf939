//! The agents' listener: mTLS, then one stream a node.
//!
//! The accept loop is our own, so that renewed certificates are used for the next connection without a restart and a
//! peer whose certificate names nobody never reaches a handler.

mod accept;
mod agreement;
mod convert;
mod enforcement;
mod joining;
mod leasing;
mod pace;
mod peer;
mod policy_wire;
mod reasons;
mod refusal;
mod report;
mod route;
mod sessions;
mod stream;
mod trust;

pub use accept::{AgentListener, serve};
pub use joining::{JoinService, Signing};
pub use leasing::LeaseService;
pub use sessions::Sessions;
pub use stream::{AgentService, SessionSettings};
pub use trust::{Authority, Trusting};
