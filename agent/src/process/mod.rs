//! What the kernel says of a process. Nothing here is under the control of the process itself.

pub mod cgroup;
pub mod facts;
pub mod group;
pub mod procfs;
pub mod subordinate;
pub mod terminal;
pub mod workload;
