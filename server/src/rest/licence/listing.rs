//! One page of the licence quotas that a caller sees, with the addresses of the pages around it (dialects D4.7).

use super::filter::{Filter, no_page};
use super::row::Row;
use super::table::Table;
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
    if principal.role == Role::Admin && filter.takes_all() {
        return cut(table.rows.len(), filter, |first, size| {
            table.rows.iter().skip(first).take(size).collect()
        });
    }
    let rows = wanted(table, principal, filter);
    cut(rows.len(), filter, |first, size| {
        rows.iter().skip(first).take(size).copied().collect()
    })
}

fn wanted<'a>(table: &'a Table, principal: &Principal, filter: &Filter) -> Vec<&'a Row> {
    let mut rows: Vec<&Row> = match (filter.tenant, principal.role) {
        (Some(number), _) => {
            let holder = table.holders.get(&number).into_iter();
            let holder = holder.filter(|holder| principal.sees(&holder.tenant));
            holder.flat_map(|holder| table.rows_of(holder)).collect()
        }
        (None, Role::Admin) => table.rows.iter().collect(),
        (None, Role::TenantAdmin | Role::Viewer) => {
            let holders = table.seen_by(principal);
            let mut rows: Vec<&Row> = holders.flat_map(|holder| table.rows_of(holder)).collect();
            rows.sort_by_key(|row| row.id);
            rows
        }
    };
    rows.retain(|row| filter.takes(row));
    filter.sort(&mut rows);
    rows
}

fn cut<'a>(
    count: usize,
    filter: &Filter,
    rows: impl FnOnce(usize, usize) -> Vec<&'a Row>,
) -> Result<Page<'a>, Problem> {
    let last = count.div_ceil(filter.page_size).max(1);
    if filter.page > last {
        return Err(no_page());
    }
    Ok(Page {
        count,
        rows: rows((filter.page - 1) * filter.page_size, filter.page_size),
        number: filter.page,
        last,
    })
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
