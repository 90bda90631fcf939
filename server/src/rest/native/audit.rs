//! The audit: what was changed and by whom, from the journal; and what was not granted.

use gpuquota_core::Record;
use gpuquota_core::event::{Event, KeptAnswer};
use gpuquota_core::id::{Seq, TenantName};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::rest::call::{Api, Call};
use crate::rest::json::invalid;
use crate::rest::names;
use crate::rest::native::page::{self, LARGEST_PAGE};
use crate::rest::reply::Reply;
use crate::rest::status::{Kind, Problem};
use crate::rest::time;
use crate::service::audit::{Denial, Told};
use crate::store::Row;

/// Rows looked at for one answer; a filter that fits few of them goes on from `next`.
const LOOKED_AT: u32 = 10_000;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditedChange)]
struct Change {
    /// The journal row.
    #[schema(value_type = u64)]
    seq: Seq,
    #[schema(value_type = names::Time)]
    at: String,
    /// Who: role and subject of a token, `node:` and its name, or `server`.
    actor: String,
    /// The address that the call came from; null where it is none of a client.
    #[schema(required)]
    from: Option<String>,
    /// What the caller gave as `X-Audit-Reason`.
    #[schema(required)]
    reason: Option<String>,
    #[schema(required)]
    request_id: Option<String>,
    /// What happened, as the journal has it; empty for a denial that is kept for its Idempotency-Key.
    #[schema(value_type = Vec<Object>)]
    events: Vec<Event>,
    /// What was answered under an Idempotency-Key.
    #[schema(value_type = Option<Object>, required)]
    answer: Option<Value>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditedDenial)]
struct DenialBody {
    /// Begin of the minute.
    #[schema(value_type = names::Time)]
    minute: String,
    actor: String,
    #[schema(required)]
    from: Option<String>,
    /// Whom it was about; null where no tenant is named.
    #[schema(value_type = Option<String>, required)]
    tenant: Option<TenantName>,
    /// The rule that spoke, or the kind of error.
    rule: String,
    /// Times in that minute.
    count: u64,
    /// Of the last.
    request_id: String,
    /// Of the last.
    message: String,
    /// Method and pattern of the path of the last; null where there is no such path.
    #[schema(required)]
    route: Option<String>,
    /// What the last gave as `X-Audit-Reason`.
    #[schema(required)]
    reason: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Audit)]
pub(in crate::rest) struct Audit {
    changes: Vec<Change>,
    /// Ask with this as `after` for what follows; null at the end of the journal.
    #[schema(value_type = Option<u64>, required)]
    next: Option<Seq>,
    /// Rows after `after` and before this one were moved to archives; null: none that was asked for.
    #[schema(value_type = Option<u64>, required)]
    archived_before: Option<Seq>,
    /// The last hour's denials on this server, newest minute first.
    denials: Vec<DenialBody>,
}

/// `GET /api/v1/audit?after=…&limit=…&actor=…&tenant=…&nodes=true`.
pub(in crate::rest) async fn list(api: &Api, call: &Call) -> Result<Reply, Problem> {
    call.has_no_past("after names the first row")?;
    let wanted = Wanted::read(call)?;
    let last = api.ledger.read().state.seq();
    let mut after = wanted.after;
    let mut changes = Vec::new();
    let mut looked_at = 0;
    let mut archived_before = None;
    while after < last && changes.len() < wanted.limit && looked_at < LOOKED_AT {
        let rows = api.ledger.history().rows(after, LARGEST_PAGE).await;
        let rows = rows.map_err(|error| {
            tracing::error!(error = %error, "the journal cannot be read for the audit");
            Problem::new(Kind::Unavailable, "the journal cannot be read; see the log")
        })?;
        // Rows are numbered without a gap.
        let first = rows.first().map_or(last.next(), |(row, _)| row.seq);
        if first > after.next() {
            archived_before = Some(first);
        }
        if rows.is_empty() {
            after = last;
        }
        for (row, record) in rows {
            if changes.len() == wanted.limit {
                break;
            }
            looked_at += 1;
            after = row.seq;
            if wanted.fits(&record) {
                changes.push(change(row, record));
            }
        }
    }
    let denials = api.ledger.denials().last_hour().into_iter();
    let denials = denials.filter(|(_, denial, _)| {
        wanted.fits_actor(&denial.actor)
            && (wanted.tenant.is_none() || wanted.tenant == denial.tenant)
    });
    Reply::ok(Audit {
        changes,
        next: Some(after).filter(|after| *after < last),
        archived_before,
        denials: denials
            .map(|(minute, denial, told)| denied(time::format(minute), denial, told))
            .collect(),
    })
}

struct Wanted<'a> {
    after: Seq,
    limit: usize,
    actor: Option<&'a str>,
    tenant: Option<TenantName>,
    nodes: bool,
}

impl<'a> Wanted<'a> {
    fn read(call: &'a Call) -> Result<Self, Problem> {
        let tenant = call.query.single("tenant")?.map(TenantName::new);
        Ok(Self {
            after: Seq(page::after(&call.query)?.unwrap_or(0)),
            limit: page::limit(&call.query)?,
            actor: call.query.single("actor")?,
            tenant: tenant
                .transpose()
                .map_err(|e| invalid("tenant", e.to_string()))?,
            nodes: call.query.switch("nodes")?,
        })
    }

    fn fits(&self, record: &Record) -> bool {
        let of_node = record.actor.starts_with("node:");
        let asked_for = self.nodes || !of_node || self.actor.is_some();
        asked_for && self.fits_actor(&record.actor) && self.fits_tenant(record)
    }

    fn fits_actor(&self, actor: &str) -> bool {
        self.actor.is_none_or(|wanted| wanted == actor)
    }

    fn fits_tenant(&self, record: &Record) -> bool {
        let Some(tenant) = &self.tenant else {
            return true;
        };
        if record.tenants.contains(tenant) {
            return true;
        }
        let events = serde_json::to_value(&record.events);
        events.is_ok_and(|events| names(&events, tenant.as_str()))
    }
}

// Whether something in it is of this tenant, however deep.
fn names(value: &Value, tenant: &str) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            let here = name == "tenant" && value.as_str() == Some(tenant);
            let among = name == "tenants"
                && value
                    .as_array()
                    .is_some_and(|list| list.iter().any(|name| name.as_str() == Some(tenant)));
            here || among || names(value, tenant)
        }),
        Value::Array(values) => values.iter().any(|value| names(value, tenant)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn change(row: Row, record: Record) -> Change {
    let answer = record.replay.and_then(|replay| match replay.answer {
        KeptAnswer::Whole(answer) => serde_json::to_value(answer).ok(),
        // The event beside it says the rest.
        KeptAnswer::Granted(lease) => Some(json!({"granted": {"lease": {"id": lease}}})),
    });
    Change {
        seq: row.seq,
        at: time::format(row.at),
        actor: record.actor,
        from: record.from,
        reason: record.reason,
        request_id: record.request_id,
        events: record.events,
        answer,
    }
}

fn denied(minute: String, denial: Denial, told: Told) -> DenialBody {
    DenialBody {
        minute,
        actor: denial.actor,
        from: denial.from,
        tenant: denial.tenant,
        rule: denial.rule,
        count: told.count,
        request_id: told.last.request_id,
        message: told.last.message,
        route: told.last.route,
        reason: told.last.reason,
    }
}
