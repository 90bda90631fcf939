//! Journals that earlier versions wrote, states that no fold made, and names that only agents say.

use gpuquota_core::device::DeviceReport;
use gpuquota_core::id::{LeaseId, Seq, TenantNumber, Timestamp};
use gpuquota_core::{Record, State};

use crate::START;
use crate::examples::{GPU, bought, gpus, put};
use crate::properties::with_nodes;
use crate::world::{node, tenant};

// As the version wrote them that knew neither numbers of tenants nor groups, inventories, models and licences.
const JOURNAL: [&str; 4] = [
    r#"{"actor":"server","events":[{"type":"node_declared","node":"n0","region":"bj"}]}"#,
    r#"{"actor":"server","events":[{"type":"session_opened","node":"n0","region":"bj","session":1,"boot_id":"b","agent_version":"1"}]}"#,
    r#"{"actor":"admin:x","request_id":"r","events":[{"type":"tenant_created","tenant":"b"},{"type":"quota_set","quota":0,"key":{"tenant":"b","region":"bj","source":"purchase","type":"flexible","gpu_model":"nvidia.com/gpu"},"limit":{"finite":2},"expires_at":null,"reference":null},{"type":"tenant_created","tenant":"a"}]}"#,
    r#"{"actor":"node:n0","events":[{"type":"node_reported","node":"n0","spool":"s","number":1,"observed_at":1700000000000,"full":true,"devices":[{"key":"GPU-0","health":"ok","model":"Tesla M40","gpu_model":"nvidia.com/gpu","tenants":["b"]}]}]}"#,
];

#[test]
fn a_journal_of_the_version_before_is_folded_and_its_tenants_are_numbered_in_order() {
    let fold = || {
        let mut state = State::default();
        for (seq, text) in (1..).zip(JOURNAL) {
            let record: Record = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&record).unwrap(), text);
            state.apply(Seq(seq), START, None, &record);
        }
        state
    };
    let state = fold();
    state.verify().unwrap();
    let number = |name: &str| state.tenant(&tenant(name)).map(|it| it.profile.number);
    assert_eq!(number("b"), Some(TenantNumber(1)));
    assert_eq!(number("a"), Some(TenantNumber(2)));
    let groups: Vec<&str> = state
        .groups_of(&node("n0"))
        .map(|group| group.as_str())
        .collect();
    assert_eq!(groups, ["TeslaM40"]);
    let bytes = |state: &State| serde_json::to_vec(state).unwrap();
    assert_eq!(bytes(&state), bytes(&fold()));
}

// A lease of the version that did not say what its devices are called, and its answer.
const GRANTED: &str = r#"{"actor":"server","replay":{"fingerprint":"f","answer":{"granted":{"lease":{"id":1,"terms":{"tenant":"a","region":"bj","gpu_model":"nvidia.com/gpu","type":"flexible","count":1,"placement":"devices"},"model":"nvidia.com/gpu","source":"purchase","devices":{"GPU-0":"n0"},"epoch":1,"granted_at":1700000000000,"expires_at":null,"phase":"active","changed":5}}}},"events":[{"type":"lease_granted","lease":1,"terms":{"tenant":"a","region":"bj","gpu_model":"nvidia.com/gpu","type":"flexible","count":1,"placement":"devices"},"source":"purchase","devices":{"GPU-0":"n0"},"epoch":1,"expires_at":null}]}"#;

#[test]
fn a_lease_of_the_version_before_is_answered_as_it_was_then() {
    let mut state = State::default();
    for (seq, text) in (1..).zip(JOURNAL.into_iter().chain([GRANTED])) {
        let record: Record = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
        state.apply(Seq(seq), START, None, &record);
    }
    state.verify().unwrap();
    let lease = state.lease(LeaseId(1)).unwrap();
    assert_eq!(
        lease
            .devices
            .keys()
            .map(|key| lease.make_of(key))
            .collect::<Vec<_>>(),
        [None]
    );
}

#[test]
fn a_state_whose_models_are_not_the_catalogues_is_broken() {
    let mut ledger = with_nodes(&["n0"]);
    ledger.put(put(bought("a", GPU), 2)).unwrap();
    ledger.report("n0", 1, gpus(1, "a")).unwrap();
    let text = serde_json::to_string(&ledger.state).unwrap();
    let verified = |text: &str| serde_json::from_str::<State>(text).unwrap().verify();
    assert_eq!(verified(&text), Ok(()));
    for member in ["model", "canonical"] {
        let good = format!(r#""{member}":"nvidia.com/gpu""#);
        assert_eq!(text.matches(&good).count(), 1, "{text}");
        let bad = text.replace(&good, &format!(r#""{member}":"other""#));
        assert!(verified(&bad).is_err(), "{member}");
    }
}

#[test]
fn whom_only_agents_name_is_not_remembered_among_the_changes() {
    let mut ledger = with_nodes(&["n0"]);
    ledger.put(put(bought("a", GPU), 2)).unwrap();
    let both: Vec<DeviceReport> = gpus(1, "a")
        .into_iter()
        .map(|report| DeviceReport {
            tenants: vec![tenant("a"), tenant("nobody")],
            ..report
        })
        .collect();
    ledger.report("n0", 1, both).unwrap();
    let changes = ledger.state.changes();
    assert_eq!(changes.of_tenant(&tenant("a")), ledger.state.seq());
    assert_eq!(changes.of_tenant(&tenant("nobody")), Seq(0));
    // Once it is known, so is what it held before.
    let now = Timestamp(START.0 + 1);
    let known = gpuquota_core::Command::SetQuota(put(bought("nobody", GPU), 2));
    ledger.ask(&known, now, None);
    assert_eq!(
        ledger.state.changes().of_tenant(&tenant("nobody")),
        ledger.state.seq()
    );
}
