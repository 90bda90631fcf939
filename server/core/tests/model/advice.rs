//! What a denial says would admit a request does admit it, and no smaller change of that kind does.

use gpuquota_core::command::{OnExcess, QuotaName, RequestLease, SetQuota, SwitchQuota};
use gpuquota_core::event::SilenceReason;
use gpuquota_core::explanation::{Change, Explanation, Rule};
use gpuquota_core::id::{GroupName, QuotaId, SessionId, Timestamp};
use gpuquota_core::lease::LeasePlacement;
use gpuquota_core::limit::Limit;
use gpuquota_core::pool::{Accelerator, CardLimitKey};
use gpuquota_core::quota::{Quota, QuotaType};
use gpuquota_core::settings::Settings;
use gpuquota_core::{Answer, Command, Denied, State};

use crate::examples::{GPU, bought, put, release, until};
use crate::leases::{ask_for, at, four, free};
use crate::properties::held_gpu;
use crate::world::node;
use crate::{Ledger, START};

/// Judges the advice of a denial where it is about the one rule that spoke.
pub(crate) fn judge(state: &State, asked: &RequestLease, because: &Explanation, now: Timestamp) {
    let quota_type = asked.quota_type;
    let quota_type = quota_type.unwrap_or_else(|| state.catalogue().implied_type(&asked.gpu_model));
    let numbered = asked.placement == LeasePlacement::CountOnly;
    filled(because);
    assert_eq!(because.asked, Some(asked.count.into()), "{because:?}");
    if let Some(Change::WaitUntil { at }) = because.admit {
        waits(state, asked, because, now, at);
        return;
    }
    // Dedicated quotas need not be about the same nodes, so their room is no single number.
    if quota_type == QuotaType::Dedicated || because.rule == Rule::OverQuota && !numbered {
        return;
    }
    if because.rule == Rule::NoDevice && because.because.is_empty() {
        // Nothing stands in the way: there are no more.
        let model = state.catalogue().canonical(&asked.gpu_model);
        let all = state.devices().filter(|(_, device)| {
            let region = state.node(&device.node).map(|node| &node.region);
            region == Some(&asked.region) && device.canonical == model && !device.report.partitioned
        });
        let count = all.count() as u64;
        assert_eq!(because.admit, Some(Change::AskFor { count }), "{because:?}");
    }
    let admits = |state: &State, count: u64| {
        let count = u32::try_from(count).unwrap();
        let request = RequestLease {
            count,
            ..asked.clone()
        };
        let decided = state.decide(&Command::RequestLease(request), now);
        decided.is_ok()
    };
    match &because.admit {
        Some(Change::AskFor { count }) => {
            assert!(*count < asked.count.into(), "{because:?}");
            assert!(admits(state, *count), "{because:?}");
            assert!(!admits(state, count + 1), "{because:?}");
        }
        Some(Change::RaiseLimit {
            quota: Some(quota),
            limit,
        }) if because.rule == Rule::OverQuota => {
            let quota = state.quota(*quota).unwrap();
            let raised = |limit: u64| with(state, quota, limit, quota.expires_at, now);
            assert!(admits(&raised(*limit), asked.count.into()), "{because:?}");
            assert!(
                !admits(&raised(limit - 1), asked.count.into()),
                "{because:?}"
            );
        }
        Some(Change::ExtendQuota { quota, limit }) => {
            let quota = state.quota(*quota).unwrap();
            let extended = |limit: u64| with(state, quota, limit, None, now);
            let count = match numbered {
                true => asked.count.into(),
                false => return,
            };
            assert!(admits(&extended(*limit), count), "{because:?}");
            let enough = matches!(quota.limit, Limit::Finite(has) if u64::from(has) >= *limit);
            assert!(
                enough || !admits(&extended(limit - 1), count),
                "{because:?}"
            );
        }
        Some(Change::ActivateQuota { quota, limit }) if numbered => {
            let quota = state.quota(*quota).unwrap();
            let active = |limit: u64| {
                let mut after = Ledger::of(with(state, quota, limit, quota.expires_at, now));
                let switch = Command::SwitchQuota(SwitchQuota {
                    quota: quota.id,
                    active: true,
                    on_excess: OnExcess::Drain,
                });
                let answer = after.ask(&switch, now, None);
                assert!(matches!(answer, Answer::Granted(_)), "{answer:?}");
                after.state
            };
            assert!(admits(&active(*limit), asked.count.into()), "{because:?}");
            let enough = matches!(quota.limit, Limit::Finite(has) if u64::from(has) >= *limit);
            assert!(
                enough || !admits(&active(limit - 1), asked.count.into()),
                "{because:?}"
            );
        }
        _ => {}
    }
}

// Wherever the tenant is known, so is what it may have and has.
fn filled(because: &Explanation) {
    let figures = because.limit.is_some()
        && because.used.is_some()
        && because.leased.is_some()
        && because.observed.is_some();
    assert!(
        figures || because.rule == Rule::UnknownTenant,
        "{because:?}"
    );
    let held = because.used.is_some_and(|used| used > 0);
    assert_eq!(held, !because.own.is_empty(), "{because:?}");
    assert!(because.admit.is_some(), "{because:?}");
}

/// Judges what is said of a limit that is below what is in use.
pub(crate) fn judge_limit(state: &State, set: &SetQuota, because: &Explanation, now: Timestamp) {
    assert_eq!(because.rule, Rule::BelowUse);
    let refused = |limit: Limit| {
        let set = SetQuota {
            limit,
            ..set.clone()
        };
        let decided = state.decide(&Command::SetQuota(set), now);
        matches!(decided, Err(Denied::BelowUse { .. }))
    };
    let Some(Change::SetLimit { limit, .. }) = because.admit else {
        assert!(refused(Limit::Unlimited), "{because:?}");
        return;
    };
    let least = u32::try_from(limit).unwrap();
    assert!(!refused(Limit::Finite(least)), "{because:?}");
    assert!(refused(Limit::Finite(least - 1)), "{because:?}");
}

// The ledger with another limit and end of a quota.
fn with(
    state: &State,
    quota: &Quota,
    limit: u64,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> State {
    let set = Command::SetQuota(SetQuota {
        name: QuotaName {
            tenant: quota.key.tenant.clone(),
            region: quota.key.region.clone(),
            source: quota.key.source,
            gpu_model: quota.key.gpu_model.clone(),
            quota_type: Some(quota.key.quota_type),
            reference: quota.reference,
        },
        limit: Limit::Finite(u32::try_from(limit).unwrap()),
        expires_at,
        on_excess: OnExcess::Drain,
        nodes: None,
    });
    let mut after = Ledger::of(state.clone());
    let answer = after.ask(&set, now, None);
    assert!(matches!(answer, Answer::Granted(_)), "{answer:?}");
    after.state
}

// Nobody does anything and time passes: from then on the rule that spoke has room, and not a moment sooner.
fn waits(
    state: &State,
    asked: &RequestLease,
    because: &Explanation,
    now: Timestamp,
    at: Timestamp,
) {
    assert!(at > now, "{because:?}");
    // What the quotas have room for does not say that there are devices.
    let request = RequestLease {
        placement: match because.rule {
            Rule::OverQuota => LeasePlacement::CountOnly,
            _ => asked.placement,
        },
        ..asked.clone()
    };
    let mut later = Ledger::of(state.clone());
    let mut pass = |until: Timestamp| {
        while let Some(due) = later.state.next_due().filter(|due| *due <= until) {
            later.sweep(due.max(later.state.at()));
        }
        let decided = later
            .state
            .decide(&Command::RequestLease(request.clone()), until);
        decided.is_ok()
    };
    // Other tenants' ends may give devices sooner than this looks for.
    let sooner = pass(Timestamp(at.0 - 1));
    assert!(
        !sooner || because.rule == Rule::NoDevice,
        "sooner than {because:?}"
    );
    assert!(pass(at), "{because:?}");
}

#[test]
fn waiting_is_advised_only_for_ends_that_suffice() {
    let mut ledger = four();
    ledger.put(put(bought("b", GPU), 4)).unwrap();
    let lasting = |count, ttl_ms| RequestLease {
        ttl_ms,
        ..ask_for("a", count)
    };
    ledger.lease(&lasting(3, None), START).unwrap();
    ledger.lease(&lasting(1, Some(10)), START).unwrap();
    let wait = i64::try_from(Settings::default().confirm_within_ms).unwrap();
    let freed = Some(Change::WaitUntil { at: at(10 + wait) });
    let admits = |ledger: &mut Ledger, who: &str, count| {
        ledger.lease(&ask_for(who, count), at(1)).unwrap_err().admit
    };
    assert_eq!(admits(&mut ledger, "a", 1), freed);
    let raise = Change::RaiseLimit {
        quota: Some(QuotaId(0)),
        limit: 6,
    };
    assert_eq!(admits(&mut ledger, "a", 2), Some(raise));
    assert_eq!(admits(&mut ledger, "b", 1), freed);
    assert_eq!(admits(&mut ledger, "b", 2), Some(Change::AskOperator));
    // What runs there stays when the lease ends.
    ledger.say("n0", 2, vec![held_gpu("GPU-3", &["a"])], at(2));
    assert_eq!(admits(&mut ledger, "b", 1), Some(Change::AskOperator));
    ledger.say("n0", 3, free(0, 4), at(3));
    let silent = Command::MarkSilent {
        node: node("n0"),
        session: SessionId(1),
        reason: SilenceReason::Timeout,
    };
    ledger.ask(&silent, at(4), None);
    let unheard = ledger.lease(&ask_for("b", 1), at(5)).unwrap_err();
    assert_eq!(
        (unheard.admit, unheard.soonest),
        (Some(Change::AskOperator), None)
    );
}

#[test]
fn a_quota_that_ended_is_to_last_longer_not_only_to_be_larger() {
    let mut ledger = four();
    ledger.put(until(put(bought("a", GPU), 4), 5)).unwrap();
    let denied = ledger.lease(&ask_for("a", 2), at(6)).unwrap_err();
    let quota = QuotaId(0);
    let extend = Some(Change::ExtendQuota { quota, limit: 4 });
    assert_eq!(denied.because[0].admit, extend);
    assert_eq!(denied.admit, extend);
}

#[test]
fn a_limit_below_use_and_a_release_in_use_say_by_what() {
    let mut ledger = four();
    let lease = ledger.lease(&ask_for("a", 3), START).unwrap();
    let set = Command::SetQuota(put(bought("a", GPU), 1));
    let Answer::Denied(Denied::BelowUse {
        because: Some(because),
        ..
    }) = ledger.ask(&set, at(1), None)
    else {
        panic!("a limit below what is leased is refused");
    };
    let least = Change::SetLimit {
        quota: QuotaId(0),
        limit: 3,
    };
    assert_eq!(because.admit, Some(least));
    let figures = (
        because.limit,
        because.used,
        because.leased,
        because.observed,
    );
    assert_eq!(figures, (Some(Limit::Finite(4)), Some(3), Some(3), Some(0)));
    assert!(because.own.iter().all(|own| own.lease == Some(lease.id)));
    let release = Command::ReleaseQuota(release(bought("a", GPU), false, true));
    let Answer::Denied(Denied::InUse {
        because: Some(because),
        ..
    }) = ledger.ask(&release, at(2), None)
    else {
        panic!("what is in use is not released");
    };
    assert_eq!(because.admit, Some(Change::GiveBack { count: 3 }));
    assert_eq!((because.used, because.own.len()), (Some(3), 3));
}

#[test]
fn a_bound_of_cards_on_a_node_is_told_with_its_figures() {
    let mut ledger = four();
    ledger.lease(&ask_for("a", 1), START).unwrap();
    let key = CardLimitKey {
        group: GroupName::new("H100").unwrap(),
        tenant: None,
        accelerator: Accelerator::Gpu,
    };
    let bound = ledger.ask(&Command::SetCardLimit(key, Some(2)), at(1), None);
    assert!(matches!(bound, Answer::Granted(_)), "{bound:?}");
    let denied = ledger.lease(&ask_for("a", 3), at(2)).unwrap_err();
    let one = Some(Change::AskFor { count: 1 });
    assert_eq!((&denied.admit, denied.others), (&one, Some(0)));
    let limit = denied.because.iter().find(|it| it.rule == Rule::NodeLimit);
    let limit = limit.unwrap();
    assert_eq!(limit.admit, one);
    let on_node = &limit.because[0];
    assert_eq!(
        (on_node.limit, on_node.used, on_node.nodes.as_slice()),
        (Some(Limit::Finite(2)), Some(1), [node("n0")].as_slice())
    );
    assert_eq!(on_node.admit, one);
    assert!(
        denied
            .redacted()
            .because
            .iter()
            .all(|it| it.because.iter().all(|it| it.nodes.is_empty()))
    );
}
