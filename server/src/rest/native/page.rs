//! Pages of lists that go on after a number.

use crate::rest::json::invalid;
use crate::rest::query::Query;
use crate::rest::status::Problem;

/// What is listed on one page at most, and where nobody says how much.
pub(in crate::rest) const LARGEST_PAGE: u32 = 1000;
pub(in crate::rest) const USUAL_PAGE: u32 = 100;

/// Numbers of the ledger's rows and things have at most so many digits.
const MOST_DIGITS: usize = 18;

/// `limit`: so many at most, 1..=[`LARGEST_PAGE`].
pub(super) fn limit(query: &Query) -> Result<usize, Problem> {
    let limit = match query.single("limit")? {
        None => Some(u64::from(USUAL_PAGE)),
        Some(text) => digits(text).filter(|limit| (1..=u64::from(LARGEST_PAGE)).contains(limit)),
    };
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    let rule = || format!("must be a whole number from 1 to {LARGEST_PAGE}");
    limit.ok_or_else(|| invalid("limit", rule()))
}

/// `after`: only what has a higher number.
pub(super) fn after(query: &Query) -> Result<Option<u64>, Problem> {
    let after = query.single("after")?.map(|text| {
        let rule = || format!("must be a whole number of at most {MOST_DIGITS} digits");
        digits(text).ok_or_else(|| invalid("after", rule()))
    });
    after.transpose()
}

/// A number in a path, without leading zeros.
pub(super) fn number_in_path(text: &str) -> Option<u64> {
    digits(text).filter(|_| text == "0" || !text.starts_with('0'))
}

fn digits(text: &str) -> Option<u64> {
    let plain = (1..=MOST_DIGITS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}
