//! Seats: licences that are checked out until they are given back or end.

use gpuquota_core::Answer;
use gpuquota_core::State;
use gpuquota_core::command::{CheckOutSeat, Command, Outcome};
use gpuquota_core::id::{DisplayName, ProductId, SeatId, TenantName};
use gpuquota_core::licence::Seat;
use gpuquota_core::object::Object;
use serde::Serialize;
use utoipa::ToSchema;

use super::wire::{number_in_path, number_of};
use crate::rest::call::{Api, Call};
use crate::rest::json::{Fields, invalid, missing};
use crate::rest::names;
use crate::rest::reply::Reply;
use crate::rest::status::{Kind, Problem};
use crate::rest::time;
use crate::service::Receipt;

/// 30 days, seconds.
const LONGEST_S: u32 = 30 * 24 * 60 * 60;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Seat)]
pub(in crate::rest) struct SeatBody<'a> {
    #[schema(value_type = u64, minimum = 1)]
    id: SeatId,
    #[schema(value_type = names::TenantName)]
    tenant: &'a TenantName,
    #[schema(value_type = names::Number)]
    software_product: ProductId,
    #[schema(value_type = names::DisplayName)]
    owner: &'a DisplayName,
    #[schema(value_type = names::Time)]
    expires_at: String,
}

impl<'a> SeatBody<'a> {
    fn of(seat: &'a Seat) -> Self {
        Self {
            id: seat.seat,
            tenant: &seat.tenant,
            software_product: seat.product,
            owner: &seat.owner,
            expires_at: time::format(seat.expires_at),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct Seats<'a> {
    seats: Vec<SeatBody<'a>>,
}

/// `GET /api/v1/seats?tenant=…&software_product=…`: those that the caller sees.
pub(in crate::rest) async fn list(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let product = call.query.single("software_product")?;
    let product = product
        .map(|text| {
            number_in_path(text).map_err(|_| invalid("software_product", "must be a number"))
        })
        .transpose()?;
    let tenant = call.query.single("tenant")?;
    let committed = call.read(api).await?;
    let seats = committed.state.seats().filter(|seat| {
        call.principal.sees(&seat.tenant)
            && tenant.is_none_or(|tenant| seat.tenant.as_str() == tenant)
            && product.is_none_or(|product| seat.product.0 == product)
    });
    Reply::ok(Seats {
        seats: seats.map(SeatBody::of).collect(),
    })
}

/// `GET /api/v1/seats/{id}`.
pub(in crate::rest) async fn get(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let committed = call.read(api).await?;
    let seat = seen(&committed.state, call)?;
    let generation = committed.state.generation(&Object::Seat(seat.seat));
    Ok(Reply::ok(SeatBody::of(seat))?.tagged(generation))
}

/// `POST /api/v1/seats`: checks a licence out, or denies it when the quota has none left.
pub(in crate::rest) async fn post(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let fields = call.fields()?;
    let tenant = fields.name("tenant", TenantName::new)?;
    let tenant = tenant.ok_or_else(|| missing("tenant"))?;
    if !call.principal.sees(&tenant) {
        return Err(Problem::new(
            Kind::Forbidden,
            "the token is for other tenants",
        ));
    }
    let product = number_of(&fields, "software_product")?;
    let command = CheckOutSeat {
        tenant,
        product: ProductId(product.ok_or_else(|| missing("software_product"))?),
        owner: fields
            .name("owner", DisplayName::new)?
            .ok_or_else(|| missing("owner"))?,
        ttl_ms: ttl_ms(&fields)?,
    };
    let receipt = call.submit(api, Command::CheckOutSeat(command)).await?;
    Reply::created(SeatBody::of(granted(&receipt)?))
}

/// `POST /api/v1/seats/{id}/renew`: it ends so many seconds from now.
pub(in crate::rest) async fn renew(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let ttl_ms = ttl_ms(&call.fields()?)?;
    let seat = touched(api, call)?;
    let command = Command::RenewSeat { seat, ttl_ms };
    let written = call.write(api, Object::Seat(seat), command).await?;
    Ok(Reply::ok(SeatBody::of(granted(&written.receipt)?))?.tagged(written.generation))
}

/// `DELETE /api/v1/seats/{id}`: gives the licence back.
pub(in crate::rest) async fn delete(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let seat = touched(api, call)?;
    call.write(api, Object::Seat(seat), Command::ReleaseSeat(seat))
        .await?;
    Reply::done()
}

// The seat of a write. One that was written under the caller's key may be gone by now; its answer is not.
fn touched(api: &Api, call: &Call) -> Result<SeatId, Problem> {
    match call.kept_answer(api)? {
        Some(Answer::Granted(Outcome::Seat(seat))) if call.principal.sees(&seat.tenant) => {
            return Ok(seat.seat);
        }
        // These tell nothing of a seat.
        Some(Answer::Granted(Outcome::Done) | Answer::Denied(_)) => {
            return Ok(SeatId(call.named("id", number_in_path)?.into()));
        }
        _ => {}
    }
    Ok(seen(&api.ledger.read().state, call)?.seat)
}

// A foreign seat is answered as one that is not there.
fn seen<'a>(state: &'a State, call: &Call) -> Result<&'a Seat, Problem> {
    let id = call.named("id", number_in_path)?;
    let seat = state.seat(SeatId(id.into()));
    seat.filter(|seat| call.principal.sees(&seat.tenant))
        .ok_or_else(|| Problem::new(Kind::NoSuchObject, "there is no such seat"))
}

fn granted(receipt: &Receipt) -> Result<&Seat, Problem> {
    match &receipt.outcome {
        Outcome::Seat(seat) => Ok(seat),
        _ => Err(Problem::new(Kind::Internal, "the ledger answered no seat")),
    }
}

fn ttl_ms(fields: &Fields) -> Result<u32, Problem> {
    let rule = format!("must be a whole number from 1 to {LONGEST_S}");
    let seconds = fields
        .count("ttl_seconds")
        .map_err(|_| invalid("ttl_seconds", &rule))?;
    let seconds = seconds.ok_or_else(|| missing("ttl_seconds"))?;
    if !(1..=LONGEST_S).contains(&seconds) {
        return Err(invalid("ttl_seconds", rule));
    }
    Ok(seconds * 1000)
}
