//! Where two states differ, by the names of their rows.

use gpuquota_core::State;
use serde_json::Value;

/// How many rows of one table are named.
const MOST: usize = 5;

/// One line for each part of the state that differs, with its rows by name; empty when the two are the same, byte for
/// byte.
pub(super) fn difference(one: &State, other: &State) -> Result<Vec<String>, serde_json::Error> {
    if serde_json::to_vec(one)? == serde_json::to_vec(other)? {
        return Ok(Vec::new());
    }
    let (one, other) = (serde_json::to_value(one)?, serde_json::to_value(other)?);
    let mut lines: Vec<String> = keys(&one, &other)
        .into_iter()
        .filter(|table| one.get(table) != other.get(table))
        .map(|table| match (one.get(&table), other.get(&table)) {
            (Some(one), Some(other)) => format!("{table}: {}", rows(one, other)),
            _ => format!("{table}: only one has it"),
        })
        .collect();
    if lines.is_empty() {
        lines.push("the order of rows".to_owned());
    }
    Ok(lines)
}

fn rows(one: &Value, other: &Value) -> String {
    let names: Vec<String> = match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            let most = one.len().max(other.len());
            let differ = (0..most).filter(|at| one.get(*at) != other.get(*at));
            differ.map(|at| format!("row {}", at + 1)).collect()
        }
        (Value::Object(_), Value::Object(_)) => {
            let differ = keys(one, other).into_iter();
            differ
                .filter(|name| one.get(name) != other.get(name))
                .collect()
        }
        _ => return format!("{one} and {other}"),
    };
    let more = match names.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named: Vec<String> = names.into_iter().take(MOST).collect();
    format!("{}{more}", named.join(", "))
}

fn keys(one: &Value, other: &Value) -> Vec<String> {
    let of = |value: &Value| {
        let keys = value
            .as_object()
            .into_iter()
            .flat_map(|it| it.keys().cloned());
        keys.collect::<Vec<_>>()
    };
    let mut keys = of(one);
    keys.extend(of(other));
    keys.sort_unstable();
    keys.dedup();
    keys
}
