//! Black-box tests of the whole system: one module a behaviour, reliability cases by number.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where it stood"
)]

mod agent_faults;
mod backup;
mod bans;
mod ca_rotation;
mod case_table;
#[path = "../checker/mod.rs"]
#[expect(unused_imports, reason = "the simulator uses more of it")]
mod checker;
mod crowd;
mod cut_off;
mod dashboard;
mod deploy_files;
mod dialect_common;
mod dialect_document;
mod dialect_instance;
mod dialect_licence;
mod dialect_listing;
mod dialect_quota_set;
mod dialect_workspace;
mod dialect_writes;
mod dialects_agree;
mod docs_page;
mod document_examples;
mod document_texts;
mod drains;
mod durability;
mod enclosed;
mod enforcement;
mod exec;
mod histories;
mod hostile_dialects;
mod hostile_http;
mod hostile_input;
mod hostile_paths;
mod hostile_tokens;
mod https;
mod identity;
mod joining;
mod journal_commands;
mod leases;
mod line;
mod mutual_tls;
mod openapi;
mod own_pki;
mod packages;
mod prometheus;
mod published_clients;
mod readme;
mod real_enforcer;
mod real_systemd;
mod renewing;
mod replicas;
mod repository_rules;
mod retire;
mod samples;
mod schemathesis;
mod services;
mod sessions;
mod shared_gpus;
mod steps;
mod tampering;
mod tenants;
mod three_nodes;
mod vgpu;
