//! The documents' examples and decisions, one by one.

use gpuquota_core::command::{OnExcess, QuotaName, ReleaseQuota, SetQuota};
use gpuquota_core::device::DeviceReport;
use gpuquota_core::id::{QuotaId, Reference, Timestamp};
use gpuquota_core::limit::Limit;
use gpuquota_core::quota::{QuotaSource, QuotaType};
use gpuquota_core::usage::{Usage, usage};
use gpuquota_core::{Answer, Command, Denied, Outcome};

use crate::properties::{full_report, held_gpu, with_nodes};
use crate::reference::Said;
use crate::world::{model, node, region, tenant};
use crate::{Ledger, START, said};

pub(crate) const GPU: &str = "nvidia.com/gpu";

pub(crate) fn name(who: &str, source: QuotaSource, what: &str) -> QuotaName {
    QuotaName {
        tenant: tenant(who),
        region: region("bj"),
        source,
        gpu_model: model(what),
        quota_type: None,
        reference: None,
    }
}

pub(crate) fn bought(who: &str, what: &str) -> QuotaName {
    name(who, QuotaSource::Purchase, what)
}

pub(crate) fn with_id(name: QuotaName, id: u32) -> QuotaName {
    QuotaName {
        reference: Some(Reference(id)),
        ..name
    }
}

pub(crate) fn put(name: QuotaName, num: u32) -> SetQuota {
    SetQuota {
        name,
        limit: Limit::Finite(num),
        expires_at: None,
        nodes: None,
        on_excess: OnExcess::Deny,
    }
}

pub(crate) fn on(set: SetQuota, nodes: &[&str]) -> SetQuota {
    SetQuota {
        nodes: Some(nodes.iter().map(|n| node(n)).collect()),
        ..set
    }
}

pub(crate) fn until(set: SetQuota, ms: i64) -> SetQuota {
    SetQuota {
        expires_at: Some(Timestamp(START.0 + ms)),
        ..set
    }
}

pub(crate) fn release(name: QuotaName, forced: bool, must_exist: bool) -> ReleaseQuota {
    ReleaseQuota {
        name,
        forced,
        must_exist,
    }
}

impl Ledger {
    pub(crate) fn put(&mut self, set: SetQuota) -> Said {
        said(&self.ask(&Command::SetQuota(set), START, None))
    }

    pub(crate) fn take(&mut self, release: ReleaseQuota) -> Said {
        said(&self.ask(&Command::ReleaseQuota(release), START, None))
    }

    pub(crate) fn report(&mut self, name: &str, number: u64, devices: Vec<DeviceReport>) -> Said {
        said(&self.ask(
            &Command::Report(full_report(name, number, devices)),
            START,
            None,
        ))
    }

    pub(crate) fn usage(&self, who: &str) -> Usage {
        usage(&self.state, &tenant(who))
    }
}

pub(crate) fn quota(id: u64) -> Said {
    Ok(Outcome::Quota(QuotaId(id)))
}

pub(crate) fn gpus(count: usize, who: &str) -> Vec<DeviceReport> {
    (0..count)
        .map(|at| held_gpu(&format!("GPU-{at}"), &[who]))
        .collect()
}

#[test]
fn d1_2_the_fields_name_the_quota_and_a_known_id_its_type() {
    let mut ledger = Ledger::default();
    assert_eq!(
        ledger.put(on(put(with_id(bought("a", GPU), 7), 4), &["n0"])),
        quota(0)
    );
    assert_eq!(ledger.put(put(bought("a", GPU), 5)), quota(1));
    assert_eq!(ledger.put(put(bought("a", GPU), 6)), quota(1));
    assert_eq!(
        ledger.put(put(name("a", QuotaSource::Assign, GPU), 6)),
        quota(2)
    );
    assert_eq!(ledger.put(put(with_id(bought("a", GPU), 7), 3)), quota(0));
    let dedicated = ledger.state.quota(QuotaId(0)).unwrap();
    assert_eq!(dedicated.key.quota_type, QuotaType::Dedicated);
    assert!(dedicated.nodes.contains(&node("n0")), "its nodes stay");
    assert_eq!(
        ledger.state.quota(QuotaId(1)).unwrap().limit,
        Limit::Finite(6)
    );
}

#[test]
fn d1_3_an_id_is_the_tenants_own() {
    let mut ledger = Ledger::default();
    assert_eq!(
        ledger.put(put(with_id(bought("gpu-operator", GPU), 212), 2)),
        quota(0)
    );
    let other = with_id(name("test1015", QuotaSource::Assign, "tyui-3"), 212);
    assert_eq!(ledger.put(put(other, 2)), quota(1));
    let moved = with_id(bought("gpu-operator", "tyui-3"), 212);
    assert_eq!(
        ledger.put(put(moved.clone(), 2)),
        Err("reference_taken".into())
    );
    assert_eq!(
        ledger.take(release(moved, true, true)),
        Err("reference_taken".into())
    );
    assert_eq!(ledger.state.quotas().count(), 2);
}

#[test]
fn d1_4_below_use_is_denied_with_the_excess_and_zero_releases() {
    let mut ledger = with_nodes(&["n0"]);
    ledger.put(put(bought("a", GPU), 4)).unwrap();
    ledger.report("n0", 1, gpus(3, "a")).unwrap();
    assert_eq!(ledger.put(put(bought("a", GPU), 3)), quota(0));
    let before = ledger.state.clone();
    let answer = ledger.ask(&Command::SetQuota(put(bought("a", GPU), 1)), START, None);
    let Answer::Denied(Denied::BelowUse {
        quota,
        asked,
        limit,
        used,
        excess,
        ..
    }) = answer
    else {
        panic!("{answer:?}");
    };
    assert_eq!(
        (quota.0, asked.as_str(), limit.as_str(), used, excess),
        (0, "1", "3", 3, 2)
    );
    assert!(before == ledger.state);
    assert_eq!(
        ledger.take(release(bought("a", GPU), true, false)),
        Ok(Outcome::Done)
    );
    assert_eq!(ledger.state.quotas().count(), 0);
    assert_eq!(
        ledger.take(release(bought("a", GPU), true, false)),
        Ok(Outcome::Done)
    );
    assert_eq!(ledger.usage("a").excess(), 3);
}

#[test]
fn d1_4_another_quota_may_take_over_what_a_smaller_one_leaves() {
    let mut ledger = with_nodes(&["n0"]);
    ledger.put(put(bought("a", GPU), 3)).unwrap();
    ledger
        .put(put(name("a", QuotaSource::Assign, GPU), 2))
        .unwrap();
    ledger.report("n0", 1, gpus(3, "a")).unwrap();
    assert_eq!(ledger.put(put(bought("a", GPU), 1)), quota(0));
    assert_eq!(
        ledger.put(put(bought("a", GPU), 0)),
        Err("below_use by 1".into())
    );
}

#[test]
fn d1_4_a_tenant_that_is_over_may_be_given_more_but_not_less() {
    let mut ledger = with_nodes(&["n0"]);
    ledger.report("n0", 1, gpus(5, "a")).unwrap();
    assert_eq!(ledger.put(put(bought("a", GPU), 2)), quota(0));
    assert_eq!(ledger.put(put(bought("a", GPU), 3)), quota(0));
    assert_eq!(
        ledger.put(put(bought("a", GPU), 2)),
        Err("below_use by 1".into())
    );
    assert_eq!(
        (ledger.usage("a").of(QuotaId(0)), ledger.usage("a").excess()),
        (5, 2)
    );
}

#[test]
fn d1_6_types_follow_from_models_and_nodes_make_dedicated() {
    let mut ledger = Ledger::default();
    let typed = |quota_type| QuotaName {
        quota_type: Some(quota_type),
        ..bought("a", GPU)
    };
    ledger.put(put(bought("a", GPU), 1)).unwrap();
    ledger
        .put(put(bought("a", "nvidia.com/mig-1c10g"), 1))
        .unwrap();
    ledger.put(put(bought("a", "tyui-3"), 1)).unwrap();
    ledger.put(on(put(bought("a", GPU), 1), &["n0"])).unwrap();
    ledger
        .put(on(put(typed(QuotaType::Dedicated), 2), &["n1"]))
        .unwrap();
    let types: Vec<_> = ledger
        .state
        .quotas()
        .map(|quota| quota.key.quota_type)
        .collect();
    assert_eq!(
        types,
        [
            QuotaType::Flexible,
            QuotaType::Mig,
            QuotaType::Vgpu,
            QuotaType::Dedicated
        ]
    );
    let without = Err("dedicated_without_nodes".to_owned());
    assert_eq!(ledger.put(put(typed(QuotaType::Dedicated), 1)), without);
    assert_eq!(ledger.put(on(put(bought("a", GPU), 1), &[])), without);
    let mixed = ledger.put(on(put(typed(QuotaType::Flexible), 1), &["n1"]));
    assert_eq!(mixed, Err("nodes_without_dedicated".into()));
    assert!(ledger.state.bound_tenant(&node("n0")).is_none());
    let both = on(put(typed(QuotaType::Dedicated), 2), &["n0", "n1"]);
    ledger.put(both).unwrap();
    assert_eq!(ledger.state.bound_tenant(&node("n0")), Some(&tenant("a")));
    assert_eq!(ledger.state.bound_tenant(&node("n1")), Some(&tenant("a")));
}

#[test]
fn d1_8_release_is_not_forced_unless_said() {
    let mut ledger = with_nodes(&["n0"]);
    let none = Err("no_such_quota".to_owned());
    assert_eq!(ledger.take(release(bought("a", GPU), true, true)), none);
    ledger.put(put(with_id(bought("a", GPU), 1), 2)).unwrap();
    ledger.report("n0", 1, gpus(1, "a")).unwrap();
    assert_eq!(
        ledger.take(release(with_id(bought("a", GPU), 2), true, true)),
        none
    );
    assert_eq!(
        ledger.take(release(bought("a", GPU), false, true)),
        Err("in_use by 1".into())
    );
    assert_eq!(
        ledger.take(release(bought("a", GPU), true, true)),
        Ok(Outcome::Done)
    );
    ledger.put(put(bought("a", GPU), 2)).unwrap();
    ledger.report("n0", 2, Vec::new()).unwrap();
    assert_eq!(
        ledger.take(release(bought("a", GPU), false, true)),
        Ok(Outcome::Done)
    );
}

#[test]
fn a_release_by_id_that_is_repeated_takes_nothing_else() {
    let mut ledger = Ledger::default();
    ledger
        .put(on(put(with_id(bought("a", GPU), 7), 4), &["n0"]))
        .unwrap();
    ledger.put(put(bought("a", GPU), 4)).unwrap();
    for _ in 0..2 {
        let gone = ledger.take(release(with_id(bought("a", GPU), 7), true, false));
        assert_eq!(gone, Ok(Outcome::Done));
        assert!(ledger.state.quotas().map(|quota| quota.id.0).eq([1]));
    }
}
