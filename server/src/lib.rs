//! The central server: one ledger, served to billing systems, agents and Prometheus.

pub mod auth;
pub mod clock;
pub mod service;
pub mod store;
