//! What a route of the native API takes: the fields and query parameters that its OpenAPI description names, and no others. A misspelt
//! `dry_run` would do the real thing. The five documents have it otherwise: there unknown fields are ignored (dialects D0.9), and
//! only a misspelling of what this server adds to them is refused.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use http::Method;

use super::call::Call;
use super::json::{Fields, invalid};
use super::routes::{Dialect, ROUTES};
use super::status::Problem;

/// What this server adds to the queries of document 000.
const ADDED: [&str; 3] = ["dry_run", "force", "on_excess"];

struct Takes {
    fields: BTreeSet<String>,
    /// Not looked at, and no mistake: what was read may be sent back.
    answered: BTreeSet<String>,
    parameters: BTreeSet<String>,
}

static TAKES: LazyLock<HashMap<(Method, &'static str), Takes>> = LazyLock::new(|| {
    let native = ROUTES
        .iter()
        .filter(|route| route.dialect == Dialect::Native);
    let takes = native.map(|route| {
        let operation = (route.describe)();
        let takes = Takes {
            parameters: operation.queries(),
            fields: operation.fields,
            answered: operation.answered,
        };
        ((route.method.clone(), route.path), takes)
    });
    takes.collect()
});

impl Call {
    /// The body's fields, all of which the route takes.
    ///
    /// # Errors
    /// When it is no JSON object, or has others.
    pub(super) fn fields(&self) -> Result<Fields, Problem> {
        let fields = Fields::parse(&self.body)?;
        let takes = TAKES.get(&(self.method.clone(), self.pattern));
        let Some(Takes {
            fields: known,
            answered,
            ..
        }) = takes
        else {
            return Ok(fields);
        };
        let is_known = |name: &&str| known.contains(*name) || answered.contains(*name);
        let other = fields.named().find(|name| !is_known(name));
        match other.map(|other| unknown("field", other, known)) {
            Some(refused) => Err(refused),
            None => Ok(fields),
        }
    }
}

/// Refuses query parameters that the route does not take.
///
/// # Errors
/// When there is one.
pub(super) fn queries(call: &Call, dialect: Dialect) -> Result<(), Problem> {
    let mut names = call.query.names();
    match dialect {
        Dialect::Native => {
            let Some(takes) = TAKES.get(&(call.method.clone(), call.pattern)) else {
                return Ok(());
            };
            match names.find(|name| !takes.parameters.contains(*name)) {
                Some(other) => Err(unknown("query parameter", other, &takes.parameters)),
                None => Ok(()),
            }
        }
        Dialect::GpuQuota if call.method != Method::GET => {
            let meant = |name: &str| {
                let known = ADDED.iter().find(|known| plain(known) == plain(name));
                known.filter(|known| **known != name).copied()
            };
            match names.find_map(|name| Some((name.to_owned(), meant(name)?))) {
                Some((name, known)) => Err(invalid(&name, format!("is written {known}"))),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn plain(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

fn unknown(what: &str, name: &str, known: &BTreeSet<String>) -> Problem {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let rule = match known.as_slice() {
        [] => format!("is no {what} here; it takes none"),
        known => format!("is no {what} here; it takes {}", known.join(", ")),
    };
    invalid(name, rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_route_takes_is_what_its_description_names() {
        let takes = |method: Method, path| &TAKES[&(method, path)];
        let lease = takes(Method::POST, "/api/v1/leases");
        assert!(lease.parameters.contains("dry_run") && !lease.parameters.contains("dryrun"));
        assert!(lease.fields.contains("ttl_seconds") && !lease.fields.contains("ttl"));
        assert!(takes(Method::GET, "/api/v1/leases").fields.is_empty());
        assert_eq!(plain("Dry-Run"), plain("dry_run"));
    }
}
