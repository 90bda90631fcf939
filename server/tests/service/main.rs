//! The ledger service over real SQLite files: one writer, two writers, restarts, wrong clocks, failing storage.
#![expect(clippy::unwrap_used, reason = "tests")]

mod behind;
mod declared;
mod directory;
mod faults;
mod instance;
mod journal_archive;
mod journal_backup;
mod journal_files;
mod journal_snapshots;
mod journals;
mod licence;
mod licence_list;
mod licence_parameters;
mod licence_writes;
mod native;
mod past;
mod quota_set;
mod replay;
mod rest;
mod restart;
mod running;
mod signed;
mod workspace;
mod workspace_refusals;
mod workspace_sums;
mod writers;
