//! What a denial says would admit a request does admit it, and no smaller change of that kind does.

use gpuquota_core::command::{OnExcess, QuotaName, RequestLease, SetQuota};
use gpuquota_core::event::Record;
use gpuquota_core::explanation::{Change, Explanation, Rule};
use gpuquota_core::id::Timestamp;
use gpuquota_core::lease::LeasePlacement;
use gpuquota_core::limit::Limit;
use gpuquota_core::quota::QuotaType;
use gpuquota_core::{Command, State};

/// Judges the advice of a denial where it is about the one rule that spoke.
pub(crate) fn judge(state: &State, asked: &RequestLease, because: &Explanation, now: Timestamp) {
    let quota_type = asked.quota_type;
    let quota_type = quota_type.unwrap_or_else(|| state.catalogue().implied_type(&asked.gpu_model));
    let numbered = asked.placement == LeasePlacement::CountOnly;
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
            let raised = |limit: u64| {
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
                    expires_at: quota.expires_at,
                    on_excess: OnExcess::Deny,
                    nodes: None,
                });
                let record = Record {
                    actor: "server".into(),
                    request_id: None,
                    from: None,
                    reason: None,
                    replay: None,
                    events: state.decide(&set, now).unwrap().events,
                };
                let mut after = state.clone();
                after.apply(state.seq().next(), now, None, &record);
                after
            };
            assert!(admits(&raised(*limit), asked.count.into()), "{because:?}");
            assert!(
                !admits(&raised(limit - 1), asked.count.into()),
                "{because:?}"
            );
        }
        Some(Change::WaitUntil { at }) => assert!(*at > now, "{because:?}"),
        _ => {}
    }
}
