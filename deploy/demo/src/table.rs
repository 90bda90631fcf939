//! The table: tenants by what they use of what they may, and nodes by who holds what. Pure text.

use crate::world::{Device, Node, Quota, World};

const MOST_BLOCKS: f64 = 8.0;
const BLOCKS_WIDTH: usize = 10;
// Left out of the table, which has to fit a terminal.
const VENDOR: &str = "nvidia.com/";

/// A line's pieces, each with the way it is shown.
pub(crate) type Line = Vec<(Look, String)>;

/// How a piece of text is shown on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// As it is.
    Plain,
    /// Headings.
    Bold,
    /// What matters less.
    Dim,
    /// What is fine.
    Good,
    /// What is not.
    Bad,
}

/// The whole table.
pub(crate) fn lines(world: &World) -> Vec<Line> {
    let mut lines = vec![row(
        Look::Bold,
        [
            "TENANT",
            "REGION",
            "SOURCE",
            "TYPE",
            "MODEL",
            "USED/LIMIT",
            &format!("{:BLOCKS_WIDTH$}VIOLATIONS", ""),
        ],
    )];
    let mut shown = Vec::new();
    for (at, quota) in world.quotas.iter().enumerate() {
        let tenant = quota.key.tenant.as_str();
        lines.push(quota_line(world, quota, owns_violations(world, at)));
        shown.push(tenant);
    }
    for violation in &world.violations {
        let tenant = violation.tenant.as_str();
        if !shown.contains(&tenant) {
            shown.push(tenant);
            let no_blocks = " ".repeat(BLOCKS_WIDTH);
            let whose = if tenant.is_empty() {
                "(nobody)"
            } else {
                tenant
            };
            let cells = [whose, "-", "-", "no quota", "-", "", &no_blocks];
            let mut line = row(Look::Plain, cells);
            line.push((Look::Bad, violations(world, tenant)));
            lines.push(line);
        }
    }
    lines.push(Vec::new());
    lines.push(vec![(
        Look::Bold,
        format!(
            "{:<14} {:<7} {:<9} DEVICES: . free, else the first letter of who holds it; ! lost or hung",
            "NODE", "REGION", "STATE"
        ),
    )]);
    lines.extend(world.nodes.iter().map(node_line));
    lines
}

/// One line without looks, for plain output: a quota and its figures.
pub(crate) fn summary(quota: &Quota) -> String {
    let key = &quota.key;
    format!(
        "{} {} {} {} {}: {}",
        key.tenant,
        key.region,
        key.source,
        key.quota_type,
        key.gpu_model,
        figures(quota)
    )
}

/// All violations of a tenant in words, empty when there are none.
pub(crate) fn violations(world: &World, tenant: &str) -> String {
    let of_tenant = world.violations.iter().filter(|v| v.tenant == tenant);
    let words = of_tenant.map(|v| match v.devices {
        1.0 => format!("{} on {}", v.class, v.node),
        devices => format!("{} on {} x{devices}", v.class, v.node),
    });
    words.collect::<Vec<_>>().join(", ")
}

// Violations are a tenant's, not a quota's: they stand at the quota that is over, else at the first one in use.
fn owns_violations(world: &World, at: usize) -> bool {
    let Some(quota) = world.quotas.get(at) else {
        return false;
    };
    let of_tenant = || {
        let quotas = world.quotas.iter().enumerate();
        quotas.filter(|(_, other)| other.key.tenant == quota.key.tenant)
    };
    let over = of_tenant().find(|(_, other)| other.used > other.limit);
    let in_use = over.or_else(|| of_tenant().find(|(_, other)| other.used > 0.0));
    let first = in_use.or_else(|| of_tenant().next());
    first.is_some_and(|(first, _)| first == at)
}

fn quota_line(world: &World, quota: &Quota, with_violations: bool) -> Line {
    let key = &quota.key;
    let look = if quota.active { Look::Plain } else { Look::Dim };
    let mut line = row(
        look,
        [
            &key.tenant,
            &key.region,
            &key.source,
            &key.quota_type,
            key.gpu_model.strip_prefix(VENDOR).unwrap_or(&key.gpu_model),
            &figures(quota),
            "",
        ],
    );
    let (within, over, free) = blocks(quota);
    let gap = BLOCKS_WIDTH.saturating_sub(within.len() + over.len() + free.len());
    line.push((Look::Good, "#".repeat(within.len())));
    line.push((Look::Bad, "!".repeat(over.len())));
    line.push((Look::Dim, format!("{free}{}", " ".repeat(gap))));
    if with_violations {
        line.push((Look::Bad, violations(world, &key.tenant)));
    }
    line
}

fn figures(quota: &Quota) -> String {
    let limit = if quota.limit.is_infinite() {
        "unlimited".to_owned()
    } else {
        quota.limit.to_string()
    };
    let ended = if quota.active { "" } else { " ended" };
    format!("{}/{limit}{ended}", quota.used)
}

// One sign a device: within the limit, over it, free.
fn blocks(quota: &Quota) -> (String, String, String) {
    let (mut within, mut over, mut free) = (String::new(), String::new(), String::new());
    let most = quota.used.max(quota.limit).min(MOST_BLOCKS);
    let mut device = 1.0;
    while device <= most {
        if device > quota.used {
            free.push('.');
        } else if device > quota.limit {
            over.push('!');
        } else {
            within.push('#');
        }
        device += 1.0;
    }
    (within, over, free)
}

fn row(look: Look, cells: [&str; 7]) -> Line {
    let [tenant, region, source, quota_type, model, figures, last] = cells;
    let text = format!(
        "{tenant:<18} {region:<6} {source:<8} {quota_type:<9} {model:<11} {figures:<11}{last}"
    );
    vec![(look, text)]
}

fn node_line(node: &Node) -> Line {
    let look = match node.state.as_str() {
        "up" => Look::Good,
        "silent" => Look::Bad,
        _ => Look::Dim,
    };
    let mut devices = String::new();
    for device in &node.devices {
        devices.push(holder(device));
        if !device.answers {
            devices.push('!');
        }
        if let Some(profile) = profile_of(device) {
            // Compute slices say enough: 3g of 3g.40gb.
            let slices = profile.split('.').next().unwrap_or(profile);
            devices.push_str(&format!(":{slices}"));
        }
        devices.push(' ');
    }
    if let Some(tenant) = &node.bound_tenant {
        devices.push_str(&format!("  dedicated to {tenant}"));
    }
    vec![
        (
            Look::Plain,
            format!("{:<14} {:<7} ", node.name, node.region),
        ),
        (look, format!("{:<9} ", node.state)),
        (Look::Plain, devices.trim_end().to_owned()),
    ]
}

fn profile_of(device: &Device) -> Option<&str> {
    let model = device.gpu_model.strip_prefix(VENDOR);
    model.and_then(|model| model.strip_prefix("mig-"))
}

fn holder(device: &Device) -> char {
    match (device.tenants.as_slice(), device.unattributed) {
        ([], false) => '.',
        ([], true) => '?',
        ([tenant], false) => tenant
            .chars()
            .next()
            .map_or('.', |first| first.to_ascii_uppercase()),
        _ => '+',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::Scrape;
    use serde_json::{Value, json};

    fn world(metrics: &str) -> World {
        let nodes = json!({"nodes": [{"name": "gpu02", "region": "US", "state": "silent", "bound_tenant": "z",
            "devices": [{"gpu_model": "nvidia.com/gpu", "tenants": ["zed"], "health": "lost"},
                {"gpu_model": "nvidia.com/mig-1g.10gb", "tenants": [], "health": "ok"},
                {"gpu_model": "nvidia.com/gpu", "tenants": ["a", "b"], "health": "ok"}]}]});
        World::new(
            Value::Null,
            &nodes,
            Scrape::parse(metrics),
            Default::default(),
        )
    }

    fn text(lines: &[Line]) -> Vec<String> {
        let line = |line: &Line| line.iter().map(|(_, text)| text.as_str()).collect();
        lines.iter().map(line).collect()
    }

    #[test]
    fn over_quota_and_squatters_are_seen() {
        let labels = |model: &str| {
            format!(
                "tenant=\"vision\",region=\"US\",source=\"purchase\",type=\"flexible\",gpu_model=\"{model}\""
            )
        };
        let (one, two) = (labels("other"), labels("nvidia.com/gpu"));
        let metrics = format!(
            "gpuquota_quota_limit{{{one}}} +Inf\ngpuquota_quota_used{{{one}}} 1\n\
             gpuquota_quota_limit{{{two}}} 2\ngpuquota_quota_used{{{two}}} 3\n\
             gpuquota_violations{{tenant=\"vision\",node=\"gpu01\",class=\"over_quota\"}} 1\n\
             gpuquota_violations{{tenant=\"intern\",node=\"gpu01\",class=\"squatter\"}} 2\n"
        );
        let world = world(&metrics);
        let lines = text(&lines(&world));
        assert!(lines[1].contains("1/unlimited#") || lines[1].contains("1/unlimited #"));
        assert!(!lines[1].contains("over_quota"), "{}", lines[1]);
        assert!(lines[2].contains("3/2") && lines[2].contains("##!"));
        assert!(lines[2].ends_with("over_quota on gpu01"), "{}", lines[2]);
        assert!(lines[3].starts_with("intern") && lines[3].ends_with("squatter on gpu01 x2"));
        let node = lines.last().unwrap();
        assert!(node.contains("silent"), "{node}");
        assert!(node.ends_with("Z! .:1g +   dedicated to z"), "{node}");
    }
}
