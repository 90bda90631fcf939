//! What every request goes through: request id, method, credential, role, body, handler, and one shape of answer.
//!
//! The order is fixed by dialects D0.7: authentication before authorisation before validation before existence.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{FromRequestParts as _, RawPathParams, Request};
use axum::response::Response;
use axum::routing::any;
use futures_util::FutureExt as _;
use gpuquota_core::id::Seq;
use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;

use super::audited::{Asked, address, reason, turned_away};
use super::call::{Answer, Api, Call, key_problem};
use super::credential::{Credential, credential};
use super::query::Query;
use super::reached::Reached;
use super::reply::{Reply, json_response, response_of};
use super::routes::{Dialect, ROUTES, Route, dialect_of};
use super::serve::Unread;
use super::status::{Kind, Problem};
use super::{
    freshness, generation, gpu_quota, instance, known, licence, native, quota_set, workspace,
};
use crate::auth::token::TokenError;
use crate::auth::{Access, Principal, Role, SignedRequest};

const LARGEST_BODY: usize = 64 * 1024;
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// The whole REST surface as one axum router.
pub fn router(api: Arc<Api>) -> Router {
    super::openapi::prepare();
    let mut paths: BTreeMap<&'static str, Vec<&'static Route>> = BTreeMap::new();
    for route in ROUTES {
        paths.entry(route.path).or_default().push(route);
        if route.dialect == Dialect::Licence {
            let bare = route.path.trim_end_matches('/');
            paths.entry(bare).or_default().push(route);
        }
    }
    let mut router = Router::new();
    for (path, routes) in paths {
        let routes: Arc<[&'static Route]> = routes.into();
        let api = api.clone();
        router = router.route(
            path,
            any(move |request: Request| {
                let (api, routes) = (api.clone(), routes.clone());
                async move { answer(&api, &routes, request).await }
            }),
        );
    }
    router.fallback(move |request: Request| {
        let api = api.clone();
        async move { answer(&api, &[], request).await }
    })
}

/// How far a request came.
struct Progress {
    /// Its body still waits on the connection.
    unread: bool,
    /// What is known of it.
    asked: Asked,
    /// Row at which its write can be read.
    written: Option<Seq>,
}

async fn answer(api: &Api, routes: &[&'static Route], request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let request_id = request_id(&parts.headers);
    let dialect = routes
        .first()
        .map_or_else(|| dialect_of(parts.uri.path()), |route| route.dialect);
    let mut progress = Progress {
        unread: !body.is_end_stream(),
        asked: Asked::default(),
        written: None,
    };
    let served = serve(api, routes, &mut parts, body, &request_id, &mut progress).await;
    let mut response = match served {
        Ok(reply) => response_of(reply),
        Err(problem) => {
            let asked = std::mem::take(&mut progress.asked);
            turned_away(api, &parts, asked, &request_id, &problem);
            let mut response = problem_response(dialect, &problem);
            if problem.kind == Kind::MethodNotAllowed {
                set(&mut response, ALLOW, &allowed(routes));
            }
            if progress.unread {
                // The connection ends here; a client that is not told would send its next request into nothing.
                set(&mut response, CONNECTION, "close");
                if let Some(unread) = parts.extensions.get::<Unread>() {
                    unread.mark();
                }
            }
            response
        }
    };
    if let Some(seq) = progress.written {
        set(&mut response, freshness::SEQ, &seq.to_string());
    }
    if let Some(seconds) = freshness::age_seconds(api) {
        set(&mut response, freshness::AGE, &seconds.to_string());
    }
    tracing::debug!(
        http.method = %parts.method, http.path = parts.uri.path(),
        http.status = response.status().as_u16(), request.id = request_id, "request"
    );
    set(&mut response, "x-request-id", &request_id);
    response
}

async fn serve(
    api: &Api,
    routes: &[&'static Route],
    parts: &mut Parts,
    body: Body,
    request_id: &str,
    progress: &mut Progress,
) -> Result<Reply, Problem> {
    if routes.is_empty() {
        return Err(Problem::new(
            Kind::NoSuchPath,
            "there is nothing at this path",
        ));
    }
    let method = match parts.method {
        Method::HEAD => Method::GET,
        ref other => other.clone(),
    };
    let Some(route) = routes.iter().find(|route| route.method == method) else {
        return Err(Problem::new(
            Kind::MethodNotAllowed,
            format!("this path takes {}", allowed(routes)),
        ));
    };
    progress.asked.route = Some(format!("{method} {}", route.path));
    let segments = segments(parts).await;
    let (principal, body) = match route.access {
        Access::Open => (Principal::anybody(), body),
        Access::Signed | Access::Manager | Access::Admin => {
            identify(api, route.dialect, parts, body).await?
        }
    };
    let named = segments.as_deref().unwrap_or_default();
    progress.asked.by(&principal, named);
    if !route.access.allows(&principal) {
        return Err(Problem::new(
            Kind::Forbidden,
            format!("this call needs a token with {}", route.access.roles()),
        ));
    }
    if method != Method::GET
        && principal.role != Role::Admin
        && !api.limiter.write(&principal.caller())
    {
        return Err(Problem::new(
            Kind::Overloaded,
            "more than 20 writes a second of one caller are not taken; wait",
        ));
    }
    if route.access != Access::Open
        && let Some(seq) = freshness::asked(&parts.headers)?
    {
        freshness::reached(api, seq).await?;
    }
    let call = Call {
        principal,
        request_id: request_id.to_owned(),
        from: address(parts),
        reason: reason(&parts.headers)?,
        segments: segments?,
        query: Query::parse(parts.uri.query()),
        reached: Reached::by(parts),
        target: parts.uri.to_string(),
        idempotency_key: idempotency_key(&parts.headers)?,
        accept: accept(&parts.headers),
        expected: generation::expected(&parts.headers)?,
        pattern: route.path,
        method,
        body: read_body(&parts.headers, body).await?,
        written: AtomicU64::new(0),
    };
    progress.unread = false;
    if route.access != Access::Open {
        known::queries(&call, route.dialect)?;
    }
    let reply = guarded((route.handler)(api, &call)).await;
    let written = call.written.into_inner();
    progress.written = (written > 0).then_some(Seq(written));
    reply
}

// A defect in one handler is the caller's 500 and a line in the log (by the panic itself), not a connection that breaks
// off. What handlers share is immutable, or put in whole.
async fn guarded(answer: Answer<'_>) -> Result<Reply, Problem> {
    let handled = AssertUnwindSafe(answer).catch_unwind().await;
    handled.unwrap_or_else(|_| {
        let text = "the server failed on this request; its log says more";
        Err(Problem::new(Kind::Internal, text))
    })
}

// Whose the request is, and its body, still to be read.
async fn identify(
    api: &Api,
    dialect: Dialect,
    parts: &Parts,
    body: Body,
) -> Result<(Principal, Body), Problem> {
    let shown = credential(&parts.headers, dialect.carrier());
    let shown = shown.map_err(|problem| refused(api, parts, problem))?;
    // A signature covers the body, so there it is read first; never more than the bound.
    let (signed, body) = match shown {
        Credential::Token(_) => (Bytes::new(), body),
        Credential::Signature => {
            let bytes = read_body(&parts.headers, body).await?;
            (bytes.clone(), Body::from(bytes))
        }
    };
    let principal = authenticate(api, parts, shown, &signed).await;
    let principal = principal.map_err(|problem| refused(api, parts, problem))?;
    Ok((principal, body))
}

async fn authenticate(
    api: &Api,
    parts: &Parts,
    shown: Credential<'_>,
    body: &[u8],
) -> Result<Principal, Problem> {
    let now = api.clock.wall();
    let verified = match shown {
        Credential::Token(token) => api.tokens.token(token, now).await,
        Credential::Signature => {
            let request = SignedRequest {
                method: parts.method.as_str(),
                path: parts.uri.path(),
                query: parts.uri.query(),
                headers: &parts.headers,
                body,
            };
            api.tokens.signature(&request, now)
        }
    };
    let invalid = |e: TokenError| Problem::new(Kind::InvalidCredential, e.to_string());
    let verified = verified.map_err(invalid)?;
    let ledger = api.ledger.read();
    if verified.ids.iter().any(|id| ledger.state.revoked(id)) {
        return Err(invalid(TokenError::Revoked));
    }
    Ok(verified.principal)
}

// Counts the failure against the address.
fn refused(api: &Api, parts: &Parts, problem: Problem) -> Problem {
    let address = address(parts).unwrap_or(IpAddr::from([0, 0, 0, 0]));
    if api.limiter.count(address) {
        problem
    } else {
        Problem::new(
            Kind::Throttled,
            "too many wrong credentials from this address; wait",
        )
    }
}

async fn segments(parts: &mut Parts) -> Result<Vec<(String, String)>, Problem> {
    // Decoded once by axum; what is not UTF-8 then is refused.
    let params = RawPathParams::from_request_parts(parts, &())
        .await
        .map_err(|_| {
            Problem::new(
                Kind::InvalidPath,
                "the path is not valid percent-encoded UTF-8",
            )
        })?;
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Ok(params.iter().map(owned).collect())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| key_problem())?;
    if values.next().is_some() || !(1..=255).contains(&text.len()) {
        return Err(key_problem());
    }
    Ok(Some(text.to_owned()))
}

fn accept(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(http::header::ACCEPT)?;
    value.to_str().ok().map(str::to_owned)
}

async fn read_body(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Kind::TooLarge, "the body is larger than 64 KiB");
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > LARGEST_BODY as u64) {
        return Err(too_large());
    }
    let read = tokio::time::timeout(BODY_DEADLINE, Limited::new(body, LARGEST_BODY).collect());
    match read.await {
        Err(_) => Err(Problem::new(
            Kind::Timeout,
            "the body did not arrive within 10 seconds",
        )),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Kind::MalformedBody, "the body broke off")),
    }
}

fn request_id(headers: &HeaderMap) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    headers
        .get("x-request-id")
        .and_then(|value| value.to_str().ok())
        .filter(|text| (1..=128).contains(&text.len()) && text.bytes().all(plain))
        .map_or_else(|| uuid::Uuid::new_v4().to_string(), ToOwned::to_owned)
}

fn allowed(routes: &[&'static Route]) -> String {
    let mut methods: Vec<&str> = routes.iter().map(|route| route.method.as_str()).collect();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.join(", ")
}

/// Status and body of a problem in a dialect.
pub(super) fn fault(dialect: Dialect, problem: &Problem) -> (StatusCode, Value) {
    match dialect {
        Dialect::GpuQuota => gpu_quota::fault(problem),
        Dialect::Workspace => workspace::fault(problem),
        Dialect::Instance => instance::fault(problem),
        Dialect::Licence => licence::fault(problem),
        Dialect::QuotaSet => quota_set::fault(problem),
        Dialect::Native => native::fault(problem),
    }
}

fn problem_response(dialect: Dialect, problem: &Problem) -> Response {
    let (status, body) = fault(dialect, problem);
    let mut response = json_response(status, &body);
    if let Some(seconds) = problem.kind.retry_after_s() {
        set(&mut response, RETRY_AFTER, &seconds.to_string());
    }
    if let (StatusCode::UNAUTHORIZED, Some(challenge)) = (status, dialect.carrier().challenge()) {
        set(&mut response, WWW_AUTHENTICATE, challenge);
    }
    response
}

// Every value set here is plain ASCII by construction.
fn set(response: &mut Response, name: impl http::header::IntoHeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_handler_that_panics_is_an_answer() {
        let broken: Answer<'_> = Box::pin(async { unreachable!("a defect") });
        let kind = guarded(broken)
            .await
            .map(|_| ())
            .map_err(|problem| problem.kind);
        assert_eq!(kind, Err(Kind::Internal));
    }
}
