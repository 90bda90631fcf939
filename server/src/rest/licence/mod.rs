//! Document 003, the licence dialect: GET and POST `/api/v1/licenses/admin/quotas/`, GET and PATCH `…/{id}/`, GET
//! `…/usage_statistics/`, for administrators and, of their own tenants, tenant administrators.

mod fault;
mod filter;
mod listing;
mod rate;
mod row;
mod statistics;
mod table;
mod wire;

use std::fmt::Write as _;

use gpuquota_core::Command;
use gpuquota_core::command::Outcome;
use gpuquota_core::id::{LicenceQuotaId, TenantNumber};

use super::call::{Api, Call};
use super::json::Fields;
use super::reply::Reply;
use super::status::{Kind, Problem};
use crate::auth::{Principal, Role};
use filter::Filter;
use listing::Page;
use row::Row;
use wire::{Answer, Patch};

pub(super) use fault::fault;
pub(super) use row::{Long, Short};
pub(super) use statistics::Statistics;
pub(super) use table::LicenceTables;

/// Lists quotas, filtered, ordered and paged.
pub(super) async fn list(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let address = call.reached.address(&api.dialects)?;
    let filter = Filter::read(&call.query)?;
    let table = api.kept.licences.current(&api.ledger).await;
    let page = listing::page(&table, &call.principal, &filter)?;
    let link = |number: Option<usize>| {
        number.map(|number| {
            let query = listing::with_page(call.reached.query(), number);
            format!("{address}?{query}")
        })
    };
    Ok(Reply::written(body_of(
        &page,
        link(page.next()),
        link(page.previous()),
    )))
}

// The rows are JSON already; around them stand a number and two texts.
fn body_of(page: &Page<'_>, next: Option<String>, previous: Option<String>) -> String {
    let text = |text: Option<String>| serde_json::Value::from(text);
    let rows: usize = page.rows.iter().map(|row| row.json().len() + 1).sum();
    let mut body = String::with_capacity(rows + 512);
    let _ = write!(
        body,
        r#"{{"success":true,"data":{{"count":{},"next":{},"previous":{},"results":["#,
        page.count,
        text(next),
        text(previous)
    );
    for (at, row) in page.rows.iter().enumerate() {
        if at > 0 {
            body.push(',');
        }
        body.push_str(row.json());
    }
    body.push_str("]}}");
    body
}

/// Says how much of all quotas is used.
pub(super) async fn statistics(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let table = api.kept.licences.current(&api.ledger).await;
    let counted = statistics::statistics(&table, &call.principal, api.clock.wall());
    let body = format!(r#"{{"success":true,"data":{}}}"#, counted.json);
    Ok(Reply::written(body))
}

/// Shows one quota (dialects D4.13).
pub(super) async fn get(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let row = row_in_path(api, call).ok_or_else(no_quota)?;
    let changed = row.changed;
    Ok(Reply::ok(Answer::shown(row))?.of(changed))
}

/// Makes a quota.
pub(super) async fn create(api: &Api, call: &Call) -> Result<Reply, Problem> {
    may_write(api, &call.principal)?;
    let fields = Fields::parse(&call.body)?;
    let tenant = wire::tenant(&fields)?;
    if !is_theirs(api, &call.principal, tenant) {
        return Err(Problem::new(
            Kind::Forbidden,
            "this token makes no quotas for that tenant",
        ));
    }
    let create = wire::creation(tenant, &fields)?;
    let command = Command::CreateLicenceQuota(create.clone());
    let receipt = call.submit(api, command).await.map_err(of_reference)?;
    match receipt.outcome {
        Outcome::LicenceQuota(quota) => {
            let row = row_of(api, quota).ok_or_else(no_quota)?;
            Reply::created(Answer::created(Short::of(&row, &create)))
        }
        _ => Err(Problem::new(
            Kind::Internal,
            "the ledger answered something else",
        )),
    }
}

/// Changes a quota.
pub(super) async fn patch(api: &Api, call: &Call) -> Result<Reply, Problem> {
    if let Err(problem) = may_write(api, &call.principal) {
        return Err(row_in_path(api, call).map_or_else(no_quota, |_| problem));
    }
    let patch = Patch::read(&Fields::parse(&call.body)?)?;
    let row = row_in_path(api, call).ok_or_else(no_quota)?;
    let change = Command::ChangeLicenceQuota(patch.of(&row, call.expected)?);
    call.submit(api, change).await.map_err(of_use)?;
    let row = row_of(api, row.id).ok_or_else(no_quota)?;
    let changed = row.changed;
    Ok(Reply::ok(Answer::updated(row))?.of(changed))
}

// A tenant administrator sees what it has; how much that is, is not for it to say.
fn may_write(api: &Api, principal: &Principal) -> Result<(), Problem> {
    if principal.role == Role::Admin || api.dialects.tenant_admin_sets_licences {
        return Ok(());
    }
    Err(Problem::new(
        Kind::Forbidden,
        "licence quotas are set by administrators; this token has the role tenant-admin",
    ))
}

// An administrator is told of an unknown tenant by the ledger; anybody else not whether there is one.
fn is_theirs(api: &Api, principal: &Principal, tenant: TenantNumber) -> bool {
    let committed = api.ledger.read();
    let tenant = committed.state.tenant_by_number(tenant);
    principal.role == Role::Admin
        || tenant.is_some_and(|tenant| principal.sees(&tenant.profile.tenant))
}

fn row_in_path(api: &Api, call: &Call) -> Option<Row> {
    let quota = wire::quota_id(call.segment("id"))?;
    let committed = api.ledger.read();
    let quota = committed.state.licence_quota(quota)?;
    let seen = call.principal.sees(&quota.terms.tenant);
    seen.then(|| Row::of(&committed.state, quota))?
}

fn row_of(api: &Api, quota: LicenceQuotaId) -> Option<Row> {
    let committed = api.ledger.read();
    Row::of(&committed.state, committed.state.licence_quota(quota)?)
}

fn no_quota() -> Problem {
    Problem::new(Kind::NoSuchObject, "there is no such quota")
}

// Tenant and product are values of a body, not what the path leads to.
fn of_reference(problem: Problem) -> Problem {
    if problem.kind != Kind::NoSuchObject {
        return problem;
    }
    let what = problem.explain.as_ref().map(|explain| &explain["what"]);
    let field = match what.and_then(serde_json::Value::as_str) {
        Some("tenant") => "tenant",
        _ => "software_product",
    };
    Problem {
        kind: Kind::InvalidField,
        ..problem.of_field(field)
    }
}

fn of_use(problem: Problem) -> Problem {
    match problem.kind {
        Kind::BelowUse => problem.of_field("max_licenses"),
        _ => problem,
    }
}
