//! Usage in PostgreSQL.

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPool;

use super::{READ, within};
use crate::store::usage::Table;
use crate::store::usage_sql::{POSTGRES, count, sum};
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
