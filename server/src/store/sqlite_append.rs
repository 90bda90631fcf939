//! Appending to the journal in an SQLite file: one statement, one transaction, one fsync.

use sqlx::{AssertSqlSafe, SqlitePool};

use super::sql::signed;
use super::sqlite::classify;
use super::{Appended, Row, StoreError};

/// Writes rows that follow each other. A statement takes 32,766 values, so 4,096 rows are the most.
pub(super) async fn append(writer: &SqlitePool, rows: &[Row]) -> Result<Appended, StoreError> {
    let Some(first) = rows.first() else {
        return Ok(Appended::Written);
    };
    let places = rows.len().next_power_of_two();
    let mut insert = sqlx::query(AssertSqlSafe(statement(places)));
    for row in rows {
        insert = insert
            .bind(signed(row.seq)?)
            .bind(row.at.0)
            .bind(&row.writer)
            .bind(row.op.as_ref().map(ToString::to_string))
            .bind(&row.body)
            .bind(row.hash.to_string());
    }
    for _ in 0..6 * (places - rows.len()) {
        insert = insert.bind(None::<i64>);
    }
    let done = insert.bind(signed(first.seq)? - 1).execute(writer).await;
    match done.map_err(classify)?.rows_affected() {
        0 => Ok(Appended::Behind),
        _ => Ok(Appended::Written),
    }
}

// For so many rows; the number is rounded up, so that few statements are prepared, and what is left is empty. The guard
// makes it do nothing when another writer was first.
fn statement(places: usize) -> String {
    let rows = vec!["(?, ?, ?, ?, ?, ?)"; places].join(", ");
    format!(
        "INSERT INTO journal (seq, at, writer, op, body, hash) \
         SELECT column1, column2, column3, column4, column5, column6 FROM (VALUES {rows}) \
         WHERE column1 IS NOT NULL \
         AND coalesce((SELECT max(seq) FROM journal), (SELECT max(seq) FROM base), 0) = ?"
    )
}
