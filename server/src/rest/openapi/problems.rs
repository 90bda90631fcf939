//! Error answers of the document: which there are follows from what each dialect really answers to each kind of problem.

use std::collections::{BTreeMap, BTreeSet};

use http::{Method, StatusCode};
use serde_json::Value;
use utoipa::openapi::example::{Example, ExampleBuilder};
use utoipa::openapi::{ContentBuilder, Ref, Response, ResponseBuilder};

use super::faults;
use super::operation::Operation;
use crate::auth::Access;
use crate::rest::front::fault;
use crate::rest::routes::{Dialect, Route};
use crate::rest::status::{Kind, Problem};

/// Every kind with when it is answered.
pub(super) const KINDS: [Kind; 28] = [
    Kind::MalformedBody,
    Kind::MissingField,
    Kind::InvalidField,
    Kind::Contradiction,
    Kind::InvalidPath,
    Kind::Unsupported,
    Kind::NoCredential,
    Kind::InvalidCredential,
    Kind::Forbidden,
    Kind::NoSuchPath,
    Kind::NoSuchObject,
    Kind::MethodNotAllowed,
    Kind::Timeout,
    Kind::BelowUse,
    Kind::InUse,
    Kind::IdTaken,
    Kind::NodeBound,
    Kind::OperationReused,
    Kind::OverLimit,
    Kind::Frozen,
    Kind::NotGranted,
    Kind::LeaseOver,
    Kind::Changed,
    Kind::TooLarge,
    Kind::Throttled,
    Kind::Overloaded,
    Kind::Internal,
    Kind::Unavailable,
];

fn meaning(kind: Kind) -> &'static str {
    match kind {
        Kind::MalformedBody => "the body is not valid JSON, says a key twice or nests too deep",
        Kind::MissingField => "a required field or parameter is missing",
        Kind::InvalidField => "a field or parameter has a value that is not taken",
        Kind::Contradiction => "two parts of the request contradict each other",
        Kind::InvalidPath => "a name in the path is not valid",
        Kind::Unsupported => "this version does not do that",
        Kind::NoCredential => "there is no token in this dialect's header",
        Kind::InvalidCredential => "the token is not accepted, has expired or was revoked",
        Kind::Forbidden => "the token lacks the right",
        Kind::NoSuchPath => "there is nothing at this path",
        Kind::NoSuchObject => "there is no such object, or not for this token",
        Kind::MethodNotAllowed => "this path takes other methods",
        Kind::Timeout => "the body did not arrive within 10 seconds",
        Kind::BelowUse => "the new limit is below what is in use",
        Kind::InUse => "it is in use",
        Kind::IdTaken => "that id, number, code or name stands for something else",
        Kind::NodeBound => "a node is bound to another tenant",
        Kind::OperationReused => "the Idempotency-Key was used for another request",
        Kind::OverLimit => "more than a limit admits",
        Kind::Frozen => "the tenant is frozen",
        Kind::NotGranted => {
            "a limit, or the hardware, does not bear the lease; explain says which and what would"
        }
        Kind::LeaseOver => "the lease is to end or has ended",
        Kind::Changed => "it has changed since it was read; If-Match named another generation",
        Kind::TooLarge => "the body is larger than 64 KiB",
        Kind::Throttled => "too many wrong tokens from this address",
        Kind::Overloaded => "more writes wait than the server takes",
        Kind::Internal => "the server failed",
        Kind::Unavailable => {
            "the ledger cannot be written to, or this server does not have the row that Gpuquota-Seq names"
        }
    }
}

/// What an operation may answer besides success: what it says itself, and what every route of its kind may.
pub(super) fn kinds(route: &Route, operation: &Operation) -> Vec<Kind> {
    let mut kinds = operation.problems.clone();
    kinds.extend([
        Kind::InvalidField,
        Kind::MethodNotAllowed,
        Kind::Timeout,
        Kind::TooLarge,
        Kind::Internal,
    ]);
    if route.access != Access::Open {
        kinds.extend([
            Kind::NoCredential,
            Kind::InvalidCredential,
            Kind::Throttled,
            Kind::Unavailable,
        ]);
    }
    if matches!(route.access, Access::Manager | Access::Admin) {
        kinds.push(Kind::Forbidden);
    }
    if route.method != Method::GET {
        kinds.extend([Kind::MalformedBody, Kind::OperationReused, Kind::Overloaded]);
    }
    kinds
}

/// The statuses with which a dialect answers these kinds.
pub(super) fn statuses(dialect: Dialect, kinds: &[Kind]) -> BTreeSet<StatusCode> {
    let status = |kind: &Kind| fault(dialect, &Problem::new(*kind, "")).0;
    kinds.iter().map(status).collect()
}

/// Name of a dialect's answer with this status among the document's responses.
pub(super) fn name(dialect: Dialect, status: StatusCode) -> String {
    format!("{}.{}", faults::word(dialect), status.as_u16())
}

/// A dialect's error answers by their names.
pub(super) fn responses(dialect: Dialect) -> Vec<(String, Response)> {
    let of_status = |status| (name(dialect, status), response(dialect, status));
    statuses(dialect, &KINDS)
        .into_iter()
        .map(of_status)
        .collect()
}

/// What a dialect's errors with this status look like, by kind.
pub(super) fn examples(dialect: Dialect, status: StatusCode) -> BTreeMap<&'static str, Example> {
    let example = |kind: Kind| {
        let (answered, body) = fault(dialect, &Problem::new(kind, meaning(kind)));
        (answered == status).then(|| (kind.name(), example(body)))
    };
    KINDS.into_iter().filter_map(example).collect()
}

fn response(dialect: Dialect, status: StatusCode) -> Response {
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(faults::schema_name(dialect))))
        .examples_from_iter(examples(dialect, status));
    let of_status = |kind: &&Kind| fault(dialect, &Problem::new(**kind, "")).0 == status;
    let kinds: Vec<Kind> = KINDS.iter().filter(of_status).copied().collect();
    let meanings: Vec<&str> = kinds.iter().map(|kind| meaning(*kind)).collect();
    let mut response = ResponseBuilder::new()
        .description(sentence(&meanings))
        .content("application/json", content.build())
        .header_ref("X-Request-Id", header("RequestId"));
    if kinds.iter().any(|kind| kind.retry_after_s().is_some()) {
        response = response.header_ref("Retry-After", header("RetryAfter"));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response = response.header_ref("Allow", header("Allow"));
    }
    if status == StatusCode::UNAUTHORIZED && dialect.carrier().challenge().is_some() {
        response = response.header_ref("WWW-Authenticate", header("Challenge"));
    }
    response.build()
}

/// A reference to one of the document's response headers.
pub(super) fn header(name: &str) -> Ref {
    Ref::new(format!("#/components/headers/{name}"))
}

pub(super) fn example(value: Value) -> Example {
    ExampleBuilder::new().value(Some(value)).build()
}

fn sentence(meanings: &[&str]) -> String {
    let text = meanings.join("; or ");
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        format!("{}{}.", first.to_uppercase(), letters.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_stands_in_the_list_at_its_place() {
        for (at, kind) in KINDS.iter().enumerate() {
            assert_eq!(*kind as usize, at, "{kind:?}");
        }
        assert_eq!(Kind::Unavailable as usize + 1, KINDS.len());
    }
}
