//! The one table of what is served. Router, authorisation, error shape and OpenAPI document follow from it.

use http::Method;

use super::call::Handler;
use super::openapi::{self as describe, Operation};
use super::{docs, gpu_quota, instance, licence, native, quota_set, workspace};
use crate::auth::Access;

/// Whose error shape and credential header a path has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Document 000.
    GpuQuota,
    /// Document 001.
    Workspace,
    /// Document 002.
    Instance,
    /// Document 003.
    Licence,
    /// Document 004.
    QuotaSet,
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
    /// What the OpenAPI document says of it.
    pub(super) describe: fn() -> Operation,
}

macro_rules! route {
    ($method:ident, $path:literal, $dialect:ident, $access:ident, $handler:path, $describe:path) => {
        Route {
            method: Method::$method,
            path: $path,
            dialect: Dialect::$dialect,
            access: Access::$access,
            handler: |api, call| Box::pin($handler(api, call)),
            describe: $describe,
        }
    };
}

/// Everything that is served. A path of the licence dialect counts with and without its last slash (dialects D4.1).
#[rustfmt::skip]
pub(super) const ROUTES: &[Route] = &[
    route!(PUT, "/api/v1/quotas/{tenant}", GpuQuota, Admin, gpu_quota::put, describe::gpu_quota::put),
    route!(DELETE, "/api/v1/quotas/{tenant}", GpuQuota, Admin, gpu_quota::delete, describe::gpu_quota::delete),
    route!(GET, "/api/v1/quota/user-quotas", GpuQuota, Signed, gpu_quota::list, describe::gpu_quota::list),

    route!(GET, "/v2/{project_id}/quotas", Workspace, Signed, workspace::show, describe::workspace::show),

    route!(GET, "/v1.0/{project_id}/quota-sets/{tenant_id}", QuotaSet, Signed, quota_set::show, describe::quota_set::show),

    route!(GET, "/ai/openapi/v2/instance-service/resources", Instance, Signed, instance::resources, describe::instance::resources),

    route!(GET, "/api/v1/licenses/admin/quotas/", Licence, Manager, licence::list, describe::licence::list),
    route!(POST, "/api/v1/licenses/admin/quotas/", Licence, Manager, licence::create, describe::licence::create),
    route!(GET, "/api/v1/licenses/admin/quotas/usage_statistics/", Licence, Manager, licence::statistics, describe::licence::statistics),
    route!(GET, "/api/v1/licenses/admin/quotas/{id}/", Licence, Manager, licence::get, describe::licence::get),
    route!(PATCH, "/api/v1/licenses/admin/quotas/{id}/", Licence, Manager, licence::patch, describe::licence::patch),

    route!(GET, "/api/v1/nodes", Native, Admin, native::nodes::list, describe::native::list_nodes),
    route!(GET, "/api/v1/nodes/{name}", Native, Admin, native::nodes::get, describe::native::get_node),
    route!(PUT, "/api/v1/nodes/{name}", Native, Admin, native::nodes::put, describe::native::put_node),
    route!(DELETE, "/api/v1/gpus/{uuid}", Native, Admin, native::nodes::delete_gpu, describe::native::delete_gpu),
    route!(DELETE, "/api/v1/nodes/{name}", Native, Admin, native::nodes::delete, describe::native::delete_node),
    route!(POST, "/api/v1/nodes/{name}/join-tokens", Native, Admin, native::join_tokens::post, describe::native::post_join_token),
    route!(GET, "/api/v1/authority/nodes", Native, Admin, native::authority::list, describe::authority::list),
    route!(GET, "/api/v1/bans", Native, Admin, native::bans::list, describe::bans::list),
    route!(POST, "/api/v1/bans", Native, Admin, native::bans::post, describe::bans::post),
    route!(DELETE, "/api/v1/bans", Native, Admin, native::bans::delete, describe::bans::delete),
    route!(GET, "/api/v1/tenants", Native, Signed, native::tenants::list, describe::tenants::list),
    route!(GET, "/api/v1/tenants/{tenant}", Native, Signed, native::tenants::get, describe::tenants::get),
    route!(PUT, "/api/v1/tenants/{tenant}", Native, Admin, native::tenants::put, describe::tenants::put),
    route!(POST, "/api/v1/tenants/{tenant}/enforcement/confirmation", Native, Admin, native::enforcement::confirm, describe::enforcement::confirm),
    route!(POST, "/api/v1/unattributed/enforcement/confirmation", Native, Admin, native::enforcement::confirm_nobodys, describe::enforcement::confirm_nobodys),
    route!(PUT, "/api/v1/tenants/{tenant}/host-limits/{resource}", Native, Admin, native::tenants::put_host_limit, describe::tenants::put_host_limit),
    route!(GET, "/api/v1/regions", Native, Admin, native::pools::list_regions, describe::pools::list_regions),
    route!(GET, "/api/v1/regions/{region}", Native, Admin, native::pools::get_region, describe::pools::get_region),
    route!(PUT, "/api/v1/regions/{region}", Native, Admin, native::pools::put_region, describe::pools::put_region),
    route!(GET, "/api/v1/resource-groups", Native, Admin, native::groups::list, describe::groups::list),
    route!(GET, "/api/v1/resource-groups/{group}", Native, Admin, native::groups::get, describe::groups::get),
    route!(PUT, "/api/v1/resource-groups/{group}", Native, Admin, native::groups::put, describe::groups::put),
    route!(DELETE, "/api/v1/resource-groups/{group}", Native, Admin, native::groups::delete, describe::groups::delete),
    route!(PUT, "/api/v1/resource-groups/{group}/card-limits/{accelerator}", Native, Admin, native::groups::put_card_limit, describe::groups::put_card_limit),
    route!(GET, "/api/v1/host-resources", Native, Admin, native::pools::list_hosts, describe::pools::list_hosts),
    route!(GET, "/api/v1/host-resources/{resource}", Native, Admin, native::pools::get_host, describe::pools::get_host),
    route!(PUT, "/api/v1/host-resources/{resource}", Native, Admin, native::pools::put_host, describe::pools::put_host),
    route!(DELETE, "/api/v1/host-resources/{resource}", Native, Admin, native::pools::delete_host, describe::pools::delete_host),
    route!(GET, "/api/v1/entitlements", Native, Signed, native::quotas::list, describe::quotas::list),
    route!(GET, "/api/v1/entitlements/{id}", Native, Signed, native::quotas::get, describe::quotas::get),
    route!(PUT, "/api/v1/entitlements/{id}/enforcement", Native, Admin, native::quotas::put_enforcement, describe::quotas::put_enforcement),
    route!(PATCH, "/api/v1/entitlements/{id}", Native, Admin, native::quotas::patch, describe::quotas::patch),
    route!(GET, "/api/v1/drains", Native, Signed, native::drains::list, describe::drains::list),
    route!(GET, "/api/v1/models", Native, Admin, native::models::list, describe::products::list_models),
    route!(PUT, "/api/v1/models", Native, Admin, native::models::put, describe::products::put_model),
    route!(DELETE, "/api/v1/models", Native, Admin, native::models::delete, describe::products::delete_model),
    route!(GET, "/api/v1/software-products", Native, Admin, native::products::list, describe::products::list),
    route!(GET, "/api/v1/software-products/{id}", Native, Admin, native::products::get, describe::products::get),
    route!(PUT, "/api/v1/software-products/{id}", Native, Admin, native::products::put, describe::products::put),
    route!(DELETE, "/api/v1/software-products/{id}", Native, Admin, native::products::delete, describe::products::delete),
    route!(GET, "/api/v1/projects/{project}/resources", Native, Signed, native::projects::list, describe::projects::list),
    route!(PUT, "/api/v1/projects/{project}/resources/{type}", Native, Admin, native::projects::put, describe::projects::put),
    route!(DELETE, "/api/v1/projects/{project}/resources/{type}", Native, Admin, native::projects::delete, describe::projects::delete),
    route!(GET, "/api/v1/seats", Native, Manager, native::seats::list, describe::projects::list_seats),
    route!(POST, "/api/v1/seats", Native, Manager, native::seats::post, describe::projects::post_seat),
    route!(GET, "/api/v1/seats/{id}", Native, Manager, native::seats::get, describe::projects::get_seat),
    route!(DELETE, "/api/v1/seats/{id}", Native, Manager, native::seats::delete, describe::projects::delete_seat),
    route!(POST, "/api/v1/seats/{id}/renew", Native, Manager, native::seats::renew, describe::projects::renew_seat),
    route!(GET, "/api/v1/leases", Native, Signed, native::leases::list, describe::leases::list),
    route!(POST, "/api/v1/leases", Native, Manager, native::leases::post, describe::leases::post),
    route!(GET, "/api/v1/leases/{id}", Native, Signed, native::leases::get, describe::leases::get),
    route!(DELETE, "/api/v1/leases/{id}", Native, Manager, native::leases::delete, describe::leases::delete),
    route!(POST, "/api/v1/leases/{id}/renew", Native, Manager, native::leases::renew, describe::leases::renew),
    route!(GET, "/api/v1/steps", Native, Manager, native::steps::list, describe::enforcement::steps),
    route!(GET, "/api/v1/violations", Native, Manager, native::violations::list, describe::settings::violations),
    route!(GET, "/api/v1/settings", Native, Admin, native::settings::get, describe::settings::get),
    route!(PUT, "/api/v1/settings", Native, Admin, native::settings::put, describe::settings::put),
    route!(GET, "/api/v1/usage", Native, Signed, native::usage::list, describe::usage::list),
    route!(GET, "/api/v1/audit", Native, Admin, native::audit::list, describe::audit::list),
    route!(POST, "/api/v1/tokens/revoke", Native, Admin, native::tokens::revoke, describe::native::revoke_token),
    route!(GET, "/healthz", Native, Open, native::health, describe::native::health),
    route!(GET, "/openapi.json", Native, Open, describe::serve, describe::served::document),
    route!(GET, "/docs", Native, Open, docs::read, describe::served::page),
    route!(GET, "/docs/{file}", Native, Open, docs::file, describe::served::file),
];

/// The dialect in whose shape a path without a route is answered.
pub(super) fn dialect_of(path: &str) -> Dialect {
    let within = |family: &str| {
        path.strip_prefix(family)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if within("/api/v1/quotas") || within("/api/v1/quota") {
        Dialect::GpuQuota
    } else if within("/api/v1/licenses/admin/quotas") {
        Dialect::Licence
    } else if within("/v2") {
        Dialect::Workspace
    } else if within("/ai/openapi") {
        Dialect::Instance
    } else if within("/v1.0") {
        Dialect::QuotaSet
    } else {
        Dialect::Native
    }
}
