//! What the agent says of itself and of the node to Prometheus.

pub mod dcgm;
pub mod http;
mod own;
pub mod snapshot;
mod text;

#[cfg(test)]
mod tests;
