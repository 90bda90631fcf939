//! The central server: one ledger, served to billing systems, agents and Prometheus.
//!
//! A request goes `rest` (parse, authorise) -> `service` (the one writer) -> `gpuquota_core` (decide) -> `store`
//! (append) and back; an agent's report goes `grpc` -> `service` the same way. Reads take an immutable state from
//! `service` and wait for nobody.

pub mod auth;
mod chosen_enforcement;
mod chosen_mode;
pub mod cli;
pub mod clock;
pub mod config;
pub mod examples;
mod folder_owner;
pub mod grpc;
pub mod init;
pub mod join_token;
pub mod journal;
pub mod metrics;
pub mod migrate;
pub mod open;
mod outbound;
pub mod pki;
pub mod rest;
pub mod rotate;
pub mod rotation;
pub mod run;
mod run_time;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod tls;
mod webhook;
