//! What the agent says of itself and of the node to Prometheus.

pub mod dcgm;
mod devices;
mod enforcement;
mod gpus;
pub mod http;
mod machine;
mod nodes;
mod own;
mod processes;
mod room;
pub mod snapshot;
mod states;
mod text;
mod trouble;
mod unresolved;
mod uplink;
mod vgpus;

#[cfg(test)]
mod tests;
