//! What is held and not justified, and its opposite: what is leased and stands idle.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::State;
use gpuquota_core::device::DeviceKey;
use gpuquota_core::ghost::ghosts;
use gpuquota_core::id::{LeaseId, NodeName, Seq, TenantName, Timestamp};
use gpuquota_core::policy::{Held, NodePolicy, policy};
use gpuquota_core::step::{StepClass, StepRow};
use gpuquota_core::usage::{Violation, usage};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Role;
use crate::rest::call::{Api, Call};
use crate::rest::names;
use crate::rest::reply::Reply;
use crate::rest::status::{Kind, Problem};
use crate::rest::time;

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct Violations<'a> {
    /// By tenant, those of nobody first; of a tenant ghosts come last.
    violations: Vec<ViolationBody<'a>>,
    /// The journal's row up to which this holds.
    #[schema(value_type = u64)]
    seq: Seq,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Violation)]
struct ViolationBody<'a> {
    #[schema(value_type = names::ViolationClass)]
    class: &'static str,
    /// Who holds it, or leases it where nothing runs; null: nobody that the agent's rules know.
    #[schema(value_type = Option<names::TenantName>, required)]
    tenant: Option<&'a TenantName>,
    #[schema(value_type = names::NodeName)]
    node: NodeName,
    #[schema(value_type = names::DeviceKey)]
    device: DeviceKey,
    /// Since when it is held, or idle; null: not known.
    #[schema(value_type = Option<names::Time>, required)]
    since: Option<String>,
    /// The lease of a ghost; null of anything else.
    #[schema(value_type = Option<names::LeaseId>, required)]
    lease: Option<LeaseId>,
    /// How far the node's agent may go about it now; null of a ghost.
    #[schema(value_type = Option<names::EnforcementMode>, required)]
    mode: Option<&'static str>,
    /// Why no farther than that, where quota, tenant, region or settings say more.
    #[schema(required)]
    held: Option<String>,
    /// The newest step about it of those that the ledger keeps; null: none.
    #[schema(required)]
    last_step: Option<LastStep>,
}

#[derive(Debug, Serialize, ToSchema)]
struct LastStep {
    /// Its number in `GET /api/v1/steps`.
    id: u64,
    /// `warn`, `restrict`, `term`, `kill`, `kill_scope` or `lift`.
    rung: &'static str,
    /// `done`, `verified`, `gone`, `refused`, `failed` or `impossible`; null: not known yet.
    #[schema(required)]
    result: Option<&'static str>,
    #[schema(value_type = names::Time)]
    at: String,
}

impl LastStep {
    fn of(row: &StepRow) -> Self {
        Self {
            id: row.id.0,
            rung: row.step.rung.as_str(),
            result: row.ended.as_ref().map(|ended| ended.result.as_str()),
            at: time::format(row.at),
        }
    }
}

/// `GET /api/v1/violations`: those of tenants that the caller sees.
pub(in crate::rest) async fn list(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let committed = call.read(api).await?;
    let now = match (call.query.single("as_of")?, call.past_time()?) {
        (None, _) => api.clock.wall(),
        (Some(_), Some(time)) => time.max(committed.state.at()),
        (Some(_), None) => committed.state.at(),
    };
    let principal = call.principal.clone();
    let wanted = call.query.single("tenant")?.map(ToOwned::to_owned);
    // Every device of every tenant is looked at; no task of the runtime waits for that.
    let listed = tokio::task::spawn_blocking(move || {
        let seen = |tenant: Option<&TenantName>| match (tenant, wanted.as_deref()) {
            (Some(tenant), Some(wanted)) if tenant.as_str() != wanted => false,
            (Some(tenant), _) => principal.sees(tenant),
            (None, Some(_)) => false,
            (None, None) => principal.role == Role::Admin,
        };
        let listing = Listing {
            state: &committed.state,
            now,
            policies: BTreeMap::new(),
            steps: newest_steps(&committed.state),
        };
        Reply::ok(listing.all(seen))
    });
    listed
        .await
        .unwrap_or_else(|_| Err(Problem::new(Kind::Internal, "the list cannot be made")))
}

type About<'a> = (Option<&'a TenantName>, &'a DeviceKey);

fn newest_steps(state: &State) -> BTreeMap<About<'_>, &StepRow> {
    let rows = state.steps_after(None);
    rows.map(|row| ((row.step.tenant.as_ref(), &row.step.device), row))
        .collect()
}

struct Listing<'a> {
    state: &'a State,
    now: Timestamp,
    policies: BTreeMap<NodeName, Option<NodePolicy>>,
    steps: BTreeMap<About<'a>, &'a StepRow>,
}

impl<'a> Listing<'a> {
    fn all(mut self, seen: impl Fn(Option<&TenantName>) -> bool) -> Violations<'a> {
        let state = self.state;
        let mut rows = Vec::new();
        if seen(None) {
            let waits = state.hold(None).map(|_| Held::Person.to_string());
            for (key, device) in state.nobodys_devices() {
                let mode = self
                    .policy(&device.node)
                    .map(|it| it.unattributed.mode.as_str());
                rows.push(ViolationBody {
                    class: StepClass::Unattributed.as_str(),
                    tenant: None,
                    node: device.node.clone(),
                    device: key.clone(),
                    since: None,
                    lease: None,
                    mode,
                    held: waits.clone(),
                    last_step: self.last_step((None, key)),
                });
            }
        }
        let known = state.tenants().map(|(name, _)| name);
        let tenants: BTreeSet<&TenantName> = known.chain(state.holders()).collect();
        for tenant in tenants.into_iter().filter(|tenant| seen(Some(tenant))) {
            for violation in usage(state, tenant).violations {
                rows.push(self.held(tenant, violation));
            }
        }
        let idle = ghosts(state, self.now).filter(|it| seen(Some(&it.lease.terms.tenant)));
        rows.extend(idle.map(|ghost| ViolationBody {
            class: StepClass::Ghost.as_str(),
            tenant: Some(&ghost.lease.terms.tenant),
            node: ghost.node.clone(),
            device: ghost.device.clone(),
            since: Some(time::format(ghost.since)),
            lease: Some(ghost.lease.id),
            mode: None,
            held: None,
            last_step: None,
        }));
        rows.sort_by_key(|row| row.tenant);
        Violations {
            violations: rows,
            seq: state.seq(),
        }
    }

    fn held(&mut self, tenant: &'a TenantName, violation: Violation) -> ViolationBody<'a> {
        let device = self.state.device(&violation.device);
        let since = device.and_then(|device| device.holders.get(tenant));
        let policy = self.policy(&violation.node);
        let verdict = policy.and_then(|policy| {
            policy.verdicts.iter().find(|it| {
                it.tenant == *tenant && it.device == violation.device && it.class == violation.class
            })
        });
        let mode = verdict.map(|it| it.ladder.mode.as_str());
        let held = verdict.and_then(|it| it.held).map(|held| held.to_string());
        let last_step = self.last_step((Some(tenant), &violation.device));
        ViolationBody {
            class: violation.class.as_str(),
            tenant: Some(tenant),
            node: violation.node,
            device: violation.device,
            since: since.copied().map(time::format),
            lease: None,
            mode,
            held,
            last_step,
        }
    }

    fn last_step(&self, about: About<'_>) -> Option<LastStep> {
        self.steps.get(&about).map(|row| LastStep::of(row))
    }

    fn policy(&mut self, node: &NodeName) -> Option<&NodePolicy> {
        let kept = self.policies.entry(node.clone());
        kept.or_insert_with(|| policy(self.state, node, self.now))
            .as_ref()
    }
}
