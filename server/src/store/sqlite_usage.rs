//! Usage in SQLite: rows come as JSON lists, and one that is there already is left as it is.

use gpuquota_core::meter::Hour;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::StoreError;
use super::usage::{Table, UsageHours, UsageKept, UsageQuery, UsageSum};

/// Stores whole hours in pieces, and looks whether the tables then say exactly that.
pub(super) async fn put(
    writer: &SqlitePool,
    classify: fn(sqlx::Error) -> StoreError,
    hours: &UsageHours,
) -> Result<UsageKept, StoreError> {
    for (table, piece, count) in hours.pieces() {
        let piece = piece.map_err(|e| StoreError::Fatal(sqlx::Error::Encode(e.into())))?;
        let insert = sqlx::query(AssertSqlSafe(insert(table))).bind(piece.as_str());
        insert.execute(writer).await.map_err(classify)?;
        let same = sqlx::query_scalar::<_, i64>(AssertSqlSafe(same(table))).bind(piece.as_str());
        let same = same.fetch_one(writer).await.map_err(classify)?;
        if usize::try_from(same) != Ok(count) {
            return Ok(UsageKept::Differs);
        }
    }
    for table in Table::ALL {
        let name = table.name();
        let count = format!("SELECT count(*) FROM {name} WHERE hour >= ?1 AND hour < ?2");
        let count = sqlx::query_scalar::<_, i64>(AssertSqlSafe(count))
            .bind(hours.from.0)
            .bind(hours.to.0);
        let found = count.fetch_one(writer).await.map_err(classify)?;
        if usize::try_from(found) != Ok(hours.count(table)) {
            return Ok(UsageKept::Differs);
        }
    }
    Ok(UsageKept::Same)
}

fn insert(table: Table) -> String {
    let columns = table.key().join(", ");
    let values = (0..=table.key().len()).map(|at| format!("r.value ->> {at}"));
    let values = values.collect::<Vec<_>>().join(", ");
    // `WHERE true` tells SQLite that ON begins no join.
    format!(
        "INSERT INTO {} ({columns}, ms) SELECT {values} FROM json_each(?1) AS r WHERE true ON CONFLICT DO NOTHING",
        table.name()
    )
}

fn same(table: Table) -> String {
    let key = table.key().iter().enumerate();
    let key = key.map(|(at, column)| format!("u.{column} = r.value ->> {at}"));
    let key = key.collect::<Vec<_>>().join(" AND ");
    format!(
        "SELECT count(*) FROM json_each(?1) AS r JOIN {} AS u ON {key} WHERE u.ms = r.value ->> {}",
        table.name(),
        table.key().len()
    )
}

/// Adds stored usage up.
pub(super) async fn sums(
    readers: &SqlitePool,
    classify: fn(sqlx::Error) -> StoreError,
    query: &UsageQuery,
) -> Result<Vec<UsageSum>, StoreError> {
    let (text, lists) = query.select(|at| format!("SELECT value FROM json_each(${at})"));
    let mut select = sqlx::query(AssertSqlSafe(text))
        .bind(query.from.0)
        .bind(query.to.0)
        .bind(query.period)
        .bind(i64::from(query.most) + 1);
    for list in lists {
        select = select.bind(list);
    }
    let rows = select.fetch_all(readers).await.map_err(classify)?;
    let columns = query.by.len();
    let sums = rows.iter().map(|row| sum(row, columns).map_err(classify));
    sums.collect()
}

fn sum(row: &SqliteRow, columns: usize) -> Result<UsageSum, sqlx::Error> {
    let of = (1..=columns).map(|at| row.try_get::<String, _>(at));
    let ms: i64 = row.try_get(columns + 1)?;
    Ok(UsageSum {
        period: Hour(row.try_get(0)?),
        of: of.collect::<Result<_, _>>()?,
        ms: u64::try_from(ms).map_err(|e| sqlx::Error::Decode(e.into()))?,
    })
}
