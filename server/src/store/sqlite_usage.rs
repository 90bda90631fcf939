//! Usage in SQLite.

use gpuquota_core::meter::Hour;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqlitePool;

use super::usage::{Table, UsageHours, UsageKept, UsageQuery, UsageSum};
use super::usage_sql::{DROP_PIECE, KEPT_FROM, KNOWN_FROM, SQLITE, count, sum};

const HAS_TABLE: &str = "SELECT count(*) FROM sqlite_schema WHERE name = $1";

/// Stores whole hours in pieces, between which the journal is written, and looks whether the tables then say exactly that.
pub(super) async fn put(writer: &SqlitePool, hours: &UsageHours) -> Result<UsageKept, sqlx::Error> {
    for (table, piece, rows) in hours.pieces() {
        let piece = piece.map_err(|e| sqlx::Error::Encode(e.into()))?;
        let insert = sqlx::query(AssertSqlSafe(SQLITE.insert(table)));
        insert.bind(piece.as_str()).execute(writer).await?;
        let same = sqlx::query_scalar::<_, i64>(AssertSqlSafe(SQLITE.same(table)));
        let same = same.bind(piece.as_str()).fetch_one(writer).await?;
        if usize::try_from(same) != Ok(rows) {
            return Ok(UsageKept::Differs);
        }
    }
    for table in Table::ALL {
        let found = sqlx::query_scalar::<_, i64>(AssertSqlSafe(count(table)));
        let found = found.bind(hours.from.0).bind(hours.to.0);
        if usize::try_from(found.fetch_one(writer).await?) != Ok(hours.count(table)) {
            return Ok(UsageKept::Differs);
        }
    }
    Ok(UsageKept::Same)
}

/// Adds stored usage up. A file that only earlier programs have served has no such tables, and no usage.
pub(super) async fn sums(
    readers: &SqlitePool,
    query: &UsageQuery,
) -> Result<Vec<UsageSum>, sqlx::Error> {
    if !has(readers, "usage_hours").await? {
        return Ok(Vec::new());
    }
    let (text, lists) = SQLITE.select(query);
    let mut select = sqlx::query(AssertSqlSafe(text))
        .bind(query.from.0)
        .bind(query.to.0)
        .bind(query.period)
        .bind(i64::from(query.most) + 1);
    for list in lists {
        select = select.bind(list);
    }
    let rows = select.fetch_all(readers).await?;
    rows.iter().map(|row| sum(row, query.by.len())).collect()
}

/// Drops a piece of what is kept by device of before `before`; how many rows.
pub(super) async fn drop_by_device(writer: &SqlitePool, before: Hour) -> Result<u64, sqlx::Error> {
    sqlx::query(KEPT_FROM)
        .bind(before.0)
        .execute(writer)
        .await?;
    let dropped = sqlx::query(DROP_PIECE)
        .bind(before.0)
        .execute(writer)
        .await?;
    Ok(dropped.rows_affected())
}

/// Since when usage by device is known.
pub(super) async fn by_device_from(readers: &SqlitePool) -> Result<Option<Hour>, sqlx::Error> {
    if !has(readers, "usage_kept").await? {
        return Ok(None);
    }
    let from: Option<i64> = sqlx::query_scalar(KNOWN_FROM)
        .fetch_optional(readers)
        .await?;
    Ok(from.map(Hour))
}

// A file that only earlier programs have served may lack it.
async fn has(readers: &SqlitePool, table: &str) -> Result<bool, sqlx::Error> {
    let found: i64 = sqlx::query_scalar(HAS_TABLE)
        .bind(table)
        .fetch_one(readers)
        .await?;
    Ok(found > 0)
}
