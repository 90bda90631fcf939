//! The ledger service over real databases: one writer, two writers, restarts, wrong clocks, failing storage.
#![expect(clippy::unwrap_used, reason = "tests")]

mod behind;
mod database_tls;
mod databases;
mod declared;
mod directory;
mod drains;
mod enforced;
mod faults;
mod generations;
mod golden;
mod golden_steps;
mod golden_story;
mod instance;
mod journal_archive;
mod journal_backup;
mod journal_files;
mod journal_snapshots;
mod journals;
mod leaky;
mod leased;
mod licence;
mod licence_list;
mod licence_parameters;
mod licence_writes;
mod lost;
mod migrate;
mod native;
mod outage;
mod past;
#[path = "../../../tests/src/postgres.rs"]
#[expect(unreachable_pub, reason = "the black-box tests use it too")]
mod postgres;
mod quota_set;
mod replay;
mod replicas;
mod rest;
mod restart;
mod running;
mod signed;
#[path = "../../../tests/src/skip.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "the black-box tests use more of it"
)]
mod skip;
mod store;
mod usage;
mod workspace;
mod workspace_refusals;
mod workspace_sums;
mod writers;
