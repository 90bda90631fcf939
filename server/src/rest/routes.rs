//! The one table of what is served. Router, authorisation and error shape follow from it; besides it there is only
//! `/healthz`, which needs no token and tells nothing.

use http::Method;

use super::call::Handler;
use super::{gpu_quota, native};
use crate::auth::Access;

/// Whose error shape and credential header a path has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Document 000.
    GpuQuota,
    /// Our own.
    Native,
}

/// One method on one path.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) dialect: Dialect,
    pub(super) access: Access,
    pub(super) handler: Handler,
}

/// Everything that is served to callers with a token.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::PUT,
        path: "/api/v1/quotas/{name}",
        dialect: Dialect::GpuQuota,
        access: Access::Admin,
        handler: |api, call| Box::pin(gpu_quota::put(api, call)),
    },
    Route {
        method: Method::DELETE,
        path: "/api/v1/quotas/{name}",
        dialect: Dialect::GpuQuota,
        access: Access::Admin,
        handler: |api, call| Box::pin(gpu_quota::delete(api, call)),
    },
    Route {
        method: Method::GET,
        path: "/api/v1/quota/user-quotas",
        dialect: Dialect::GpuQuota,
        access: Access::Signed,
        handler: |api, call| Box::pin(gpu_quota::list(api, call)),
    },
    Route {
        method: Method::GET,
        path: "/api/v1/nodes",
        dialect: Dialect::Native,
        access: Access::Admin,
        handler: |api, call| Box::pin(native::list_nodes(api, call)),
    },
    Route {
        method: Method::PUT,
        path: "/api/v1/nodes/{name}",
        dialect: Dialect::Native,
        access: Access::Admin,
        handler: |api, call| Box::pin(native::put_node(api, call)),
    },
    Route {
        method: Method::POST,
        path: "/api/v1/tokens/revoke",
        dialect: Dialect::Native,
        access: Access::Admin,
        handler: |api, call| Box::pin(native::revoke_token(api, call)),
    },
];

/// The dialect in whose shape a path without a route is answered.
pub(super) fn dialect_of(path: &str) -> Dialect {
    let within = |family: &str| {
        path.strip_prefix(family)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if within("/api/v1/quotas") || within("/api/v1/quota") {
        Dialect::GpuQuota
    } else {
        Dialect::Native
    }
}
