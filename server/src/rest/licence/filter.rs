//! What a list asks for: filters, order and page, out of the query (dialects D4.3, D4.6, D4.8).

use std::cmp::Ordering;

use gpuquota_core::id::Timestamp;

use super::rate::Threshold;
use super::row::Row;
use crate::rest::json::{LARGEST_COUNT, invalid};
use crate::rest::query::Query;
use crate::rest::status::{Kind, Problem};
use crate::rest::time;

const PAGE_SIZE: usize = 50;
const LARGEST_PAGE_SIZE: usize = 200;

/// Whose rows, which of them, and from where.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) tenant: Option<u32>,
    pub(super) selection: Selection,
    pub(super) page: usize,
    pub(super) page_size: usize,
}

/// Which of the rows, in which order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Selection {
    product: Option<u32>,
    is_active: Option<bool>,
    expires_before: Option<Timestamp>,
    usage_rate_gte: Option<Threshold>,
    order: Order,
}

/// By which column, and in which direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Order {
    by: Column,
    descending: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Column {
    Id,
    MaxLicenses,
    UsedLicenses,
    UsageRate,
    ExpiresAt,
    CreatedAt,
    UpdatedAt,
}

impl Filter {
    /// Reads the query.
    ///
    /// # Errors
    /// When a parameter has a value that is not taken; last of all when the page cannot exist.
    pub(super) fn read(query: &Query) -> Result<Self, Problem> {
        let single = |name| query.single(name);
        let page = single("page")?;
        Ok(Self {
            tenant: number("tenant", single("tenant")?)?,
            selection: Selection {
                product: number("software_product", single("software_product")?)?,
                is_active: switch("is_active", single("is_active")?)?,
                expires_before: date("expires_before", single("expires_before")?)?,
                usage_rate_gte: threshold("usage_rate_gte", single("usage_rate_gte")?)?,
                order: order("ordering", single("ordering")?)?,
            },
            page_size: page_size("page_size", single("page_size")?)?,
            page: match page {
                None => 1,
                Some(text) => whole(text).filter(|page| *page > 0).ok_or_else(no_page)?,
            },
        })
    }
}

impl Selection {
    const EVERYTHING: Self = Self {
        product: None,
        is_active: None,
        expires_before: None,
        usage_rate_gte: None,
        order: Order::CREATION,
    };

    /// Whether it takes every row where it stands.
    pub(super) fn is_everything(&self) -> bool {
        *self == Self::EVERYTHING
    }

    /// Compares rows by its order.
    pub(super) fn compare(&self, a: &Row, b: &Row) -> Ordering {
        self.order.compare(a, b)
    }

    /// Whether it takes a row.
    pub(super) fn takes(&self, row: &Row) -> bool {
        let before = |day| row.expires_at.is_some_and(|end| end < day);
        self.product.is_none_or(|product| product == row.product.id)
            && self.is_active.is_none_or(|active| active == row.is_active)
            && self.expires_before.is_none_or(before)
            && self
                .usage_rate_gte
                .is_none_or(|threshold| row.rate.at_least(threshold))
    }
}

impl Order {
    const CREATION: Self = Self {
        by: Column::Id,
        descending: false,
    };

    /// Compares rows; those that are alike by id.
    fn compare(self, a: &Row, b: &Row) -> Ordering {
        let ordering = compare(self.by, a, b);
        let ordering = match self.descending {
            true => ordering.reverse(),
            false => ordering,
        };
        ordering.then(a.id.cmp(&b.id))
    }
}

fn compare(by: Column, a: &Row, b: &Row) -> Ordering {
    match by {
        Column::Id => a.id.cmp(&b.id),
        Column::MaxLicenses => a.rate.max.cmp(&b.rate.max),
        Column::UsedLicenses => a.rate.used.cmp(&b.rate.used),
        Column::UsageRate => a.rate.compare(b.rate),
        // What never ends ends last.
        Column::ExpiresAt => {
            let end = |row: &Row| (row.expires_at.is_none(), row.expires_at);
            end(a).cmp(&end(b))
        }
        Column::CreatedAt => a.created_at.cmp(&b.created_at),
        Column::UpdatedAt => a.updated_at.cmp(&b.updated_at),
    }
}

/// A page that is not there (dialects D4.6).
pub(super) fn no_page() -> Problem {
    Problem::new(Kind::NoSuchObject, "there is no such page")
}

fn whole(text: &str) -> Option<usize> {
    let digits = (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

fn number(name: &str, text: Option<&str>) -> Result<Option<u32>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let number = whole(text).and_then(|number| u32::try_from(number).ok());
    match number.filter(|number| *number <= LARGEST_COUNT) {
        None => Err(invalid(name, "must be a whole number from 0 to 2147483647")),
        known => Ok(known),
    }
}

fn switch(name: &str, text: Option<&str>) -> Result<Option<bool>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let any = |words: [&str; 2]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if any(["true", "1"]) {
        Ok(Some(true))
    } else if any(["false", "0"]) {
        Ok(Some(false))
    } else {
        Err(invalid(name, "must be true or false"))
    }
}

fn date(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let rule = "must be a date such as 2026-01-02, or an RFC 3339 time";
    let date = time::parse(text).ok_or_else(|| invalid(name, rule))?;
    Ok(Some(date))
}

fn threshold(name: &str, text: Option<&str>) -> Result<Option<Threshold>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let rule =
        "must be a decimal fraction from 0 on, such as 0.8 for 80 percent, with at most 18 digits";
    let threshold = Threshold::parse(text).ok_or_else(|| invalid(name, rule))?;
    Ok(Some(threshold))
}

fn order(name: &str, text: Option<&str>) -> Result<Order, Problem> {
    let Some(text) = text else {
        return Ok(Order::CREATION);
    };
    let rule = "must be id, max_licenses, used_licenses, usage_rate, expires_at, created_at or updated_at, \
                with - before it for the other direction";
    let (word, descending) = match text.strip_prefix('-') {
        Some(word) => (word, true),
        None => (text, false),
    };
    let by = match word {
        "id" => Column::Id,
        "max_licenses" => Column::MaxLicenses,
        "used_licenses" => Column::UsedLicenses,
        "usage_rate" => Column::UsageRate,
        "expires_at" => Column::ExpiresAt,
        "created_at" => Column::CreatedAt,
        "updated_at" => Column::UpdatedAt,
        _ => return Err(invalid(name, rule)),
    };
    Ok(Order { by, descending })
}

fn page_size(name: &str, text: Option<&str>) -> Result<usize, Problem> {
    let Some(text) = text else {
        return Ok(PAGE_SIZE);
    };
    whole(text)
        .filter(|size| (1..=LARGEST_PAGE_SIZE).contains(size))
        .ok_or_else(|| invalid(name, "must be a whole number from 1 to 200"))
}
