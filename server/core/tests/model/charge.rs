//! What a tenant uses, told as naively as possible: device by device, each time looking at every quota.

use std::cmp::Ordering;

use gpuquota_core::device::DeviceKey;
use gpuquota_core::id::{GpuModel, QuotaId, TenantName, Timestamp};
use gpuquota_core::limit::Limit;
use gpuquota_core::quota::{QuotaSource, QuotaType};

use crate::reference::{Charged, Entitled, Held, Naive};

impl Naive {
    pub(crate) fn charge(&self, tenant: &TenantName, now: Timestamp) -> Charged {
        let mine: Vec<&Entitled> = self.quotas.iter().filter(|q| q.tenant == *tenant).collect();
        let mut charged = Charged::default();
        for quota in &mine {
            charged.used.insert(quota.id, 0);
        }
        let mut waiting: Vec<&Held> = self.devices.iter().collect();
        waiting.retain(|d| d.since.contains_key(tenant) && !d.report.partitioned);
        waiting.sort_by(|a, b| a.report.key.cmp(&b.report.key));
        waiting.sort_by_key(|d| d.since[tenant]);
        for device in waiting {
            let mut violate = |class| {
                let key = device.report.key.clone();
                charged.violations.insert((class, device.node.clone(), key));
            };
            if self.bound(&device.node, now).is_some_and(|t| t != tenant) {
                violate("foreign");
            }
            let fitting = self.fitting(&mine, device, now);
            if fitting.is_empty() {
                violate("squatter");
                charged.excess += 1;
                continue;
            }
            let (mut best, mut last): (Option<&Entitled>, Option<&Entitled>) = (None, None);
            for quota in &fitting {
                let free = !quota.over(now) && room(quota.limit, charged.used[&quota.id]);
                if free && best.is_none_or(|b| filled(quota, b) == Ordering::Less) {
                    best = Some(quota);
                }
                let later = |l: &Entitled| match (quota.over(now), l.over(now)) {
                    (false, true) => true,
                    (true, false) => false,
                    _ => filled(quota, l) == Ordering::Greater,
                };
                if last.is_none_or(later) {
                    last = Some(quota);
                }
            }
            if best.is_none() {
                violate("over_quota");
                charged.excess += 1;
            }
            if let Some(quota) = best.or(last) {
                add_one(&mut charged, quota.id);
            }
        }
        charged
    }

    fn fitting<'a>(
        &self,
        mine: &[&'a Entitled],
        device: &Held,
        now: Timestamp,
    ) -> Vec<&'a Entitled> {
        let host = self.hosts.iter().find(|h| h.name == device.node);
        let wanted = match device.report.key {
            DeviceKey::Gpu(_) => QuotaType::Flexible,
            DeviceKey::Mig { .. } => QuotaType::Mig,
            DeviceKey::Vgpu(_) => QuotaType::Vgpu,
        };
        let (mut bound, mut ended, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        for quota in mine {
            if meaning(&quota.model) != meaning(&device.report.gpu_model) {
                continue;
            }
            if quota.quota_type == QuotaType::Dedicated {
                match (quota.nodes.contains(&device.node), quota.over(now)) {
                    (true, false) => bound.push(*quota),
                    (true, true) => ended.push(*quota),
                    (false, _) => {}
                }
            } else if quota.quota_type == wanted && host.is_some_and(|h| h.region == quota.region) {
                plain.push(*quota);
            }
        }
        if !bound.is_empty() {
            bound.extend(ended);
            return bound;
        }
        if plain.is_empty() { ended } else { plain }
    }
}

fn add_one(charged: &mut Charged, quota: QuotaId) {
    *charged.used.entry(quota).or_default() += 1;
}

fn room(limit: Limit, used: u64) -> bool {
    match limit {
        Limit::Unlimited => true,
        Limit::Finite(limit) => used < u64::from(limit),
    }
}

// Purchase first, then the sooner end, no end last, then the older quota.
fn filled(a: &Entitled, b: &Entitled) -> Ordering {
    match (a.source, b.source) {
        (QuotaSource::Purchase, QuotaSource::Assign) => return Ordering::Less,
        (QuotaSource::Assign, QuotaSource::Purchase) => return Ordering::Greater,
        _ => {}
    }
    match (a.end, b.end) {
        (Some(_), None) => return Ordering::Less,
        (None, Some(_)) => return Ordering::Greater,
        (Some(x), Some(y)) if x != y => return x.cmp(&y),
        _ => {}
    }
    a.id.cmp(&b.id)
}

// The spellings that the histories use.
fn meaning(model: &GpuModel) -> &str {
    match model.as_str() {
        "nvidia.com/mig-1g.10gb" | "nvidia.com/mig-1c10g" | "1g.10gb" => "1g.10gb",
        "nvidia.com/mig-1g.10gb.me" | "1g.10gb+me" => "1g.10gb+me",
        other => other,
    }
}
