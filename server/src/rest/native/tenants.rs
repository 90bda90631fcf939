//! Tenants: how portals name and number them, their projects, whether they are frozen, how many hosts they may bind.

use gpuquota_core::command::{Command, SetTenant};
use gpuquota_core::id::{Code, DisplayName, HostResourceName, ProjectId, TenantName, TenantNumber};
use gpuquota_core::object::Object;
use gpuquota_core::pool::HostLimitKey;
use gpuquota_core::tenant::{MOST_PROJECTS, Tenant};
use serde::Serialize;
use utoipa::ToSchema;

use super::wire::{LimitField, lease_mode, number_of, shaped};
use crate::chosen_enforcement::ChosenEnforcement;
use crate::chosen_mode::ChosenMode;
use crate::rest::call::{Api, Call};
use crate::rest::names;
use crate::rest::reply::Reply;
use crate::rest::status::{Kind, Problem};
use crate::rest::time;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tenant)]
pub(in crate::rest) struct TenantBody<'a> {
    #[schema(value_type = names::TenantName)]
    tenant: &'a TenantName,
    #[schema(value_type = names::Number)]
    id: TenantNumber,
    /// For people; the slug where none was given.
    name: &'a str,
    /// The slug where none was given.
    code: &'a str,
    #[schema(value_type = Vec<names::ProjectId>)]
    projects: Vec<&'a ProjectId>,
    /// Nothing new is granted to it.
    frozen: bool,
    /// While it has dedicated nodes it is granted nothing elsewhere.
    confined: bool,
    /// Whether what it runs needs a lease; `default` is as its region says.
    #[schema(value_type = names::ChosenLeaseMode)]
    lease_mode: ChosenMode,
    /// How far agents go about what it holds beyond its right; absent: its region says.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::EnforcementFields>)]
    enforcement: Option<ChosenEnforcement>,
    #[schema(value_type = names::Time)]
    created_at: String,
    #[schema(value_type = names::Time)]
    updated_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct Tenants<'a> {
    tenants: Vec<TenantBody<'a>>,
}

impl<'a> TenantBody<'a> {
    fn of(tenant: &'a Tenant) -> Self {
        let profile = &tenant.profile;
        Self {
            tenant: &profile.tenant,
            id: profile.number,
            name: profile.display_name(),
            code: profile.code(),
            projects: profile.projects.iter().collect(),
            frozen: profile.frozen,
            confined: profile.confined,
            lease_mode: ChosenMode(profile.lease_mode),
            enforcement: profile.enforcement.clone().map(ChosenEnforcement),
            created_at: time::format(tenant.created_at),
            updated_at: time::format(tenant.updated_at),
        }
    }
}

/// `GET /api/v1/tenants`: those that the caller sees.
pub(in crate::rest) async fn list(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let committed = call.read(api).await?;
    let tenants = committed.state.tenants();
    let seen = tenants.filter(|(name, _)| call.principal.sees(name));
    Reply::ok(Tenants {
        tenants: seen.map(|(_, tenant)| TenantBody::of(tenant)).collect(),
    })
}

/// `GET /api/v1/tenants/{tenant}`.
pub(in crate::rest) async fn get(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let name = call.named("tenant", TenantName::new)?;
    let committed = call.read(api).await?;
    let tenant = committed.state.tenant(&name);
    match tenant.filter(|_| call.principal.sees(&name)) {
        Some(tenant) => {
            let generation = committed.state.generation(&Object::Tenant(name));
            Ok(Reply::ok(TenantBody::of(tenant))?.tagged(generation))
        }
        None => Err(Problem::new(Kind::NoSuchObject, "there is no such tenant")),
    }
}

/// `PUT /api/v1/tenants/{tenant}`: makes it known, or changes what the body names.
pub(in crate::rest) async fn put(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let tenant = call.named("tenant", TenantName::new)?;
    let fields = call.fields()?;
    let set = SetTenant {
        tenant: tenant.clone(),
        number: number_of(&fields, "id")?.map(TenantNumber),
        display_name: fields.name("name", DisplayName::new)?,
        code: fields.name("code", Code::new)?,
        projects: fields.names("projects", MOST_PROJECTS, ProjectId::new)?,
        frozen: fields.flag("frozen")?,
        confined: fields.flag("confined")?,
        lease_mode: lease_mode(&fields)?.map(|mode| mode.0),
        enforcement: fields
            .has("enforcement")
            .then(|| shaped::<ChosenEnforcement>(&fields, "enforcement"))
            .transpose()?
            .map(|chosen| chosen.map(|chosen| chosen.0)),
    };
    let object = Object::Tenant(tenant.clone());
    call.write(api, object.clone(), Command::SetTenant(set))
        .await?;
    let committed = api.ledger.read();
    match committed.state.tenant(&tenant) {
        Some(tenant) => {
            Ok(Reply::ok(TenantBody::of(tenant))?.tagged(committed.state.generation(&object)))
        }
        None => Err(Problem::new(Kind::Internal, "the tenant is not there")),
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HostLimit)]
pub(in crate::rest) struct HostLimitBody<'a> {
    #[schema(value_type = names::TenantName)]
    tenant: &'a TenantName,
    #[schema(value_type = names::HostResourceName)]
    resource: &'a HostResourceName,
    /// Null where none is set.
    #[schema(value_type = Option<names::Limit>, required)]
    hard_limit: LimitField,
}

/// `PUT /api/v1/tenants/{tenant}/host-limits/{resource}`: how many hosts of a kind may be bound to the tenant.
pub(in crate::rest) async fn put_host_limit(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let key = HostLimitKey {
        tenant: call.named("tenant", TenantName::new)?,
        resource: call.named("resource", HostResourceName::new)?,
    };
    let limit = LimitField::required(&call.fields()?, "hard_limit")?;
    let command = Command::SetHostLimit(key.clone(), limit.0);
    call.submit(api, command).await?;
    Reply::ok(HostLimitBody {
        tenant: &key.tenant,
        resource: &key.resource,
        hard_limit: limit,
    })
}
