//! The pure ledger: what can be asked, what can happen, and the two functions between them.
//!
//! [`State::decide`] answers a [`Command`] with events or a [`Denied`]; [`State::apply`] folds a journal row into the
//! state. Nothing here reads a clock, draws a random number or does I/O, so a restart, a replica, an audit and a test
//! that fold the same journal get the same bytes.
#![warn(missing_docs)]

pub mod about;
mod apply;
pub mod archive;
pub mod ban;
pub mod catalogue;
pub mod command;
mod decide;
pub mod device;
pub mod enforcement;
pub mod event;
pub mod explain;
pub mod explanation;
pub mod ghost;
pub mod id;
pub mod join;
pub mod lease;
pub mod licence;
pub mod licence_usage;
pub mod limit;
pub mod meter;
pub mod mutant;
pub mod node;
pub mod object;
pub mod placement;
pub mod plan;
pub mod policy;
pub mod pool;
pub mod profile;
pub mod quota;
mod record;
pub mod settings;
mod state;
pub mod step;
pub mod tenant;
pub mod usage;

pub use command::{Answer, Command, Decision, Outcome};
pub use decide::Preview;
pub use event::{Event, Record};
pub use explain::Denied;
pub use state::{Broken, Changes, Demand, Group, State};
