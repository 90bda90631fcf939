//! Leases: devices promised to a tenant for a time.

mod body;
mod request;

use gpuquota_core::Answer;
use gpuquota_core::State;
use gpuquota_core::command::{Command, Outcome};
use gpuquota_core::id::{LeaseId, TenantName};
use gpuquota_core::lease::Lease;

use crate::auth::Role;
use crate::rest::call::{Api, Call};
use crate::rest::reply::Reply;
use crate::rest::status::{Kind, Problem};

pub(in crate::rest) use body::{DryRun, LeaseBody, LeaseOrDryRun, Leases};
use request::Filter;

/// `GET /api/v1/leases`: those that the caller sees, ended ones only with `state=ended`.
pub(in crate::rest) async fn list(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let filter = Filter::read(&call.query)?;
    let committed = call.read(api).await?;
    let state = &committed.state;
    let wanted = |lease: &&Lease| call.principal.sees(&lease.terms.tenant) && filter.takes(lease);
    let most = filter.limit + 1;
    let mut shown: Vec<&Lease> = match filter.ended() {
        true => {
            let all = state.leases_after(filter.after);
            all.filter(wanted).take(most).collect()
        }
        false => {
            let live = state.live_leases_after(filter.after);
            live.filter(wanted).take(most).collect()
        }
    };
    let more = shown.len() > filter.limit;
    shown.truncate(filter.limit);
    Reply::ok(Leases {
        next: shown.last().map(|lease| lease.id).filter(|_| more),
        leases: shown.into_iter().map(LeaseBody::of).collect(),
        seq: state.seq(),
    })
}

/// `GET /api/v1/leases/{id}`.
pub(in crate::rest) async fn get(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let committed = call.read(api).await?;
    shown(seen(&committed.state, call)?)
}

/// `POST /api/v1/leases`: promises devices, or says why not.
pub(in crate::rest) async fn post(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let request = request::lease(&call.fields()?)?;
    let dry_run = call.query.switch("dry_run")?;
    may_write(call, &request.tenant)?;
    let outcome = ask(api, call, Command::RequestLease(request), dry_run).await?;
    let lease = granted(&outcome)?;
    match dry_run {
        true => Reply::ok(DryRun::of(lease)),
        false => Ok(Reply::created(LeaseBody::of(lease))?.of(lease.changed)),
    }
}

/// `POST /api/v1/leases/{id}/renew`: it ends so many seconds from now, or when it is given back.
pub(in crate::rest) async fn renew(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let ttl_ms = request::renewal(&call.fields()?)?;
    let dry_run = call.query.switch("dry_run")?;
    let command = Command::RenewLease {
        lease: touched(api, call)?,
        ttl_ms,
        expected: call.expected,
    };
    changed(&ask(api, call, command, dry_run).await?, dry_run)
}

/// `DELETE /api/v1/leases/{id}`: gives it back; it stays charged until its devices are seen free, unless it is forced.
pub(in crate::rest) async fn delete(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let forced = call.query.switch("force")?;
    let dry_run = call.query.switch("dry_run")?;
    let lease = touched(api, call)?;
    if forced && call.principal.role != Role::Admin {
        return Err(Problem::new(
            Kind::Forbidden,
            "only an admin ends a lease without waiting for its devices; leave force out",
        ));
    }
    let command = Command::ReleaseLease {
        lease,
        forced,
        expected: call.expected,
    };
    changed(&ask(api, call, command, dry_run).await?, dry_run)
}

async fn ask(api: &Api, call: &Call, command: Command, dry_run: bool) -> Result<Outcome, Problem> {
    match dry_run {
        true => call.preview(api, &command),
        false => Ok(call.submit(api, command).await?.outcome),
    }
}

fn changed(outcome: &Outcome, dry_run: bool) -> Result<Reply, Problem> {
    let lease = granted(outcome)?;
    match dry_run {
        true => Reply::ok(DryRun::of(lease)),
        false => shown(lease),
    }
}

fn shown(lease: &Lease) -> Result<Reply, Problem> {
    Ok(Reply::ok(LeaseBody::of(lease))?.of(lease.changed))
}

fn may_write(call: &Call, tenant: &TenantName) -> Result<(), Problem> {
    if call.principal.sees(tenant) {
        return Ok(());
    }
    Err(Problem::new(
        Kind::Forbidden,
        "the token is for other tenants",
    ))
}

// The lease of a write. One that was written under the caller's key may be forgotten by now; its answer is not.
fn touched(api: &Api, call: &Call) -> Result<LeaseId, Problem> {
    match call.kept_answer(api)? {
        Some(Answer::Granted(Outcome::Lease(lease)))
            if call.principal.sees(&lease.terms.tenant) =>
        {
            return Ok(lease.id);
        }
        Some(Answer::Denied(_)) => return call.named("id", request::number),
        _ => {}
    }
    Ok(seen(&api.ledger.read().state, call)?.id)
}

// A foreign lease is answered as one that is not there.
fn seen<'a>(state: &'a State, call: &Call) -> Result<&'a Lease, Problem> {
    let lease = state.lease(call.named("id", request::number)?);
    lease
        .filter(|lease| call.principal.sees(&lease.terms.tenant))
        .ok_or_else(|| Problem::new(Kind::NoSuchObject, "there is no such lease"))
}

fn granted(outcome: &Outcome) -> Result<&Lease, Problem> {
    match outcome {
        Outcome::Lease(lease) => Ok(lease),
        _ => Err(Problem::new(Kind::Internal, "the ledger answered no lease")),
    }
}
