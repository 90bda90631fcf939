//! Adding up what is stored and what the ledger still has.

use std::collections::BTreeMap;

use gpuquota_core::id::{TenantName, Timestamp};
use gpuquota_core::meter::{Hour, UsageRow};

use super::ask::{Ask, MOST_ROWS};
use crate::rest::json::invalid;
use crate::rest::status::{Kind, Problem};
use crate::rest::time;
use crate::service::{Committed, Ledger};
use crate::store::{StoreError, UsageBy, UsageQuery};

/// Milliseconds by period and by what is told apart, in order.
pub(super) type Sums = BTreeMap<(Hour, Vec<String>), u64>;

/// What a request is answered from.
pub(super) struct Found {
    pub(super) sums: Sums,
    /// Milliseconds for which devices existed, where it was asked for.
    pub(super) wall: Option<u64>,
}

/// Adds up all that was asked for, as of `until`.
///
/// # Errors
/// When the database does not answer, or there are too many rows.
pub(super) async fn find(
    ledger: &Ledger,
    committed: std::sync::Arc<Committed>,
    ask: &Ask,
    until: Timestamp,
) -> Result<Found, Problem> {
    let (query, wall) = (ask.query.clone(), ask.wall());
    let stored = committed.state.stored_before();
    let mut sums = stored_sums(ledger, &query, stored).await?;
    let mut existed = match &wall {
        Some(query) => Some(stored_sums(ledger, query, stored).await?.values().sum()),
        None => None,
    };
    // Many devices take a while; no task of the runtime waits for them.
    let fresh = tokio::task::spawn_blocking(move || {
        let state = &committed.state;
        let metered = state.metered(query.from.max(stored), query.to, until);
        let mut fresh = Sums::new();
        for row in metered.rows.iter().filter(|row| lets(&query, row)) {
            let of = query.by.iter().map(|by| value(*by, row)).collect();
            *fresh.entry((query.period_of(row.hour), of)).or_default() += row.ms;
        }
        let lets = |by, text: &str| query.only.get(&by).is_none_or(|only| only.contains(text));
        let walls = metered.wall.iter().filter(|row| {
            lets(UsageBy::Region, row.region.as_str())
                && lets(UsageBy::GpuModel, row.model.as_str())
        });
        (fresh, walls.map(|row| row.ms).sum::<u64>())
    });
    let failed = |_| Problem::new(Kind::Internal, "usage cannot be added up");
    let (fresh, fresh_wall) = fresh.await.map_err(failed)?;
    known(ledger, ask).await?;
    for (key, ms) in fresh {
        *sums.entry(key).or_default() += ms;
    }
    if let Some(existed) = &mut existed {
        *existed += fresh_wall;
    }
    if sums.len() > usize::try_from(MOST_ROWS).unwrap_or(usize::MAX) {
        let rule = "makes more than 100000 rows; ask for a shorter range, or tell less apart";
        return Err(invalid("group_by", rule));
    }
    Ok(Found {
        sums,
        wall: existed,
    })
}

// Asked after the sums: what is dropped is written down before it is.
async fn known(ledger: &Ledger, ask: &Ask) -> Result<(), Problem> {
    if !ask.query.by_device() {
        return Ok(());
    }
    let known = ledger
        .usage_by_device_from()
        .await
        .map_err(|e| unread(&e))?;
    match known {
        Some(known) if ask.query.from < known => Err(invalid(
            "from",
            format!(
                "must not be before {}: by node and device older usage is not kept; without node and device it is",
                time::format(known.start())
            ),
        )),
        Some(_) | None => Ok(()),
    }
}

fn unread(error: &StoreError) -> Problem {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        "stored usage cannot be read"
    );
    Problem::new(
        Kind::Unavailable,
        "stored usage cannot be read now; try again",
    )
}

async fn stored_sums(ledger: &Ledger, query: &UsageQuery, stored: Hour) -> Result<Sums, Problem> {
    let query = UsageQuery {
        to: query.to.min(stored),
        ..query.clone()
    };
    if query.from >= query.to {
        return Ok(Sums::new());
    }
    let rows = ledger.stored_usage(&query).await;
    let rows = rows.map_err(|e| unread(&e))?;
    Ok(rows
        .into_iter()
        .map(|row| ((row.period, row.of), row.ms))
        .collect())
}

fn lets(query: &UsageQuery, row: &UsageRow) -> bool {
    let mut only = query.only.iter();
    only.all(|(by, values)| values.contains(&value(*by, row)))
}

fn value(by: UsageBy, row: &UsageRow) -> String {
    match by {
        UsageBy::Tenant => {
            let tenant = row.tenant.as_ref().map(TenantName::as_str);
            tenant.unwrap_or_default().to_owned()
        }
        UsageBy::Region => row.place.region.as_str().to_owned(),
        UsageBy::GpuModel => row.place.model.as_str().to_owned(),
        UsageBy::Class => row.class.as_str().to_owned(),
        UsageBy::Node => row.place.node.as_str().to_owned(),
        UsageBy::Device => row.device.to_string(),
    }
}
