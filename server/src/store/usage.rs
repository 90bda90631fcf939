//! GPU-seconds of hours that are over, as databases keep them beside the journal: rows and queries.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::id::TenantName;
use gpuquota_core::meter::{Hour, Metered, UsageClass};

use super::{Store, StoreError};

/// The class under which the time stands for which devices existed.
pub const WALL: &str = "wall";
/// Rows of one statement: a write of the journal waits for no more than that.
const PIECE: usize = 500;

/// Time by hour, region, model, class and tenant.
type HourRow = (i64, String, String, String, String, u64);
/// Time by hour, device, node, region, model, class and tenant.
type DeviceRow = (i64, String, String, String, String, String, String, u64);

/// Whole hours to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageHours {
    /// The first.
    pub from: Hour,
    /// The one after the last.
    pub to: Hour,
    hours: Vec<HourRow>,
    devices: Vec<DeviceRow>,
}

impl UsageHours {
    /// The hours `from..to` as the meter has them.
    #[must_use]
    pub fn of(from: Hour, to: Hour, metered: &Metered) -> Self {
        let text = |tenant: &Option<TenantName>| {
            let tenant = tenant.as_ref().map(TenantName::as_str);
            tenant.unwrap_or_default().to_owned()
        };
        let mut sums: BTreeMap<_, u64> = BTreeMap::new();
        for row in &metered.rows {
            let place = &row.place;
            let (class, tenant) = (row.class.as_str(), text(&row.tenant));
            let key = (
                row.hour.0,
                place.region.as_str(),
                place.model.as_str(),
                class,
                tenant,
            );
            *sums.entry(key).or_default() += row.ms;
        }
        for row in &metered.wall {
            let key = (
                row.hour.0,
                row.region.as_str(),
                row.model.as_str(),
                WALL,
                String::new(),
            );
            *sums.entry(key).or_default() += row.ms;
        }
        let hours = sums.into_iter();
        let devices = metered.rows.iter().map(|row| {
            let place = &row.place;
            (
                row.hour.0,
                row.device.to_string(),
                place.node.as_str().to_owned(),
                place.region.as_str().to_owned(),
                place.model.as_str().to_owned(),
                row.class.as_str().to_owned(),
                text(&row.tenant),
                row.ms,
            )
        });
        Self {
            from,
            to,
            hours: hours
                .map(|((hour, region, model, class, tenant), ms)| {
                    let (region, model, class) =
                        (region.to_owned(), model.to_owned(), class.to_owned());
                    (hour, region, model, class, tenant, ms)
                })
                .collect(),
            devices: devices.collect(),
        }
    }

    /// One hour as another store has it.
    ///
    /// # Errors
    /// When that one does not answer.
    pub async fn read(from: &dyn Store, hour: Hour) -> Result<Self, StoreError> {
        let all = |by: &[UsageBy]| UsageQuery {
            from: hour,
            to: hour.next(),
            period: 1,
            by: by.iter().copied().collect(),
            only: BTreeMap::new(),
            most: u32::MAX,
        };
        let [tenant, region, model, class, ..] = UsageBy::ALL;
        let hours = from.usage(&all(&[tenant, region, model, class])).await?;
        let devices = from.usage(&all(&UsageBy::ALL)).await?;
        let hours = hours.into_iter().filter_map(|row| {
            let [tenant, region, model, class] = row.of.try_into().ok()?;
            Some((row.period.0, region, model, class, tenant, row.ms))
        });
        let devices = devices.into_iter().filter_map(|row| {
            let [tenant, region, model, class, node, device] = row.of.try_into().ok()?;
            Some((
                row.period.0,
                device,
                node,
                region,
                model,
                class,
                tenant,
                row.ms,
            ))
        });
        Ok(Self {
            from: hour,
            to: hour.next(),
            hours: hours.collect(),
            devices: devices.collect(),
        })
    }

    /// Pieces of both tables as JSON lists of rows, with how many each has.
    pub(super) fn pieces(
        &self,
    ) -> impl Iterator<Item = (Table, serde_json::Result<String>, usize)> {
        let hours = self.hours.chunks(PIECE);
        let hours = hours.map(|rows| (Table::Hours, serde_json::to_string(rows), rows.len()));
        let devices = self.devices.chunks(PIECE);
        let devices = devices.map(|rows| (Table::Devices, serde_json::to_string(rows), rows.len()));
        devices.chain(hours)
    }

    /// Rows that a table has of these hours once they are stored.
    pub(super) fn count(&self, table: Table) -> usize {
        match table {
            Table::Hours => self.hours.len(),
            Table::Devices => self.devices.len(),
        }
    }
}

/// What became of storing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageKept {
    /// The table has these rows and no others of these hours.
    Same,
    /// The table had other rows of these hours.
    Differs,
}

/// A table of usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Hours,
    Devices,
}

impl Table {
    pub(super) const ALL: [Self; 2] = [Self::Devices, Self::Hours];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hours => "usage_hours",
            Self::Devices => "usage_devices",
        }
    }

    /// What makes a row of it that row, in order.
    pub(super) fn key(self) -> &'static [&'static str] {
        match self {
            Self::Hours => &["hour", "region", "gpu_model", "class", "tenant"],
            Self::Devices => &[
                "hour",
                "device",
                "node",
                "region",
                "gpu_model",
                "class",
                "tenant",
            ],
        }
    }
}

/// What usage can be told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UsageBy {
    /// Whose it was.
    Tenant,
    /// Where.
    Region,
    /// On what.
    GpuModel,
    /// Of which class.
    Class,
    /// On which node.
    Node,
    /// On which device.
    Device,
}

impl UsageBy {
    /// All of them, in the order of answers.
    pub const ALL: [Self; 6] = [
        Self::Tenant,
        Self::Region,
        Self::GpuModel,
        Self::Class,
        Self::Node,
        Self::Device,
    ];

    /// The word of the wire, and the column.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Region => "region",
            Self::GpuModel => "gpu_model",
            Self::Class => "class",
            Self::Node => "node",
            Self::Device => "device",
        }
    }
}

impl std::str::FromStr for UsageBy {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut all = Self::ALL.into_iter();
        all.find(|by| by.as_str() == text).ok_or(())
    }
}

/// Which usage to add up, and what to tell apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageQuery {
    /// From this hour.
    pub from: Hour,
    /// To before this one.
    pub to: Hour,
    /// Hours of one period: 1, or 24 for days of UTC.
    pub period: i64,
    /// What to tell apart.
    pub by: BTreeSet<UsageBy>,
    /// Only these values; a list that is empty lets nothing through.
    pub only: BTreeMap<UsageBy, BTreeSet<String>>,
    /// Rows at most; one more is given where there are more.
    pub most: u32,
}

impl UsageQuery {
    /// All of the classes that add up, which leaves out the time for which devices existed.
    #[must_use]
    pub fn classes() -> BTreeSet<String> {
        let all = UsageClass::ALL.into_iter();
        all.map(|class| class.as_str().to_owned()).collect()
    }

    /// Beginning of the period that an hour is in.
    #[must_use]
    pub fn period_of(&self, hour: Hour) -> Hour {
        Hour(hour.0 - hour.0.rem_euclid(self.period))
    }

    /// Whether it is answered from what is kept by device.
    #[must_use]
    pub fn by_device(&self) -> bool {
        let mut named = self.by.iter().chain(self.only.keys());
        named.any(|by| matches!(by, UsageBy::Node | UsageBy::Device))
    }

    pub(super) fn table(&self) -> Table {
        if self.by_device() {
            Table::Devices
        } else {
            Table::Hours
        }
    }
}

/// Time of one period and group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageSum {
    /// First hour of the period.
    pub period: Hour,
    /// What was told apart, in the order of [`UsageBy`].
    pub of: Vec<String>,
    /// How long, milliseconds.
    pub ms: u64,
}
