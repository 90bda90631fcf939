//! What the agent says of itself and of the node to Prometheus.

pub mod dcgm;
mod gpus;
pub mod http;
mod node;
mod own;
pub mod snapshot;
mod text;

#[cfg(test)]
mod tests;
