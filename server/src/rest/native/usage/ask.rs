//! What a request for usage asks, and what of it the caller may see.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::State;
use gpuquota_core::device::DeviceKey;
use gpuquota_core::id::{GpuModel, NodeName, Region, TenantName, Timestamp};
use gpuquota_core::meter::{Hour, UsageClass};

use crate::auth::Role;
use crate::rest::call::Call;
use crate::rest::json::invalid;
use crate::rest::status::{Kind, Problem};
use crate::rest::time;
use crate::store::{UsageBy, UsageQuery};

const DAY: i64 = 24;
/// Longest range by hours and by days, hours.
const MOST_HOURS: u64 = 31 * 24;
const MOST_DAYS: u64 = 400 * 24;
/// Rows of one answer as JSON, unless it says how many.
const PAGE: usize = 1000;
/// Rows of one answer at most, all pages together.
pub(super) const MOST_ROWS: u32 = 100_000;

/// A request for usage.
pub(super) struct Ask {
    /// What to add up; classes are told apart always.
    pub(super) query: UsageQuery,
    /// What the answer tells apart.
    pub(super) told: BTreeSet<UsageBy>,
    pub(super) csv: bool,
    pub(super) offset: usize,
    pub(super) limit: usize,
}

impl Ask {
    /// Reads the parameters.
    ///
    /// # Errors
    /// When one has a value that is not taken.
    pub(super) fn of(call: &Call, state: &State, now: Timestamp) -> Result<Self, Problem> {
        let period = match call.query.single("by")? {
            None | Some("hour") => 1,
            Some("day") => DAY,
            Some(_) => return Err(invalid("by", "must be hour or day")),
        };
        let csv = match call.query.single("format")? {
            None => call.accept.as_deref().is_some_and(prefers_csv),
            Some("csv") => true,
            Some("json") => false,
            Some(_) => return Err(invalid("format", "must be json or csv")),
        };
        let (from, to) = range(call, period, now)?;
        let told = told_apart(call)?;
        let mut by = told.clone();
        by.insert(UsageBy::Class);
        let query = UsageQuery {
            from,
            to,
            period,
            by,
            only: only(call, state)?,
            most: MOST_ROWS,
        };
        let named = query.by.iter().chain(query.only.keys());
        let of_hardware = |by: &&UsageBy| matches!(by, UsageBy::Node | UsageBy::Device);
        if call.principal.role != Role::Admin && named.into_iter().any(|by| of_hardware(&by)) {
            return Err(Problem::new(
                Kind::Forbidden,
                "only an administrator may ask for usage by node or device",
            ));
        }
        let everything = if csv { count(MOST_ROWS) } else { PAGE };
        Ok(Self {
            query,
            told,
            csv,
            offset: number(call, "offset", 0)?.unwrap_or(0),
            limit: number(call, "limit", 1)?.unwrap_or(everything),
        })
    }

    /// The request for the time for which devices existed, where the caller sees all of it and asks for all of it.
    pub(super) fn wall(&self) -> Option<UsageQuery> {
        let mut only = self.query.only.clone();
        if only.remove(&UsageBy::Class)? != UsageQuery::classes() {
            return None;
        }
        let of_place = |by: &UsageBy| matches!(by, UsageBy::Region | UsageBy::GpuModel);
        only.keys().all(of_place).then(|| {
            only.insert(UsageBy::Class, [crate::store::WALL.to_owned()].into());
            UsageQuery {
                by: BTreeSet::new(),
                only,
                ..self.query.clone()
            }
        })
    }
}

fn count(most: u32) -> usize {
    usize::try_from(most).unwrap_or(usize::MAX)
}

// JSON, unless the header names only CSV of the two.
fn prefers_csv(accept: &str) -> bool {
    let names = |kind: &str| {
        let mut parts = accept.split(',').map(|part| part.split(';').next());
        parts.any(|part| part.is_some_and(|part| part.trim().eq_ignore_ascii_case(kind)))
    };
    names("text/csv") && !names("application/json")
}

// Whole periods: the beginning goes down, the end up.
fn range(call: &Call, period: i64, now: Timestamp) -> Result<(Hour, Hour), Problem> {
    let read = |name| match call.query.single(name)? {
        None => Ok(None),
        Some(text) => {
            let at = time::parse(text).filter(|at| at.0 >= 0);
            let rule = "must be a date or a time of RFC 3339, from 1970 on";
            at.map(Some).ok_or_else(|| invalid(name, rule))
        }
    };
    let down = |hour: Hour| Hour(hour.0 - hour.0.rem_euclid(period));
    let up = |at: Timestamp| {
        let hour = down(Hour::of(at));
        if hour.start() < at {
            Hour(hour.0 + period)
        } else {
            hour
        }
    };
    let to = read("to")?.map_or_else(|| Hour(down(Hour::of(now)).0 + period), up);
    let usual = if period == DAY { 31 * DAY } else { DAY };
    let from = read("from")?.map_or(Hour((to.0 - usual).max(0)), Hour::of);
    let from = down(from);
    if from >= to {
        return Err(invalid("from", "must be before to"));
    }
    let most = if period == DAY { MOST_DAYS } else { MOST_HOURS };
    if from.until(to) > most {
        let rule = "must be at most 31 days after from, or 400 days by day";
        return Err(invalid("to", rule));
    }
    Ok((from, to))
}

fn told_apart(call: &Call) -> Result<BTreeSet<UsageBy>, Problem> {
    use UsageBy::{Class, GpuModel, Region, Tenant};
    let Some(text) = call.query.single("group_by")? else {
        return Ok([Tenant, Region, GpuModel, Class].into());
    };
    let words = text.split(',').filter(|word| !word.is_empty());
    let told = words.map(|word| word.parse::<UsageBy>());
    let rule = "must name some of tenant, region, gpu_model, class, node and device, with commas";
    told.collect::<Result<_, _>>()
        .map_err(|()| invalid("group_by", rule))
}

fn only(call: &Call, state: &State) -> Result<BTreeMap<UsageBy, BTreeSet<String>>, Problem> {
    let mut only: BTreeMap<UsageBy, BTreeSet<String>> = BTreeMap::new();
    for by in UsageBy::ALL {
        let Some(text) = call.query.single(by.as_str())? else {
            continue;
        };
        let value = value(by, text, state).map_err(|rule| invalid(by.as_str(), rule))?;
        only.insert(by, [value].into());
    }
    let (mut tenants, mut classes) = (None, UsageQuery::classes());
    if call.principal.role != Role::Admin {
        // What is nobody's, and what is anothers, is not theirs to see.
        let own = call.principal.tenants.iter();
        tenants = Some(own.map(|name| name.as_str().to_owned()).collect());
        classes = [UsageClass::Busy, UsageClass::LeasedIdle]
            .map(|class| class.as_str().to_owned())
            .into();
    }
    narrow(&mut only, UsageBy::Class, classes);
    if let Some(tenants) = tenants {
        narrow(&mut only, UsageBy::Tenant, tenants);
    }
    Ok(only)
}

fn narrow(only: &mut BTreeMap<UsageBy, BTreeSet<String>>, by: UsageBy, seen: BTreeSet<String>) {
    let asked = only.entry(by).or_insert_with(|| seen.clone());
    asked.retain(|value| seen.contains(value));
}

fn value(by: UsageBy, text: &str, state: &State) -> Result<String, String> {
    let wrong = |e: gpuquota_core::id::InvalidName| format!("must be {}", e.rule);
    match by {
        UsageBy::Tenant => TenantName::new(text).map(String::from).map_err(wrong),
        UsageBy::Region => Region::new(text).map(String::from).map_err(wrong),
        UsageBy::GpuModel => {
            let model = GpuModel::new(text).map_err(wrong)?;
            Ok(state.catalogue().canonical(&model).as_str().to_owned())
        }
        UsageBy::Class => {
            let class = text.parse::<UsageClass>();
            let rule = "must be busy, leased_idle, free, squatter or unknown";
            class
                .map(|class| class.as_str().to_owned())
                .map_err(|()| rule.to_owned())
        }
        UsageBy::Node => NodeName::new(text).map(String::from).map_err(wrong),
        UsageBy::Device => {
            let device = text.parse::<DeviceKey>();
            device.map(|key| key.to_string()).map_err(|e| e.to_string())
        }
    }
}

fn number(call: &Call, name: &str, least: usize) -> Result<Option<usize>, Problem> {
    let Some(text) = call.query.single(name)? else {
        return Ok(None);
    };
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse::<usize>().ok().filter(|_| plain);
    let fits = number.filter(|number| (least..=count(MOST_ROWS)).contains(number));
    let rule = || format!("must be a whole number from {least} to {MOST_ROWS}");
    fits.map(Some).ok_or_else(|| invalid(name, rule()))
}
