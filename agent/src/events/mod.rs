//! What goes wrong on GPUs, as the driver and the kernel tell it: XIDs, and GPUs that fall off the bus. It is counted and shown
//! and decides nothing: whether a GPU is lost is what the next reading says, so none is ill for ever.

pub mod kmsg;
pub mod ledger;
pub mod nvrm;
pub mod sentinel;
pub mod xid;
