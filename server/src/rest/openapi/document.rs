//! The document as a whole.

use std::collections::BTreeMap;

use http::Method;
use utoipa::openapi::path::{
    HttpMethod, Operation as PathOperation, OperationBuilder, ParameterBuilder, ParameterIn,
};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Components, ContentBuilder, Header, HeaderBuilder, Info, InfoBuilder, License, OneOfBuilder,
    OpenApi, OpenApiBuilder, Paths, Ref, RefOr, Required, Response, ResponseBuilder, Server,
};

use super::body::collect;
use super::faults::{self, DIALECTS};
use super::operation::{Operation, closed};
use super::problems::{self, header};
use crate::auth::Access;
use crate::rest::credential::Carrier;
use crate::rest::explain::ExplainBody;
use crate::rest::routes::{Dialect, ROUTES, Route};

const ABOUT: &str = "\
GPU quota in five dialects over one ledger, and the native API for what has no place in any of them.

**Tokens.** Each dialect reads its own header and no other. `gpuquota-server token` makes tokens.

**Requests.** Bodies are JSON of at most 64 KiB, nested at most 32 deep, without a key said twice; fields that an \
operation does not name are ignored, and null is as if the field were not there unless it is said otherwise. A \
parameter that is given twice is refused. HEAD is answered as GET without a body, and there are no redirects.

**Answers.** Each has `X-Request-Id`, and each error, also of a path or method that is not there, has the shape of its \
dialect. Fields are absent where they are not required, and null only where it is said. Times are RFC 3339 in UTC.

**Writes** take an `Idempotency-Key`: the same key with the same request answers again without a second effect, with \
another request it is refused; keys are kept for 24 hours. Their answers have `Gpuquota-Seq`, the journal row at which \
they can be read. Where an answer has an `ETag`, a write may name it in `If-Match`.

**Several servers.** A request with `Gpuquota-Seq: ROW` is served by a server that has that row, which it waits for up to \
2 seconds; else it is 503. A server that cannot reach the ledger's database refuses writes with 503 and goes on to answer \
reads, with `Gpuquota-Age: SECONDS`, how old they are.";

/// The document.
pub(in crate::rest) fn document() -> OpenApi {
    let mut paths = Paths::new();
    let mut components = components();
    for route in ROUTES {
        let operation = (route.describe)();
        for (name, schema) in &operation.schemas {
            components.schemas.insert(name.clone(), schema.clone());
        }
        let described = path_operation(route, operation);
        if let Some(method) = http_method(&route.method) {
            paths.add_path_operation(route.path, vec![method], described);
        }
    }
    OpenApiBuilder::new()
        .info(info())
        .servers(Some([Server::new("/")]))
        .paths(paths)
        .components(Some(components))
        .tags(Some(DIALECTS.map(|dialect| {
            let (name, description) = tag(dialect);
            TagBuilder::new()
                .name(name)
                .description(Some(description))
                .build()
        })))
        .build()
}

fn info() -> Info {
    let mut licence = License::new("Apache-2.0");
    licence.identifier = Some("Apache-2.0".into());
    InfoBuilder::new()
        .title("gpuquota")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(licence))
        .build()
}

fn tag(dialect: Dialect) -> (&'static str, &'static str) {
    match dialect {
        Dialect::GpuQuota => (
            "GPU quota",
            "Quotas of GPUs, MIG instances and vGPUs by tenant.",
        ),
        Dialect::Workspace => (
            "Workspace",
            "What a project may use and uses, by resource and site.",
        ),
        Dialect::Instance => (
            "Instance service",
            "What a node of a resource group has, and the caller's limit on it.",
        ),
        Dialect::Licence => (
            "Licence quotas",
            "Licences of software products by tenant. The last slash of a path may be left out.",
        ),
        Dialect::QuotaSet => ("DeH quota sets", "Dedicated hosts of a tenant by kind."),
        Dialect::Native => (
            "Native",
            "Leases, tenants, regions, nodes, models, products, counters, seats and tokens.",
        ),
    }
}

fn components() -> Components {
    let mut components = Components::new();
    let mut explained = Vec::new();
    collect::<ExplainBody>(&mut explained);
    components.schemas.extend(explained);
    for dialect in DIALECTS {
        let name = faults::schema_name(dialect);
        components
            .schemas
            .insert(name, faults::schema(dialect).into());
        for (name, response) in problems::responses(dialect) {
            components.responses.insert(name, RefOr::T(response));
        }
    }
    for carrier in [Carrier::Bearer, Carrier::XAuthToken, Carrier::Token] {
        let (name, scheme) = security(carrier);
        components
            .security_schemes
            .insert(name.into(), RefOr::T(scheme));
    }
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let request_id = ParameterBuilder::new()
        .name("X-Request-Id")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("Names the request in the answer and the journal where it is 1 to 128 of A-Z a-z 0-9 . _ -; else the server makes one up."))
        .schema(Some(text()));
    let key = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("One key has one effect. The same request with it answers again, another one is 409; kept 24 hours."))
        .schema(Some(text().pattern(Some("^[!-~](?:[ -~]*[!-~])?$")).min_length(Some(1)).max_length(Some(255))));
    let if_match = ParameterBuilder::new()
        .name("If-Match")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("The `ETag` of an answer: where the object has changed since, nothing is done and the answer is 412. `*` asks for nothing."))
        .schema(Some(text().pattern(Some("^(?:\\*|\"[0-9]{1,19}\")$"))));
    let parameters = [
        ("RequestId", request_id),
        ("IdempotencyKey", key),
        ("IfMatch", if_match),
    ];
    let parameters = parameters.map(|(name, it)| (name.to_owned(), RefOr::T(it.build())));
    components.parameters = BTreeMap::from(parameters);
    components.headers =
        BTreeMap::from(headers().map(|(name, it)| (name.to_owned(), RefOr::T(it))));
    components
}

fn headers() -> [(&'static str, Header); 5] {
    let header = |schema: ObjectBuilder, description: &str| {
        HeaderBuilder::new()
            .schema(Some(schema))
            .description(Some(description))
            .build()
    };
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let seconds = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1));
    [
        ("RequestId", header(text(), "The request's id.")),
        (
            "RetryAfter",
            header(
                seconds,
                "Seconds after which the same request may go through.",
            ),
        ),
        ("Allow", header(text(), "The methods that the path takes.")),
        ("Challenge", header(text(), "`Bearer`.")),
        (
            "ETag",
            header(
                text(),
                "The object's generation, for `If-Match`: a number in quotes.",
            ),
        ),
    ]
}

fn security(carrier: Carrier) -> (&'static str, SecurityScheme) {
    match carrier {
        Carrier::Bearer => {
            let scheme = HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .bearer_format("JWT")
                .description(Some("`Authorization: Bearer TOKEN`"));
            ("bearer", SecurityScheme::Http(scheme.build()))
        }
        Carrier::XAuthToken => {
            let about = "`X-Auth-Token: TOKEN`. Without it a signature by an access key that the server's \
                         configuration holds, `Authorization: SDK-HMAC-SHA256 …`, counts too.";
            ("xAuthToken", api_key("X-Auth-Token", about))
        }
        Carrier::Token => (
            "token",
            api_key("token", "`token: TOKEN`, without a scheme."),
        ),
    }
}

fn api_key(header: &str, description: &str) -> SecurityScheme {
    let value = ApiKeyValue::with_description(header, description);
    SecurityScheme::ApiKey(ApiKey::Header(value))
}

fn path_operation(route: &Route, operation: Operation) -> PathOperation {
    let kinds = problems::kinds(route, &operation);
    let mut built = OperationBuilder::new()
        .operation_id(Some(operation.id))
        .summary(Some(operation.summary))
        .description(Some(description(route, &operation)))
        .tag(tag(route.dialect).0);
    let success = operation.status.as_u16().to_string();
    for status in problems::statuses(route.dialect, &kinds) {
        if status != operation.status {
            let name = problems::name(route.dialect, status);
            let code = status.as_u16().to_string();
            built = built.response(code, Ref::from_response_name(name));
        }
    }
    built = built.response(success, answer(route, &operation));
    if let Some((status, content)) = &operation.also {
        let response = ResponseBuilder::new()
            .description("Nothing was done: a dry run.")
            .header_ref("X-Request-Id", header("RequestId"))
            .content("application/json", content.clone());
        built = built.response(status.as_u16().to_string(), response.build());
    }
    for parameter in operation.parameters {
        built = built.parameter(parameter);
    }
    let shared = |name: &str| Ref::new(format!("#/components/parameters/{name}"));
    if route.method != Method::GET {
        built = built.parameter_ref(shared("IdempotencyKey"));
    }
    if operation.conditional {
        built = built.parameter_ref(shared("IfMatch"));
    }
    built = built
        .parameter_ref(shared("RequestId"))
        .request_body(match route.dialect {
            Dialect::Native => operation.body.map(|body| closed(body, &operation.answered)),
            _ => operation.body,
        });
    match route.access {
        // Nothing is asked of the caller.
        Access::Open => built.securities(Some([])).build(),
        Access::Signed | Access::Manager | Access::Admin => {
            let (name, _) = security(route.dialect.carrier());
            let none: [&str; 0] = [];
            built.security(SecurityRequirement::new(name, none)).build()
        }
    }
}

fn description(route: &Route, operation: &Operation) -> String {
    let asks = match route.access {
        Access::Open => "Needs no token.".to_owned(),
        Access::Signed | Access::Manager | Access::Admin => {
            format!("Needs a token with {}.", route.access.roles())
        }
    };
    match operation.description {
        "" => asks,
        text => format!("{text}\n\n{asks}"),
    }
}

// A dialect may answer errors with the status of success (dialects D3.7).
fn answer(route: &Route, operation: &Operation) -> Response {
    let mut response = ResponseBuilder::new()
        .description("Success.")
        .header_ref("X-Request-Id", header("RequestId"));
    if operation.tagged {
        response = response.header_ref("ETag", header("ETag"));
    }
    let faults = problems::examples(route.dialect, operation.status);
    for (content_type, content) in &operation.content {
        let mut content = content.clone();
        if let (false, Some(schema)) = (faults.is_empty(), &content.schema) {
            let error = Ref::from_schema_name(faults::schema_name(route.dialect));
            let either = OneOfBuilder::new().item(schema.clone()).item(error);
            let success = content.example.take().unwrap_or_default();
            content = ContentBuilder::new()
                .schema(Some(either))
                .examples_from_iter([("success", problems::example(success))])
                .examples_from_iter(faults.clone())
                .build();
        }
        response = response.content(*content_type, content);
    }
    response.build()
}

fn http_method(method: &Method) -> Option<HttpMethod> {
    match method.as_str() {
        "GET" => Some(HttpMethod::Get),
        "PUT" => Some(HttpMethod::Put),
        "POST" => Some(HttpMethod::Post),
        "PATCH" => Some(HttpMethod::Patch),
        "DELETE" => Some(HttpMethod::Delete),
        _ => None,
    }
}
