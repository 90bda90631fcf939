//! The harness of the black-box tests: real programs in a temporary folder, real child processes as workloads, and
//! clients that may be as rude as the tests need. Nothing here knows the inside of a program.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says where it stood"
)]

pub mod dialect;
pub mod disk;
pub mod failing_sync;
pub mod journal;
pub mod jwks;
pub mod mtls;
pub mod node;
pub mod packaged;
pub mod pair;
pub mod portal;
pub mod postgres;
pub mod program;
pub mod prometheus;
pub mod python;
pub mod quota;
pub mod raw;
pub mod real_node;
pub mod repository;
pub mod rest;
pub mod scrape;
pub mod seed;
pub mod server;
pub mod session;
pub mod site;
pub mod skip;
pub mod wait;
