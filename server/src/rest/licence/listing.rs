//! One page of the licence quotas that a caller sees, with the addresses of the pages around it (dialects D4.7).

use super::filter::{Filter, no_page};
use super::row::Row;
use super::table::{Holder, Table};
use crate::auth::{Principal, Role};
use crate::rest::status::Problem;

/// A page of rows.
pub(super) struct Page<'a> {
    /// Rows of all pages together.
    pub(super) count: usize,
    pub(super) rows: Vec<&'a Row>,
    number: usize,
    last: usize,
}

impl Page<'_> {
    /// The number of the page behind it.
    pub(super) fn next(&self) -> Option<usize> {
        (self.number < self.last).then_some(self.number + 1)
    }

    /// The number of the page before it.
    pub(super) fn previous(&self) -> Option<usize> {
        (self.number > 1).then(|| self.number - 1)
    }
}

/// The page that is asked for.
///
/// # Errors
/// When it is behind the last; the first is there even when it is empty.
pub(super) fn page<'a>(
    table: &'a Table,
    principal: &Principal,
    filter: &Filter,
) -> Result<Page<'a>, Problem> {
    let (first, size) = (
        (filter.page - 1).saturating_mul(filter.page_size),
        filter.page_size,
    );
    let (count, rows) = match (filter.tenant, principal.role) {
        (None, Role::Admin) => table.cut(&filter.selection, first, size),
        (Some(number), _) => {
            let holder = table.holders.get(&number).into_iter();
            let holder = holder.filter(|holder| principal.sees(&holder.tenant));
            cut(sorted(table, holder, filter).into_iter(), filter, first)
        }
        (None, Role::TenantAdmin | Role::Viewer) => {
            let holders = table.seen_by(principal);
            cut(sorted(table, holders, filter).into_iter(), filter, first)
        }
    };
    let last = count.div_ceil(size).max(1);
    if filter.page > last {
        return Err(no_page());
    }
    Ok(Page {
        count,
        rows,
        number: filter.page,
        last,
    })
}

fn sorted<'a>(
    table: &'a Table,
    holders: impl Iterator<Item = &'a Holder>,
    filter: &Filter,
) -> Vec<&'a Row> {
    let mut rows: Vec<&Row> = holders.flat_map(|holder| table.rows_of(holder)).collect();
    rows.sort_unstable_by(|a, b| filter.selection.compare(a, b));
    rows
}

// How many rows are taken, and those of the page.
fn cut<'a>(
    rows: impl Iterator<Item = &'a Row>,
    filter: &Filter,
    first: usize,
) -> (usize, Vec<&'a Row>) {
    let mut count = 0;
    let mut shown = Vec::new();
    for row in rows.filter(|row| filter.selection.takes(row)) {
        if count >= first && shown.len() < filter.page_size {
            shown.push(row);
        }
        count += 1;
    }
    (count, shown)
}

/// The query as it was sent, with another page.
pub(super) fn with_page(query: &str, page: usize) -> String {
    let page = format!("page={page}");
    let is_page = |part: &str| {
        let mut pairs = form_urlencoded::parse(part.as_bytes());
        pairs.next().is_some_and(|(name, _)| name == "page")
    };
    let parts = query.split('&').filter(|part| !part.is_empty());
    let mut parts: Vec<&str> = parts.collect();
    match parts.iter_mut().find(|part| is_page(part)) {
        Some(part) => *part = &page,
        None => parts.push(&page),
    }
    parts.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_page_changes_in_a_query() {
        for (sent, linked) in [
            ("", "page=7"),
            ("page=2", "page=7"),
            (
                "tenant=1&page=2&ordering=-id",
                "tenant=1&page=7&ordering=-id",
            ),
            ("tenant=%31&x=a%20b+c", "tenant=%31&x=a%20b+c&page=7"),
            ("p%61ge=2&xpage=3&page_size=1", "page=7&xpage=3&page_size=1"),
            ("&&page", "page=7"),
        ] {
            assert_eq!(with_page(sent, 7), linked, "{sent}");
        }
    }
}
