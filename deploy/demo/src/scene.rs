//! What a story is made of: acts, and what must then be seen.

use serde_json::Value;

use crate::world::{QuotaKey, World};

/// A device of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Which node.
    pub(crate) node: &'static str,
    /// Index of the GPU.
    pub(crate) gpu: u32,
    /// GPU instance and compute instance.
    pub(crate) instance: Option<(u32, u32)>,
    /// Framebuffer that the process takes.
    pub(crate) memory_mib: u32,
}

/// What happens.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// A process starts on a device.
    Start {
        /// Its name in the story.
        job: &'static str,
        /// Whose it is; `None`: nobody registered it.
        tenant: Option<&'static str>,
        /// Where.
        place: Place,
    },
    /// It ends.
    End {
        /// Its name in the story.
        job: &'static str,
    },
    /// An administrator sets a quota.
    Put {
        /// Whose.
        tenant: &'static str,
        /// The request's body.
        body: Value,
        /// The status it must be answered with.
        status: u16,
    },
    /// SIGKILL to an agent.
    KillAgent {
        /// Of which node.
        node: &'static str,
    },
    /// It starts again.
    RestartAgent {
        /// Of which node.
        node: &'static str,
    },
    /// A GPU falls off the bus.
    Lose {
        /// Of which node.
        node: &'static str,
        /// Which.
        gpu: &'static str,
    },
    /// It is back.
    Restore {
        /// Of which node.
        node: &'static str,
        /// Which.
        gpu: &'static str,
    },
    /// SIGKILL to the server, and it starts again.
    CrashServer,
}

/// What must then be seen.
#[derive(Clone, Debug)]
pub(crate) enum Expect {
    /// A quota's use and limit, in REST and the server's metrics.
    Quota {
        /// Which.
        key: QuotaKey,
        /// Devices.
        used: u32,
        /// Of so many.
        limit: u32,
    },
    /// Devices that an agent sees a tenant hold, in the agent's metrics.
    Held {
        /// Whose agent.
        node: &'static str,
        /// By whom.
        tenant: &'static str,
        /// In the agent's spelling.
        gpu_model: &'static str,
        /// How many.
        devices: u32,
    },
    /// Processes of a tenant on GPUs, in the agent's metrics; the tenant "" is nobody.
    Processes {
        /// Whose agent.
        node: &'static str,
        /// Of whom.
        tenant: &'static str,
        /// How many.
        count: u32,
    },
    /// All violations there are: tenant, node, class, devices.
    Violations(&'static [(&'static str, &'static str, &'static str, u32)]),
    /// Devices held by processes that nobody registered, in the server's metrics.
    Unattributed {
        /// Where.
        node: &'static str,
        /// How many.
        devices: u32,
    },
    /// A node's state.
    Node {
        /// Which.
        node: &'static str,
        /// expected, up or silent.
        state: &'static str,
    },
    /// GPUs of a node by state, in the agent's metrics.
    Gpus {
        /// Whose agent.
        node: &'static str,
        /// ok, lost, hung or unknown.
        state: &'static str,
        /// How many.
        count: u32,
    },
    /// Every agent that runs has a session with the server.
    Sessions,
}

/// One turn of a story.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// What happens, for people.
    pub(crate) title: &'static str,
    /// What is done.
    pub(crate) acts: Vec<Act>,
    /// What must then be seen.
    pub(crate) expects: Vec<Expect>,
}

impl Expect {
    /// What was expected and what is seen instead, when it is not seen.
    pub(crate) fn unmet(&self, world: &World) -> Option<String> {
        match self {
            Self::Quota { key, used, limit } => quota_unmet(world, key, *used, *limit),
            Self::Held {
                node,
                tenant,
                gpu_model,
                devices,
            } => {
                let labels = [("tenant", *tenant), ("gpu_model", *gpu_model)];
                let what = format!("gpuquota_tenant_devices of {tenant}, {gpu_model} on {node}");
                agent_unmet(
                    world,
                    node,
                    "gpuquota_tenant_devices",
                    &labels,
                    *devices,
                    &what,
                )
            }
            Self::Processes {
                node,
                tenant,
                count,
            } => {
                let source = if tenant.is_empty() {
                    "unattributed"
                } else {
                    "registered"
                };
                let labels = [("tenant", *tenant), ("source", source)];
                let what = format!("gpuquota_processes of {tenant:?} ({source}) on {node}");
                agent_unmet(world, node, "gpuquota_processes", &labels, *count, &what)
            }
            Self::Violations(expected) => {
                let mut wanted: Vec<String> = expected
                    .iter()
                    .map(|(tenant, node, class, n)| format!("{tenant} {class} on {node}: {n}"))
                    .collect();
                let mut seen: Vec<String> = world
                    .violations
                    .iter()
                    .map(|v| format!("{} {} on {}: {}", v.tenant, v.class, v.node, v.devices))
                    .collect();
                wanted.sort();
                seen.sort();
                (wanted != seen).then(|| format!("violations {wanted:?}, seen {seen:?}"))
            }
            Self::Unattributed { node, devices } => {
                let labels = [("node", *node)];
                let seen = world.server.value("gpuquota_unattributed_devices", &labels);
                let what = format!("gpuquota_unattributed_devices of {node}");
                differs(&what, *devices, seen)
            }
            Self::Node { node, state } => {
                let found = world.nodes.iter().find(|known| known.name == *node);
                let seen = found.map_or("nothing", |found| found.state.as_str());
                (seen != *state).then(|| format!("{node} is {state}, seen {seen}"))
            }
            Self::Gpus { node, state, count } => {
                let labels = [("state", *state)];
                let what = format!("gpuquota_gpus that are {state} on {node}");
                agent_unmet(world, node, "gpuquota_gpus", &labels, *count, &what)
            }
            Self::Sessions => {
                let running = u32::try_from(world.agents.len()).unwrap_or(u32::MAX);
                let seen = world.server.value("gpuquota_agent_sessions", &[]);
                differs("gpuquota_agent_sessions", running, seen)
            }
        }
    }
}

fn quota_unmet(world: &World, key: &QuotaKey, used: u32, limit: u32) -> Option<String> {
    let QuotaKey {
        tenant,
        region,
        source,
        quota_type,
        gpu_model,
    } = key;
    let name = format!("{tenant} {region} {source} {quota_type} {gpu_model}");
    let listed = world.listed(key);
    if listed != Some((used.into(), limit.into())) {
        return Some(format!(
            "{name}: {used} of {limit} in REST, seen {}",
            listed.map_or("nothing".to_owned(), |(used, total)| format!(
                "{used} of {total}"
            ))
        ));
    }
    let quota = world.quota(key);
    let figures = [
        ("gpuquota_quota_used", used, quota.map(|q| q.used)),
        ("gpuquota_quota_observed", used, quota.map(|q| q.observed)),
        ("gpuquota_quota_limit", limit, quota.map(|q| q.limit)),
    ];
    let unmet = |(metric, wanted, seen)| differs(&format!("{metric} of {name}"), wanted, seen);
    figures.into_iter().find_map(unmet)
}

fn agent_unmet(
    world: &World,
    node: &str,
    metric: &str,
    labels: &[(&str, &str)],
    wanted: u32,
    what: &str,
) -> Option<String> {
    let Some(scrape) = world.agents.get(node) else {
        return Some(format!("{what}: {wanted}, but the agent does not run"));
    };
    // A row that is not there is a zero; the agent must see at all, though.
    let sees = scrape.value("gpuquota_up", &[]) == Some(1.0);
    let seen = scrape.value(metric, labels);
    differs(what, wanted, seen.or(sees.then_some(0.0)))
}

fn differs(what: &str, wanted: u32, seen: Option<f64>) -> Option<String> {
    if seen == Some(f64::from(wanted)) {
        return None;
    }
    let seen = seen.map_or("nothing".to_owned(), |seen| seen.to_string());
    Some(format!("{what}: {wanted}, seen {seen}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::Scrape;

    #[test]
    fn a_row_that_is_absent_is_zero_only_while_the_agent_sees() {
        let held = |devices| Expect::Held {
            node: "n",
            tenant: "t",
            gpu_model: "m",
            devices,
        };
        let world = |metrics: &str| World {
            agents: [("n".to_owned(), Scrape::parse(metrics))].into(),
            ..World::default()
        };
        assert!(held(0).unmet(&World::default()).is_some());
        assert!(held(0).unmet(&world("gpuquota_up 0\n")).is_some());
        assert_eq!(held(0).unmet(&world("gpuquota_up 1\n")), None);
        let one = "gpuquota_up 1\ngpuquota_tenant_devices{tenant=\"t\",gpu_model=\"m\"} 1\n";
        assert_eq!(held(1).unmet(&world(one)), None);
        assert!(
            held(2)
                .unmet(&world(one))
                .is_some_and(|text| text.ends_with(": 2, seen 1"))
        );
        let violations = Expect::Violations(&[("t", "n", "foreign", 1)]);
        assert!(violations.unmet(&world(one)).is_some());
    }
}
