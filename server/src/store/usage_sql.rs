//! The statements on the tables of usage. Rows come as JSON lists, and one that is there already is left as it is.

use gpuquota_core::meter::Hour;
use sqlx::{ColumnIndex, Database, Decode, Row, Type};

use super::usage::{Table, UsageQuery, UsageSum};

/// How a database reads JSON.
#[derive(Clone, Copy, Debug)]
pub(super) struct Json {
    /// Rows of parameter $1, as `r.value`.
    pub(super) rows: &'static str,
    /// What makes a number of a text.
    pub(super) number: &'static str,
    /// Values of the parameter that is put for `$`.
    pub(super) values: &'static str,
}

pub(super) const SQLITE: Json = Json {
    rows: "json_each($1) AS r",
    number: "",
    values: "SELECT value FROM json_each($)",
};

pub(super) const POSTGRES: Json = Json {
    rows: "jsonb_array_elements($1::jsonb) AS r(value)",
    number: "::bigint",
    values: "SELECT jsonb_array_elements_text($::jsonb)",
};

impl Json {
    fn field(self, table: Table, at: usize) -> String {
        let text = at > 0 && at < table.key().len();
        let number = if text { "" } else { self.number };
        format!("(r.value ->> {at}){number}")
    }

    /// Adds the rows of $1 that are not there.
    pub(super) fn insert(self, table: Table) -> String {
        let columns = table.key().join(", ");
        let values = (0..=table.key().len()).map(|at| self.field(table, at));
        let values = values.collect::<Vec<_>>().join(", ");
        // `WHERE true` tells SQLite that ON begins no join.
        format!(
            "INSERT INTO {} ({columns}, ms) SELECT {values} FROM {} WHERE true ON CONFLICT DO NOTHING",
            table.name(),
            self.rows
        )
    }

    /// How many rows of $1 are there as they are.
    pub(super) fn same(self, table: Table) -> String {
        let key = table.key().iter().enumerate();
        let key = key.map(|(at, column)| format!("u.{column} = {}", self.field(table, at)));
        let key = key.collect::<Vec<_>>().join(" AND ");
        format!(
            "SELECT count(*) FROM {} JOIN {} AS u ON {key} WHERE u.ms = {}",
            self.rows,
            table.name(),
            self.field(table, table.key().len())
        )
    }

    /// The sums of a query, and the lists that it takes as JSON after `from`, `to`, `period` and `most`.
    pub(super) fn select(self, query: &UsageQuery) -> (String, Vec<String>) {
        let mut columns = vec!["hour - hour % $3".to_owned()];
        columns.extend(query.by.iter().map(|by| by.as_str().to_owned()));
        let (mut conditions, mut lists) = (String::new(), Vec::new());
        for (by, values) in &query.only {
            // A list of texts is JSON as Rust writes it; serde_json cannot fail on it.
            lists.push(serde_json::to_string(values).unwrap_or_default());
            let values = self.values.replace('$', &format!("${}", 4 + lists.len()));
            conditions.push_str(&format!(" AND {} IN ({values})", by.as_str()));
        }
        let group = (1..=query.by.len() + 1).map(|at| at.to_string());
        let group = group.collect::<Vec<_>>().join(", ");
        let text = format!(
            "SELECT {}, CAST(sum(ms) AS BIGINT) FROM {} WHERE hour >= $1 AND hour < $2{conditions} \
             GROUP BY {group} ORDER BY {group} LIMIT $4",
            columns.join(", "),
            query.table().name()
        );
        (text, lists)
    }
}

/// Writes down that usage by device is known since hour $1, unless it is known that less is.
pub(super) const KEPT_FROM: &str = "\
INSERT INTO usage_kept (one, devices_from) VALUES (1, $1) \
ON CONFLICT (one) DO UPDATE SET devices_from = excluded.devices_from \
WHERE usage_kept.devices_from < excluded.devices_from";
/// Since when it is known.
pub(super) const KNOWN_FROM: &str = "SELECT devices_from FROM usage_kept";
/// Of the oldest hour before $1 the rows of a few devices: a write of the journal waits for no more than that.
pub(super) const DROP_PIECE: &str = "\
DELETE FROM usage_devices WHERE hour = (SELECT min(hour) FROM usage_devices WHERE hour < $1) AND device IN \
(SELECT device FROM usage_devices WHERE hour = (SELECT min(hour) FROM usage_devices WHERE hour < $1) \
ORDER BY device LIMIT 500)";

/// How many rows a table has of the hours $1 to $2.
pub(super) fn count(table: Table) -> String {
    let name = table.name();
    format!("SELECT count(*) FROM {name} WHERE hour >= $1 AND hour < $2")
}

/// A row of [`Json::select`].
pub(super) fn sum<'r, R: Row>(row: &'r R, columns: usize) -> Result<UsageSum, sqlx::Error>
where
    usize: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    R::Database: Database,
{
    let of = (1..=columns).map(|at| row.try_get::<String, _>(at));
    let ms: i64 = row.try_get(columns + 1)?;
    Ok(UsageSum {
        period: Hour(row.try_get(0)?),
        of: of.collect::<Result<_, _>>()?,
        ms: u64::try_from(ms).map_err(|e| sqlx::Error::Decode(e.into()))?,
    })
}
