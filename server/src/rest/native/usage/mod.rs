//! GPU-seconds: whose, where, on what, and of which class, by hours or days of UTC.

mod ask;
mod csv;
mod sums;
mod wire;

use crate::rest::call::{Api, Call};
use crate::rest::reply::Reply;
use crate::rest::status::Problem;

use ask::Ask;
pub(in crate::rest) use wire::UsageBody;

/// `GET /api/v1/usage`: what the caller sees of it, as JSON or CSV.
pub(in crate::rest) async fn list(api: &Api, call: &Call) -> Result<Reply, Problem> {
    call.has_no_past("from and to name the hours")?;
    let committed = api.ledger.read();
    let now = api.clock.wall().max(committed.state.at());
    let ask = Ask::of(call, &committed.state, now)?;
    let (closed, seq) = (committed.state.closed_before(), committed.state.seq());
    let found = sums::find(&api.ledger, committed, &ask, now).await?;
    let body = UsageBody::of(&ask, &found, closed, seq);
    if ask.csv {
        Ok(Reply::csv(csv::written(&body)))
    } else {
        Reply::ok(body)
    }
}
