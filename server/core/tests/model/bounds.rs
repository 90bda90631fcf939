//! Bounds of a lease that random histories do not reach: sizes, cores, memory, groups, projects, what is not there.

use gpuquota_core::command::{NodeReport, RequestLease};
use gpuquota_core::explanation::Rule;
use gpuquota_core::id::{
    DisplayName, GroupName, HostResourceName, LabelName, LeaseId, ProjectId, Timestamp,
};
use gpuquota_core::lease::{MOST_LABELS, MOST_LEASED};
use gpuquota_core::limit::Limit;
use gpuquota_core::node::NodeFacts;
use gpuquota_core::pool::{HostLimitKey, HostResource, ResourceGroup};
use gpuquota_core::{Answer, Command};

use crate::examples::{GPU, bought, gpus, on, put, quota};
use crate::leases::{ask_for, at, four, free, number_for};
use crate::properties::{full_report, with_nodes};
use crate::world::{model, node, tenant};
use crate::{Ledger, START, said};

fn asked(ledger: &mut Ledger, request: RequestLease) -> Result<(), String> {
    said(&ledger.ask(&Command::RequestLease(request), START, None)).map(|_| ())
}

fn reasons(ledger: &mut Ledger, request: &RequestLease, now: Timestamp) -> Vec<Rule> {
    let denied = ledger.lease(request, now).unwrap_err();
    assert_eq!(denied.rule, Rule::NoDevice);
    denied.because.iter().map(|it| it.rule).collect()
}

#[test]
fn a_lease_has_so_many_devices_and_labels_and_no_more() {
    let mut ledger = four();
    let mut set = put(bought("a", GPU), 0);
    set.limit = Limit::Unlimited;
    ledger.put(set).unwrap();
    let too_many = Err("too_many".to_owned());
    assert_eq!(asked(&mut ledger, number_for("a", MOST_LEASED)), Ok(()));
    assert_eq!(
        asked(&mut ledger, number_for("a", MOST_LEASED + 1)),
        too_many
    );
    assert_eq!(asked(&mut ledger, number_for("a", 0)), too_many);
    let labelled = |count: usize| RequestLease {
        labels: (0..count)
            .map(|at| {
                let name = LabelName::new(&format!("l{at}")).unwrap();
                (name, DisplayName::new("x").unwrap())
            })
            .collect(),
        ..number_for("a", 1)
    };
    assert_eq!(asked(&mut ledger, labelled(MOST_LABELS)), Ok(()));
    assert_eq!(asked(&mut ledger, labelled(MOST_LABELS + 1)), too_many);
}

#[test]
fn cores_and_memory_of_a_node_are_given_once_and_unknown_is_none() {
    let mut ledger = four();
    let with = |cpu_cores, memory_bytes| RequestLease {
        cpu_cores,
        memory_bytes,
        ..ask_for("a", 1)
    };
    let room = [Rule::NodeRoom];
    assert_eq!(reasons(&mut ledger, &with(Some(1), None), START), room);
    assert_eq!(reasons(&mut ledger, &with(None, Some(1)), START), room);
    let facts = NodeFacts {
        cpu_cores: Some(8),
        memory_bytes: Some(100),
        nvml: "ok".into(),
        ..NodeFacts::default()
    };
    let report = NodeReport {
        facts: Some(facts),
        ..full_report("n0", 2, free(0, 4))
    };
    ledger.ask(&Command::Report(report), at(1), None);
    let first = ledger.lease(&with(Some(6), Some(60)), at(1)).unwrap();
    assert_eq!(reasons(&mut ledger, &with(Some(3), None), at(1)), room);
    assert_eq!(reasons(&mut ledger, &with(None, Some(41)), at(1)), room);
    ledger.lease(&with(Some(2), Some(40)), at(1)).unwrap();
    ledger.lease(&with(None, None), at(1)).unwrap();
    assert_eq!(reasons(&mut ledger, &with(Some(1), None), at(1)), room);
    ledger.give_back(first.id, true, at(2));
    ledger.lease(&with(Some(6), Some(60)), at(2)).unwrap();
}

#[test]
fn a_group_that_names_its_tenants_serves_no_others() {
    let mut ledger = four();
    let set = |ledger: &mut Ledger, names: Option<&[&str]>| {
        let group = ResourceGroup {
            group: GroupName::new("H100").unwrap(),
            max_time_s: None,
            tenants: names.map(|names| names.iter().map(|name| tenant(name)).collect()),
        };
        ledger.ask(&Command::SetGroup(group), START, None);
    };
    set(&mut ledger, Some(&["b"]));
    assert_eq!(
        reasons(&mut ledger, &ask_for("a", 1), START),
        [Rule::NodeGroup]
    );
    set(&mut ledger, Some(&["a", "b"]));
    ledger.lease(&ask_for("a", 1), START).unwrap();
    set(&mut ledger, None);
    ledger.lease(&ask_for("a", 1), START).unwrap();
}

#[test]
fn what_is_not_there_is_said_to_be_not_there() {
    let mut ledger = four();
    let project = |name: &str| RequestLease {
        project: Some(ProjectId::new(name).unwrap()),
        ..ask_for("a", 1)
    };
    let denied = ledger.lease(&project("p"), START).unwrap_err();
    assert_eq!(denied.rule, Rule::UnknownProject);
    ledger.lease(&project("a"), START).unwrap();
    ledger
        .put(put(bought("a", "nvidia.com/mig-1c10g"), 1))
        .unwrap();
    let slices = RequestLease {
        gpu_model: model("1g.10gb"),
        quota_type: Some(gpuquota_core::quota::QuotaType::Mig),
        ..ask_for("a", 1)
    };
    assert_eq!(reasons(&mut ledger, &slices, START), [Rule::NoSlice]);
    ledger.say("n0", 2, Vec::new(), at(1));
    assert_eq!(
        reasons(&mut ledger, &ask_for("a", 1), at(2)),
        [Rule::UnknownModel]
    );
    let release = Command::ReleaseLease {
        lease: LeaseId(99),
        forced: false,
        expected: None,
    };
    assert_eq!(
        said(&ledger.ask(&release, at(2), None)),
        Err("unknown".into())
    );
}

#[test]
fn two_on_one_node_are_not_found_on_two() {
    let mut ledger = with_nodes(&["n0", "n1"]);
    ledger.put(put(bought("a", GPU), 4)).unwrap();
    ledger.say("n0", 1, free(0, 1), START);
    ledger.say("n1", 1, free(1, 2), START);
    let one_node = RequestLease {
        most_nodes: Some(1),
        ..ask_for("a", 2)
    };
    assert_eq!(reasons(&mut ledger, &one_node, START), [Rule::TooFewNodes]);
    ledger.lease(&ask_for("a", 2), START).unwrap();
}

#[test]
fn who_has_too_many_hosts_already_may_change_what_adds_none() {
    let mut ledger = with_nodes(&["n0", "n1"]);
    ledger.put(on(put(bought("a", GPU), 1), &["n0"])).unwrap();
    ledger.say("n0", 1, free(0, 1), START);
    ledger.say("n1", 1, free(1, 2), START);
    let resource = HostResourceName::new("c4").unwrap();
    let hosts = |groups: &[&str]| {
        Command::SetHostResource(HostResource {
            resource: resource.clone(),
            groups: groups
                .iter()
                .map(|it| GroupName::new(it).unwrap())
                .collect(),
        })
    };
    ledger.ask(&hosts(&[]), START, None);
    let key = HostLimitKey {
        tenant: tenant("a"),
        resource: resource.clone(),
    };
    let limit = Command::SetHostLimit(key, Some(Limit::Finite(0)));
    assert!(matches!(
        ledger.ask(&limit, START, None),
        Answer::Granted(_)
    ));
    ledger.ask(&hosts(&["H100"]), START, None);
    assert_eq!(ledger.put(on(put(bought("a", GPU), 2), &["n0"])), quota(0));
    let more = on(put(bought("a", GPU), 2), &["n0", "n1"]);
    assert_eq!(ledger.put(more), Err("host_limit".into()));
    assert!(ledger.state.bound_tenant(&node("n1")).is_none());
}

#[test]
fn a_dedicated_quota_does_not_leave_a_node_where_its_devices_are_leased() {
    let mut ledger = with_nodes(&["n0", "n1"]);
    ledger.say("n0", 1, free(0, 1), START);
    ledger.put(on(put(bought("a", GPU), 1), &["n0"])).unwrap();
    let dedicated = RequestLease {
        quota_type: Some(gpuquota_core::quota::QuotaType::Dedicated),
        ..ask_for("a", 1)
    };
    ledger.lease(&dedicated, START).unwrap();
    let moved = on(put(bought("a", GPU), 2), &["n1"]);
    assert_eq!(ledger.put(moved), Err("below_use by 1".into()));
    let wider = on(put(bought("a", GPU), 2), &["n0", "n1"]);
    assert_eq!(ledger.put(wider), quota(0));
}

#[test]
fn a_number_covers_what_a_dedicated_quota_leaves_to_the_others() {
    let mut ledger = with_nodes(&["n0", "n1"]);
    ledger.put(put(bought("a", GPU), 2)).unwrap();
    ledger.put(on(put(bought("a", GPU), 1), &["n0"])).unwrap();
    ledger.report("n0", 1, gpus(1, "a")).unwrap();
    ledger.lease(&number_for("a", 2), START).unwrap();
    assert_eq!(ledger.used("a"), [2, 1]);
    // Judged by the quotas as they would be: the device is one of the two then.
    assert_eq!(ledger.put(on(put(bought("a", GPU), 1), &["n1"])), quota(1));
    assert_eq!(ledger.used("a"), [2, 0]);
}
