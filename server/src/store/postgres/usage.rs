//! Usage in PostgreSQL.

use gpuquota_core::meter::Hour;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPool;

use super::{READ, within};
use crate::store::usage::Table;
use crate::store::usage_sql::{DROP_PIECE, KEPT_FROM, KNOWN_FROM, POSTGRES, count, sum};
use crate::store::{UsageHours, UsageKept, UsageQuery, UsageSum};

/// Stores whole hours in pieces, and looks whether the tables then say exactly that.
pub(super) async fn put(pool: &PgPool, hours: &UsageHours) -> Result<UsageKept, sqlx::Error> {
    for (table, piece, rows) in hours.pieces() {
        let piece = piece.map_err(|e| sqlx::Error::Encode(e.into()))?;
        let insert = sqlx::query(AssertSqlSafe(POSTGRES.insert(table))).bind(piece.as_str());
        within(READ, insert.execute(pool)).await?;
        let same = sqlx::query_scalar::<_, i64>(AssertSqlSafe(POSTGRES.same(table)));
        let same = within(READ, same.bind(piece.as_str()).fetch_one(pool)).await?;
        if usize::try_from(same) != Ok(rows) {
            return Ok(UsageKept::Differs);
        }
    }
    for table in Table::ALL {
        let found = sqlx::query_scalar::<_, i64>(AssertSqlSafe(count(table)));
        let found = found.bind(hours.from.0).bind(hours.to.0);
        if usize::try_from(within(READ, found.fetch_one(pool)).await?) != Ok(hours.count(table)) {
            return Ok(UsageKept::Differs);
        }
    }
    Ok(UsageKept::Same)
}

/// Adds stored usage up.
pub(super) async fn sums(pool: &PgPool, query: &UsageQuery) -> Result<Vec<UsageSum>, sqlx::Error> {
    let (text, lists) = POSTGRES.select(query);
    let mut select = sqlx::query(AssertSqlSafe(text))
        .bind(query.from.0)
        .bind(query.to.0)
        .bind(query.period)
        .bind(i64::from(query.most) + 1);
    for list in lists {
        select = select.bind(list);
    }
    let rows = select.fetch_all(pool).await?;
    rows.iter().map(|row| sum(row, query.by.len())).collect()
}

/// Drops a piece of what is kept by device of before `before`; how many rows.
pub(super) async fn drop_by_device(pool: &PgPool, before: Hour) -> Result<u64, sqlx::Error> {
    let kept = sqlx::query(KEPT_FROM).bind(before.0);
    within(READ, kept.execute(pool)).await?;
    let dropped = sqlx::query(DROP_PIECE).bind(before.0);
    Ok(within(READ, dropped.execute(pool)).await?.rows_affected())
}

/// Since when usage by device is known.
pub(super) async fn by_device_from(pool: &PgPool) -> Result<Option<Hour>, sqlx::Error> {
    let from = sqlx::query_scalar::<_, i64>(KNOWN_FROM);
    let from = within(READ, from.fetch_optional(pool)).await?;
    Ok(from.map(Hour))
}
