//! A denial as lines for the person at the node who asked: why, what of the tenant's own stands against it, and what would admit it.

use gpuquota_core::Denied;
use gpuquota_core::explanation::{Change, Explanation, Holding};

use crate::rest::time;

/// Holdings of one reason that are named.
const NAMED: usize = 8;

/// The lines, the shortest answer first. Whoever asked is no administrator, so nobody else is named.
pub(super) fn lines(denied: &Denied) -> String {
    let mut lines = vec![denied.to_string()];
    if let Some(because) = denied.because() {
        told(&because.redacted(), 1, &mut lines);
    }
    lines.join("\n")
}

fn told(why: &Explanation, depth: usize, lines: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    if !lines.iter().any(|line| line.trim() == why.text) {
        lines.push(format!("{indent}{}", why.text));
    }
    for holding in why.own.iter().take(NAMED) {
        lines.push(format!("{indent}  held: {}", held(holding)));
    }
    if why.own.len() > NAMED {
        lines.push(format!("{indent}  and {} more", why.own.len() - NAMED));
    }
    if let Some(change) = &why.admit {
        lines.push(format!(
            "{indent}  what would admit it: {}",
            admitted(change)
        ));
    }
    for below in &why.because {
        told(below, depth + 1, lines);
    }
}

fn held(holding: &Holding) -> String {
    let mut parts = vec![match &holding.device {
        Some(device) => device.to_string(),
        None => format!("{} devices", holding.count),
    }];
    if let Some(lease) = holding.lease {
        parts.push(format!("lease {}", lease.0));
    }
    if let Some(until) = holding.until {
        parts.push(format!("until {}", time::format(until)));
    }
    parts.join(", ")
}

fn admitted(change: &Change) -> String {
    match change {
        Change::AskFor { count } => format!("ask for {count}"),
        Change::RaiseLimit {
            quota: Some(quota),
            limit,
        } => format!("the operator raises quota {} to {limit}", quota.0),
        Change::RaiseLimit { quota: None, limit } => {
            format!("the operator gives a quota of {limit}")
        }
        Change::SetLimit { quota, limit } => {
            format!("a limit of {limit} or more for quota {}", quota.0)
        }
        Change::ExtendQuota { quota, limit } => {
            format!(
                "the operator lets quota {} end later, with {limit} or more",
                quota.0
            )
        }
        Change::ActivateQuota { quota, limit } => {
            format!(
                "the operator puts quota {} back in force, with {limit} or more",
                quota.0
            )
        }
        Change::SetHostLimit { resource, limit } => {
            format!("a limit of {limit} or more hosts of {resource}")
        }
        Change::SetLicences { max, .. } => format!("a licence quota of {max} or more"),
        Change::WaitUntil { at } => format!("wait until {} (--wait)", time::format(*at)),
        Change::GiveBack { count } => format!("give back {count} of your own"),
        Change::LeaseElsewhere { count } => format!("a new lease of {count}"),
        Change::AskOperator => "only the operator can".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpuquota_core::explanation::Rule;
    use gpuquota_core::id::{LeaseId, NodeName, QuotaId, TenantName, Timestamp};

    #[test]
    fn a_person_reads_why_what_is_their_own_and_what_to_do_and_nobody_elses_name() {
        let own = Holding {
            device: Some(gpuquota_core::device::DeviceKey::gpu("GPU-1").unwrap()),
            node: None,
            lease: Some(LeaseId(3)),
            seat: None,
            count: 1,
            since: None,
            until: Some(Timestamp(0)),
        };
        let why = Explanation {
            own: vec![own; NAMED + 2],
            tenants: vec![TenantName::new("secret").unwrap()],
            nodes: vec![NodeName::new("hidden").unwrap()],
            because: vec![Explanation {
                admit: Some(Change::RaiseLimit {
                    quota: Some(QuotaId(4)),
                    limit: 9,
                }),
                ..Explanation::new(Rule::InUse, "8 of 8 are used")
            }],
            ..Explanation::new(Rule::InUse, "no room")
        };
        let mut lines = vec!["no room".to_owned()];
        told(&why.redacted(), 1, &mut lines);
        let text = lines.join("\n");
        let expected = [
            "no room",
            "    held: GPU-1, lease 3, until 1970-01-01T00:00:00Z",
        ];
        assert!(text.starts_with(&expected.join("\n")), "{text}");
        assert!(text.ends_with(
            "    and 2 more\n    8 of 8 are used\n      what would admit it: the operator raises quota 4 to 9"
        ), "{text}");
        assert!(!text.contains("secret") && !text.contains("hidden"));
    }
}
