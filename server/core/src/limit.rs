//! How much a quota lets a tenant hold. 0, absent and -1 are three different inputs; none of them is a magic number here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Upper bound of a quota, in devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// No bound by contract; the hardware still bounds.
    Unlimited,
    /// At most so many.
    Finite(u32),
}

impl Limit {
    /// Whether `used + asked` stays within.
    #[must_use]
    pub fn admits(self, used: u64, asked: u64) -> bool {
        match self {
            Self::Unlimited => true,
            Self::Finite(limit) => used
                .checked_add(asked)
                .is_some_and(|total| total <= u64::from(limit)),
        }
    }

    /// How much more than `used` it admits.
    #[must_use]
    pub fn room(self, used: u64) -> u64 {
        match self {
            Self::Unlimited => u64::MAX,
            Self::Finite(limit) => u64::from(limit).saturating_sub(used),
        }
    }

    /// Whether it admits all that `other` does.
    #[must_use]
    pub fn at_least(self, other: Self) -> bool {
        match (self, other) {
            (Self::Unlimited, _) => true,
            (Self::Finite(_), Self::Unlimited) => false,
            (Self::Finite(limit), Self::Finite(other)) => limit >= other,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("unlimited"),
            Self::Finite(limit) => limit.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_up_to_the_limit_and_never_wraps() {
        assert!(Limit::Finite(2).admits(1, 1));
        assert!(!Limit::Finite(2).admits(2, 1));
        assert!(!Limit::Finite(0).admits(0, 1));
        assert!(!Limit::Finite(u32::MAX).admits(u64::MAX, 1));
        assert!(Limit::Unlimited.admits(u64::MAX, u64::MAX));
    }
}
