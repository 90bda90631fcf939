//! Names and numbers that identify things. Each is validated where it is made, so holding one means it is valid.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A text that is not a valid name of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {rule}")]
pub struct InvalidName {
    /// Which kind of name.
    pub what: &'static str,
    /// What would be valid.
    pub rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks and takes the text.
            ///
            /// # Errors
            /// When the text breaks the rule of this name.
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidName { what: $what, rule: $rule })
                }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(&text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// Who is limited: the slug that stands in paths and that agents attribute processes to.
    TenantName,
    "tenant",
    "1 to 255 of A-Z a-z 0-9 . _ @ - and not '.' or '..'",
    |text| slug(text, 255, |b| b.is_ascii_alphanumeric() || b"._@-".contains(&b))
);
name!(
    /// A project of a tenant, as portals and clouds name it.
    ProjectId,
    "project",
    "1 to 255 of A-Z a-z 0-9 . _ @ - and not '.' or '..'",
    |text| slug(text, 255, |b| b.is_ascii_alphanumeric() || b"._@-".contains(&b))
);
name!(
    /// A GPU host, as its certificate names it.
    NodeName,
    "node",
    "1 to 63 of a-z 0-9 . _ - that begin and end with a letter or digit, without '..'",
    |text| {
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        slug(text, 63, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
            && edge(text.as_bytes().first())
            && edge(text.as_bytes().last())
            && !text.contains("..")
    }
);
name!(
    /// Where devices stand; free text of the operator.
    Region,
    "region",
    "1 to 64 characters without control characters or blanks at the ends",
    |text| plain(text, 64)
);
name!(
    /// What quotas call a kind of device, as the caller wrote it, e.g. `nvidia.com/gpu`.
    GpuModel,
    "gpu_model",
    "1 to 253 characters without control characters or blanks at the ends",
    |text| plain(text, 253)
);
name!(
    /// A pool of alike nodes, e.g. `TeslaM40`.
    GroupName,
    "resource group",
    "1 to 128 characters without control characters or blanks at the ends",
    |text| plain(text, 128)
);
name!(
    /// A site beside the central one.
    SiteId,
    "site_id",
    "1 to 64 of A-Z a-z 0-9 . _ -",
    |text| slug(text, 64, |b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
);
name!(
    /// What a dedicated-host portal calls a kind of host, e.g. `c4`.
    HostResourceName,
    "host resource",
    "1 to 64 of A-Z a-z 0-9 . _ -",
    |text| slug(text, 64, |b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
);
name!(
    /// Kind of a project's resource, e.g. `volumes`; upper and lower case differ.
    ResourceKind,
    "resource type",
    "1 to 64 of A-Z a-z 0-9 _",
    |text| slug(text, 64, |b| b.is_ascii_alphanumeric() || b == b'_')
);
name!(
    /// A short technical name, e.g. `DEMO_COMPANY`.
    Code,
    "code",
    "1 to 64 of A-Z a-z 0-9 . _ @ -",
    |text| slug(text, 64, |b| b.is_ascii_alphanumeric() || b"._@-".contains(&b))
);
name!(
    /// A name for people.
    DisplayName,
    "name",
    "1 to 255 characters without control characters or blanks at the ends",
    |text| plain(text, 255)
);
name!(
    /// What NVML calls a product or a vGPU type, e.g. `Tesla M40` or `NVIDIA L40S-8Q`.
    HardwareName,
    "hardware name",
    "1 to 255 characters without control characters or blanks at the ends",
    |text| plain(text, 255)
);
name!(
    /// Name of a label that a caller hangs on a lease, e.g. `job`.
    LabelName,
    "label",
    "1 to 63 of A-Z a-z 0-9 . _ / -",
    |text| slug(text, 63, |b| b.is_ascii_alphanumeric() || b"._/-".contains(&b))
);
name!(
    /// The caller's operation id; one id has one effect.
    OpId,
    "operation id",
    "1 to 1024 characters without control characters",
    |text| plain(text, 1024)
);

fn slug(text: &str, most: usize, allowed: fn(u8) -> bool) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(allowed) && text != "." && text != ".."
}

fn plain(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.chars().count())
        && !text.chars().any(char::is_control)
        && text.trim() == text
}

/// Our own number of a quota; never reused, grows with creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct QuotaId(pub u64);

/// The caller's own number of a quota: unique for a tenant, not beyond. 0..=2147483647.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reference(pub u32);

/// Largest number that portals and their clients take.
pub const LARGEST_NUMBER: u32 = 2_147_483_647;

/// A tenant's number in portals: unique, 1..=2147483647.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantNumber(pub u32);

/// A software product's number in portals: unique, 1..=2147483647.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProductId(pub u32);

/// Our number of a licence quota; never reused, grows with creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LicenceQuotaId(pub u64);

/// Our number of a seat; never reused, grows with creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SeatId(pub u64);

/// Our number of a lease; never reused, grows with every grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub u64);

/// Fencing epoch of a lease: each grant's is above all before it, so who shows the highest holds the device.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// Sessions of one node are numbered; only the newest is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub u64);

/// How often the journal was put back from a backup. Policies and sessions are ordered by it, then by row.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Incarnation(pub u32);

impl Incarnation {
    /// The largest that may be asked for: ids stay below 2^53, which every JSON reader takes exactly.
    pub const LARGEST: Self = Self(1_000_000);

    /// The next one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The lowest number that this incarnation gives out; the one before has 2^32 numbers of its own.
    #[must_use]
    pub fn first_id(self) -> u64 {
        u64::from(self.0) << 32
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Place of a row in the journal: 1, 2, 3, … without gaps; 0 is the empty journal.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The next row's place.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Later by so many milliseconds; stops at the end of the range.
    #[must_use]
    pub fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX)))
    }

    /// Earlier by so many milliseconds; stops at the end of the range.
    #[must_use]
    pub fn before(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_rules() {
        for good in [
            "gpu-operator",
            "45df5566cb3443ab910cf0daebcapoi8",
            "a@b.c",
            "...",
        ] {
            assert!(TenantName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", "a\n", &"a".repeat(256)] {
            assert!(TenantName::new(bad).is_err(), "{bad}");
        }
        for bad in ["GPU02", "-a", "a.", "a..b", ""] {
            assert!(NodeName::new(bad).is_err(), "{bad}");
        }
        assert!(Region::new("华东-1").is_ok());
        assert!(Region::new("T\r\nW").is_err());
        assert!(GpuModel::new(&"x".repeat(254)).is_err());
        assert!(serde_json::from_str::<TenantName>("\"a/b\"").is_err());
    }
}
