//! Values that several bodies of the native API share.

use std::str::FromStr;

use gpuquota_core::limit::Limit;
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::chosen_mode::ChosenMode;
use crate::rest::json::{Fields, invalid, missing};
use crate::rest::status::{Kind, Problem};

/// A limit on the wire: a count, -1 for unlimited, null for none set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rest) struct LimitField(pub(in crate::rest) Option<Limit>);

impl LimitField {
    /// Reads a limit that may be left out.
    pub(super) fn optional(fields: &Fields, name: &str) -> Result<Self, Problem> {
        if fields.get(name).and_then(Value::as_i64) == Some(-1) {
            return Ok(Self(Some(Limit::Unlimited)));
        }
        let count = fields.count(name).map_err(|_| {
            let rule = "must be a whole number from 0 to 2147483647, -1 for unlimited, or null";
            invalid(name, rule)
        })?;
        Ok(Self(count.map(Limit::Finite)))
    }

    /// Reads a limit that must be there, be it as null.
    pub(super) fn required(fields: &Fields, name: &str) -> Result<Self, Problem> {
        if !fields.has(name) {
            return Err(missing(name));
        }
        Self::optional(fields, name)
    }
}

impl Serialize for LimitField {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            None => to.serialize_none(),
            Some(Limit::Unlimited) => to.serialize_i64(-1),
            Some(Limit::Finite(count)) => to.serialize_u32(count),
        }
    }
}

/// Reads one of a few words.
pub(super) fn word_of<T: FromStr>(
    fields: &Fields,
    name: &str,
    rule: &str,
) -> Result<Option<T>, Problem> {
    let text = fields.text(name)?;
    text.map(|text| text.parse().map_err(|_| invalid(name, rule)))
        .transpose()
}

/// Reads whether a tenant or a region needs leases.
pub(super) fn lease_mode(fields: &Fields) -> Result<Option<ChosenMode>, Problem> {
    word_of(
        fields,
        "lease_mode",
        "must be optional, required or default",
    )
}

/// Reads an object that has a shape of its own; null is as if it were left out.
pub(super) fn shaped<T: DeserializeOwned>(
    fields: &Fields,
    name: &str,
) -> Result<Option<T>, Problem> {
    let value = fields.get(name).cloned().map(serde_json::from_value);
    value
        .transpose()
        .map_err(|error: serde_json::Error| invalid(name, error.to_string()))
}

/// Reads a number that names something: 1..=2147483647.
pub(super) fn number_of(fields: &Fields, name: &str) -> Result<Option<u32>, Problem> {
    let rule = "must be a whole number from 1 to 2147483647";
    match fields.count(name) {
        Ok(Some(0)) | Err(_) => Err(invalid(name, rule)),
        Ok(number) => Ok(number),
    }
}

/// Reads a number in a path that names something: 1..=2147483647, without sign or leading zeros.
pub(super) fn number_in_path(text: &str) -> Result<u32, &'static str> {
    let rule = "the number in the path must be a whole number from 1 to 2147483647";
    let plain = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse::<u32>().ok().filter(|_| plain);
    number
        .filter(|number| (1..=gpuquota_core::id::LARGEST_NUMBER).contains(number))
        .ok_or(rule)
}

/// What is asked for is not there.
pub(super) fn none(what: &str) -> Problem {
    Problem::new(Kind::NoSuchObject, format!("there is no such {what}"))
}
