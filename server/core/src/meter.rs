//! GPU-seconds: of which class each device is at each moment, hour by hour.
//!
//! Time is whole milliseconds of journal rows. A device is of exactly one class from the row that shows it to the row
//! that takes it away, so in every hour the classes of a device add up to the time it existed, exactly. When it existed
//! is kept apart from what it was, and each reading of the meter compares the two.

mod class;
mod reading;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::device::DeviceKey;
use crate::id::{NodeName, Region, TenantName, Timestamp};
use crate::profile::CanonicalModel;

/// Milliseconds of an hour.
const HOUR_MS: i64 = 60 * 60 * 1000;

/// An hour of UTC, as a count of hours since 1970.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Hour(pub i64);

impl Hour {
    /// The hour that a moment lies in.
    #[must_use]
    pub fn of(at: Timestamp) -> Self {
        Self(at.0.div_euclid(HOUR_MS))
    }

    /// Its first moment.
    #[must_use]
    pub fn start(self) -> Timestamp {
        Timestamp(self.0.saturating_mul(HOUR_MS))
    }

    /// The hour after it.
    #[must_use]
    pub fn next(self) -> Self {
        self.plus(1)
    }

    /// So many hours later; stops at the end of the range.
    #[must_use]
    pub fn plus(self, hours: u32) -> Self {
        Self(self.0.saturating_add(i64::from(hours)))
    }

    /// How many hours `later` is after it; 0 when it is not.
    #[must_use]
    pub fn until(self, later: Self) -> u64 {
        if later > self {
            later.0.abs_diff(self.0)
        } else {
            0
        }
    }
}

/// What a device is at a moment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceClass {
    /// Held by tenants that may hold it; they share its time.
    Busy(BTreeSet<TenantName>),
    /// Leased, and held by nobody.
    LeasedIdle(TenantName),
    /// Neither held nor leased.
    Free,
    /// Held, but by nobody who may.
    Squatter,
    /// Not read: its node is not heard, or it does not answer.
    Unknown,
}

impl DeviceClass {
    // Who gets how much of `ms`: whole milliseconds each, and what does not divide goes to the first by name.
    fn shares(&self, ms: u64) -> Vec<(UsageClass, Option<&TenantName>, u64)> {
        match self {
            Self::Busy(tenants) => {
                let count = tenants.len().max(1) as u64;
                let (each, rest) = (ms / count, ms % count);
                let shares = tenants.iter().enumerate().map(|(at, tenant)| {
                    let own = if at == 0 { each + rest } else { each };
                    (UsageClass::Busy, Some(tenant), own)
                });
                shares.collect()
            }
            Self::LeasedIdle(tenant) => vec![(UsageClass::LeasedIdle, Some(tenant), ms)],
            Self::Free => vec![(UsageClass::Free, None, ms)],
            Self::Squatter => vec![(UsageClass::Squatter, None, ms)],
            Self::Unknown => vec![(UsageClass::Unknown, None, ms)],
        }
    }
}

/// Class of metered time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageClass {
    /// A tenant held it, and might.
    Busy,
    /// It was leased to a tenant, and nobody held it.
    LeasedIdle,
    /// Nobody had it.
    Free,
    /// Somebody held it who might not.
    Squatter,
    /// Nobody knows.
    Unknown,
}

impl UsageClass {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Busy,
        Self::LeasedIdle,
        Self::Free,
        Self::Squatter,
        Self::Unknown,
    ];

    /// The word of the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::LeasedIdle => "leased_idle",
            Self::Free => "free",
            Self::Squatter => "squatter",
            Self::Unknown => "unknown",
        }
    }
}

impl std::str::FromStr for UsageClass {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut all = Self::ALL.into_iter();
        all.find(|class| class.as_str() == text).ok_or(())
    }
}

/// Where metered time was spent, and on what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// On which node.
    pub node: NodeName,
    /// Where that stood.
    pub region: Region,
    /// What the device was.
    #[serde(rename = "gpu_model")]
    pub model: CanonicalModel,
}

/// Time of one device in one hour.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsageRow {
    /// In which hour.
    pub hour: Hour,
    /// Of which device.
    pub device: DeviceKey,
    /// Where it was.
    pub place: Place,
    /// Of which class.
    pub class: UsageClass,
    /// Whose; `None` for time that is nobody's.
    pub tenant: Option<TenantName>,
    /// How long, milliseconds, above 0.
    pub ms: u64,
}

/// Time for which devices existed in one hour.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallRow {
    /// In which hour.
    pub hour: Hour,
    /// Where.
    pub region: Region,
    /// Which devices.
    pub model: CanonicalModel,
    /// How long, milliseconds of all of them together, above 0.
    pub ms: u64,
}

/// Some hours as the meter has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metered {
    /// By hour, device, place, class and tenant, in that order.
    pub rows: Vec<UsageRow>,
    /// By hour, region and model, in that order.
    pub wall: Vec<WallRow>,
    /// By how much classes and existence differ, summed over devices and hours, milliseconds. Anything but 0 is a defect.
    pub error_ms: u64,
}

/// From when to when a device was something; `end` is not part of it.
#[derive(Clone, Copy)]
pub(crate) struct Stretch {
    pub(crate) since: Timestamp,
    pub(crate) end: Timestamp,
}

impl Stretch {
    // Hour by hour, as far as it lies within `window`.
    fn hours(self, window: Self) -> impl Iterator<Item = (Hour, u64)> {
        let end = self.end.min(window.end);
        let mut at = self.since.max(window.since);
        std::iter::from_fn(move || {
            let hour = Hour::of(at);
            let cut = hour.next().start().min(end);
            (at < end).then(|| {
                let ms = cut.0.abs_diff(at.0);
                at = cut;
                (hour, ms)
            })
        })
    }
}
