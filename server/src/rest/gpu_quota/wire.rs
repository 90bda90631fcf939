//! Requests of the GPU quota dialect, with every oddity of it.

use std::str::FromStr;

use gpuquota_core::command::{QuotaName, ReleaseQuota, SetQuota};
use gpuquota_core::id::{GpuModel, NodeName, Reference, Region, TenantName, Timestamp};
use gpuquota_core::limit::Limit;
use gpuquota_core::quota::{QuotaSource, QuotaType};

use crate::rest::call::Call;
use crate::rest::json::{Fields, LARGEST_COUNT, invalid, misnamed, missing};
use crate::rest::on_excess::on_excess;
use crate::rest::query::Query;
use crate::rest::status::{Kind, Problem};
use crate::rest::time;

const SOURCES: &str = "must be purchase or assign";
const MOST_NODES: usize = 1024;
const TYPES: &str = "must be flexible, dedicated, mig or vgpu";

/// What a PUT asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// A new total.
    Set(SetQuota),
    /// `num` 0: the forced release, which succeeds also when nothing is there (D1.4).
    Release(ReleaseQuota),
}

/// What a GET filters by.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) source: Option<QuotaSource>,
    pub(super) quota_type: Option<QuotaType>,
    pub(super) page: usize,
    pub(super) page_size: usize,
}

impl Filter {
    /// The first page without a filter.
    pub(super) fn everything() -> Self {
        Self {
            source: None,
            quota_type: None,
            page: 1,
            page_size: 10,
        }
    }
}

pub(super) fn read_put(call: &Call) -> Result<Put, Problem> {
    let on_excess = on_excess(call)?;
    let tenant = tenant_of(call)?;
    let fields = Fields::parse(&call.body)?;
    let name = quota_name(&tenant, &Body(&fields))?;
    let num = fields.count("num")?.ok_or_else(|| missing("num"))?;
    let expires_at = expiry(&fields)?;
    let nodes = fields.names("node_name", MOST_NODES, NodeName::new)?;
    if num == 0 {
        return Ok(Put::Release(ReleaseQuota {
            name: QuotaName {
                quota_type: name.quota_type.or(nodes.map(|_| QuotaType::Dedicated)),
                ..name
            },
            forced: true,
            must_exist: false,
        }));
    }
    Ok(Put::Set(SetQuota {
        name,
        limit: Limit::Finite(num),
        expires_at,
        nodes,
        on_excess,
    }))
}

/// Whether the caller only wants to see what would happen.
pub(super) fn dry_run(call: &Call) -> Result<bool, Problem> {
    call.query.switch("dry_run")
}

pub(super) fn read_delete(call: &Call) -> Result<ReleaseQuota, Problem> {
    // Ignoring it would refuse, or take at once, what the caller wanted drained.
    if call.query.single("on_excess")?.is_some() {
        return Err(Problem::new(
            Kind::Unsupported,
            "on_excess belongs to PUT: lower num with it first; nothing was changed",
        ));
    }
    let tenant = tenant_of(call)?;
    let forced = call.query.switch("force")?;
    let fields = Fields::parse(&call.body)?;
    // Many clients drop a DELETE body (D1.9).
    let name = if fields.is_empty() {
        quota_name(&tenant, &Parameters(&call.query))?
    } else {
        quota_name(&tenant, &Body(&fields))?
    };
    Ok(ReleaseQuota {
        name,
        forced,
        must_exist: true,
    })
}

/// Query string and JSON body both count; the document puts the filters into the body of a GET (D1.10).
pub(super) fn read_filter(call: &Call) -> Result<Filter, Problem> {
    let fields = Fields::parse(&call.body)?;
    let source = either(call, &fields, "quota_source", |source| {
        word(source, SOURCES)
    })?;
    let quota_type = either(call, &fields, "quota_type", |source| word(source, TYPES))?;
    let page = either(call, &fields, "page", |source| source.number())?.unwrap_or(1);
    let page_size = either(call, &fields, "page_size", |source| source.number())?.unwrap_or(10);
    if page == 0 {
        return Err(invalid(
            "page",
            "must be a whole number from 1 to 2147483647",
        ));
    }
    if !(1..=100).contains(&page_size) {
        return Err(invalid("page_size", "must be a whole number from 1 to 100"));
    }
    let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    Ok(Filter {
        source,
        quota_type,
        page: size(page),
        page_size: size(page_size),
    })
}

fn tenant_of(call: &Call) -> Result<TenantName, Problem> {
    TenantName::new(call.segment("tenant"))
        .map_err(|e| Problem::new(Kind::InvalidPath, e.to_string()))
}

fn quota_name(tenant: &TenantName, from: &dyn Source) -> Result<QuotaName, Problem> {
    if let Some(text) = from.text("tenant")?
        && text != tenant.as_str()
    {
        return Err(Problem::new(
            Kind::Contradiction,
            "tenant differs from the tenant in the path; nothing was changed",
        ));
    }
    let region = required(from, "region")?;
    let source = required(from, "quota_source")?;
    let model = required(from, "gpu_model")?;
    Ok(QuotaName {
        tenant: tenant.clone(),
        region: Region::new(&region).map_err(|e| misnamed("region", &e))?,
        source: parse_word("quota_source", &source, SOURCES)?,
        gpu_model: GpuModel::new(&model).map_err(|e| misnamed("gpu_model", &e))?,
        quota_type: match from.text("quota_type")? {
            None => None,
            Some(text) => Some(parse_word("quota_type", &text, TYPES)?),
        },
        reference: from.number("id")?.map(Reference),
    })
}

fn required(from: &dyn Source, name: &str) -> Result<String, Problem> {
    from.text(name)?.ok_or_else(|| missing(name))
}

fn expiry(fields: &Fields) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = fields.text("expired_at")? else {
        return Ok(None);
    };
    let rule = "must be an RFC 3339 time such as 2026-01-02T15:04:05Z or a date such as 2026-01-02";
    time::parse(text)
        .map(Some)
        .ok_or_else(|| invalid("expired_at", rule))
}

fn parse_word<T: FromStr>(name: &str, text: &str, rule: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| invalid(name, rule))
}

/// Where a value may stand.
trait Source {
    fn text(&self, name: &str) -> Result<Option<String>, Problem>;
    fn number(&self, name: &str) -> Result<Option<u32>, Problem>;
}

struct Body<'a>(&'a Fields);

impl Source for Body<'_> {
    fn text(&self, name: &str) -> Result<Option<String>, Problem> {
        Ok(self.0.text(name)?.map(ToOwned::to_owned))
    }

    fn number(&self, name: &str) -> Result<Option<u32>, Problem> {
        self.0.count(name)
    }
}

struct Parameters<'a>(&'a Query);

impl Source for Parameters<'_> {
    fn text(&self, name: &str) -> Result<Option<String>, Problem> {
        Ok(self.0.single(name)?.map(ToOwned::to_owned))
    }

    fn number(&self, name: &str) -> Result<Option<u32>, Problem> {
        let Some(text) = self.0.single(name)? else {
            return Ok(None);
        };
        let digits = (1..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse().ok().filter(|n| digits && *n <= LARGEST_COUNT);
        number
            .map(Some)
            .ok_or_else(|| invalid(name, "must be a whole number from 0 to 2147483647"))
    }
}

/// One named value of one source.
struct Named<'a> {
    from: &'a dyn Source,
    name: &'a str,
}

impl Named<'_> {
    fn number(&self) -> Result<Option<u32>, Problem> {
        self.from.number(self.name)
    }
}

fn word<T: FromStr>(value: &Named<'_>, rule: &str) -> Result<Option<T>, Problem> {
    match value.from.text(value.name)? {
        None => Ok(None),
        Some(text) => Ok(Some(parse_word(value.name, &text, rule)?)),
    }
}

fn either<T: PartialEq>(
    call: &Call,
    fields: &Fields,
    name: &str,
    read: impl Fn(&Named<'_>) -> Result<Option<T>, Problem>,
) -> Result<Option<T>, Problem> {
    let (parameters, body) = (Parameters(&call.query), Body(fields));
    let parameter = read(&Named {
        from: &parameters,
        name,
    })?;
    let field = read(&Named { from: &body, name })?;
    match (parameter, field) {
        (Some(parameter), Some(field)) if parameter != field => Err(Problem::new(
            Kind::Contradiction,
            format!("{name} differs between query string and body"),
        )),
        (parameter, field) => Ok(parameter.or(field)),
    }
}
