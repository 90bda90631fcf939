//! How long things last: a number with s, m, h or d, in a range.

use serde::Deserialize;

use crate::cli::seconds;

/// Seconds: `LEAST`..=`MOST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Life<const LEAST: i64, const MOST: i64>(i64);

impl<const LEAST: i64, const MOST: i64> Life<LEAST, MOST> {
    /// In seconds.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0
    }

    /// In milliseconds.
    #[must_use]
    pub fn milliseconds(self) -> u64 {
        u64::try_from(self.0).unwrap_or(0).saturating_mul(1000)
    }

    pub(super) const fn or(seconds: i64) -> Self {
        Self(seconds)
    }
}

impl<const LEAST: i64, const MOST: i64> TryFrom<String> for Life<LEAST, MOST> {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match seconds(&text)? {
            life if (LEAST..=MOST).contains(&life) => Ok(Self(life)),
            _ => Err(format!("{text} is not between {LEAST}s and {MOST}s")),
        }
    }
}
