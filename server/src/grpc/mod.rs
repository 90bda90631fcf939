//! The agents' listener: mTLS, then one stream a node.
//!
//! The accept loop is our own, so that renewed certificates are used for the next connection without a restart and a
//! peer whose certificate names nobody never reaches a handler.

mod accept;
mod agreement;
mod convert;
mod peer;
mod refusal;
mod sessions;
mod stream;

pub use accept::{AgentListener, serve};
pub use sessions::Sessions;
pub use stream::{AgentService, SessionSettings};
