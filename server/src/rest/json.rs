//! JSON as the dialects take it: no key twice, nesting of at most 32, and fields with clear errors.

use std::collections::BTreeSet;
use std::fmt;

use gpuquota_core::id::InvalidName;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::status::{Kind, Problem};

const DEEPEST: usize = 32;
/// Longest list of a body.
pub(super) const LONGEST_LIST: usize = 1024;
/// Largest count on the wire (dialects D0.4).
pub(super) const LARGEST_COUNT: u32 = 2_147_483_647;

/// Parses a whole body.
///
/// # Errors
/// When it is not JSON, says a key twice, or nests too deep.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    let malformed = |e: serde_json::Error| {
        Problem::new(
            Kind::MalformedBody,
            format!("the body is not valid JSON: {e}"),
        )
    };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0 }
        .deserialize(&mut reader)
        .map_err(malformed)?;
    reader.end().map_err(malformed)?;
    Ok(value)
}

/// The fields of a JSON object.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Parses a body that must be an object; an empty body is an empty object.
    ///
    /// # Errors
    /// When it is something else.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        match parse(bytes)? {
            Value::Object(map) => Ok(Self(map)),
            _ => Err(Problem::new(
                Kind::MalformedBody,
                "the body must be a JSON object",
            )),
        }
    }

    /// Nothing was sent.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A field that is there and not null.
    #[must_use]
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// The field was sent, be it as null.
    #[must_use]
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The names of all fields, be they null.
    pub(super) fn named(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Every field that is not null.
    pub(super) fn entries(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// An optional object.
    ///
    /// # Errors
    /// When it is something else.
    pub(super) fn object(&self, name: &str) -> Result<Option<Self>, Problem> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self(map.clone()))),
            Some(_) => Err(invalid(name, "must be an object")),
        }
    }

    /// An optional switch.
    ///
    /// # Errors
    /// When it is something else.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Problem> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(invalid(name, "must be true or false")),
        }
    }

    /// An optional name, validated by its own rule.
    ///
    /// # Errors
    /// When it is no text or breaks the rule.
    pub(super) fn name<T>(
        &self,
        name: &str,
        new: fn(&str) -> Result<T, InvalidName>,
    ) -> Result<Option<T>, Problem> {
        let text = self.text(name)?;
        text.map(|text| new(text).map_err(|e| misnamed(name, &e)))
            .transpose()
    }

    /// An optional list of at most `most` names without order, each validated by its own rule.
    ///
    /// # Errors
    /// When it is no list of texts, it is longer, or one breaks the rule.
    pub(super) fn names<T: Ord>(
        &self,
        name: &str,
        most: usize,
        new: fn(&str) -> Result<T, InvalidName>,
    ) -> Result<Option<BTreeSet<T>>, Problem> {
        let rule = format!("must be a list of at most {most} texts");
        let list = match self.get(name) {
            None => return Ok(None),
            Some(Value::Array(list)) if list.len() <= most => list,
            Some(_) => return Err(invalid(name, rule)),
        };
        let mut names = BTreeSet::new();
        for value in list {
            let text = value.as_str().ok_or_else(|| invalid(name, &rule))?;
            names.insert(new(text).map_err(|e| misnamed(name, &e))?);
        }
        Ok(Some(names))
    }

    /// An optional text.
    ///
    /// # Errors
    /// When it is something else.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(invalid(name, "must be text")),
        }
    }

    /// An optional count, 0..=2147483647.
    ///
    /// # Errors
    /// When it is anything but such a whole number.
    pub(super) fn count(&self, name: &str) -> Result<Option<u32>, Problem> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        value
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| *number <= LARGEST_COUNT)
            .map(Some)
            .ok_or_else(|| invalid(name, "must be a whole number from 0 to 2147483647"))
    }
}

/// A field or parameter has a value that is not taken.
#[must_use]
pub(super) fn invalid(name: &str, rule: impl fmt::Display) -> Problem {
    Problem::new(Kind::InvalidField, format!("{name} {rule}")).of_field(name)
}

/// A field or parameter, by its own name, holds no valid name of its kind.
#[must_use]
pub(super) fn misnamed(name: &str, error: &InvalidName) -> Problem {
    invalid(name, format_args!("must be {}", error.rule))
}

/// A required field is not there.
#[must_use]
pub(super) fn missing(name: &str) -> Problem {
    Problem::new(Kind::MissingField, format!("{name} is required")).of_field(name)
}

struct Strict {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let depth = deeper::<A::Error>(self.depth)?;
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(Strict { depth })? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let depth = deeper::<A::Error>(self.depth)?;
        let mut values = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(Strict { depth })?;
            if values.insert(key, value).is_some() {
                return Err(A::Error::custom("a key stands twice in one object"));
            }
        }
        Ok(Value::Object(values))
    }
}

fn deeper<E: serde::de::Error>(depth: usize) -> Result<usize, E> {
    if depth >= DEEPEST {
        return Err(E::custom("nested deeper than 32"));
    }
    Ok(depth + 1)
}

#[cfg(test)]
mod tests {
    use gpuquota_core::id::SiteId;

    use super::*;

    #[test]
    fn case_25_hostile_json_is_refused() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(parse(deep(32).as_bytes()).is_ok());
        for bad in [
            deep(33).as_bytes(),
            "[".repeat(60_000).as_bytes(),
            br#"{"a":1,"a":1}"#,
            br#"{"x":{"a":1,"a":1}}"#,
            br#"{"a":"\ud800"}"#,
            b"\xef\xbb\xbf{}",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":NaN}",
            b"{\"a\":1e400}",
            b"{} {}",
            b"{\"a\":1,}",
        ] {
            let kind = parse(bad).map_err(|problem| problem.kind);
            assert_eq!(kind, Err(Kind::MalformedBody), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_list_of_names_is_as_long_as_it_is_written() {
        let names = |json: &str| {
            let fields = Fields::parse(format!("{{\"list\":{json}}}").as_bytes())?;
            let names = fields.names("list", 2, |text| Ok(text.to_owned()));
            names.map(|names| names.map_or(0, |names| names.len()))
        };
        assert_eq!(names(r#"["a","a"]"#), Ok(1));
        assert_eq!(names("null"), Ok(0));
        for bad in [r#"["a","a","a"]"#, r#"["a",1]"#, r#""a""#] {
            let kind = names(bad).map_err(|problem| problem.kind);
            assert_eq!(kind, Err(Kind::InvalidField), "{bad}");
        }
    }

    #[test]
    fn a_bad_name_is_told_by_its_field_and_its_rule() {
        let fields = Fields::parse(br#"{"site_id":"a b"}"#);
        let problem = fields.and_then(|fields| fields.name("site_id", SiteId::new));
        let message = problem.map_err(|problem| problem.message);
        let expected = "site_id must be 1 to 64 of A-Z a-z 0-9 . _ -".to_owned();
        assert_eq!(message, Err(expected));
    }

    #[test]
    fn case_26_counts_are_whole_numbers_in_range() {
        let count = |json: &str| {
            let fields = Fields::parse(format!("{{\"num\":{json}}}").as_bytes());
            fields.and_then(|fields| fields.count("num"))
        };
        assert_eq!(count("0"), Ok(Some(0)));
        assert_eq!(count("2147483647"), Ok(Some(LARGEST_COUNT)));
        assert_eq!(count("null"), Ok(None));
        for bad in [
            "-1",
            "2147483648",
            "9223372036854775808",
            "1.0",
            "1e2",
            "\"1\"",
            "true",
            "[1]",
            "-0",
        ] {
            assert!(count(bad).is_err(), "{bad}");
        }
    }
}
