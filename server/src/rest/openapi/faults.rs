//! The shape of each dialect's errors.

use utoipa::openapi::schema::{
    AnyOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type,
};

use super::body::reference;
use super::problems::KINDS;
use crate::rest::explain::ExplainBody;
use crate::rest::routes::Dialect;

/// All dialects.
pub(super) const DIALECTS: [Dialect; 6] = [
    Dialect::GpuQuota,
    Dialect::Workspace,
    Dialect::Instance,
    Dialect::Licence,
    Dialect::QuotaSet,
    Dialect::Native,
];

/// A dialect's word in the names of the document.
pub(super) fn word(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::GpuQuota => "GpuQuota",
        Dialect::Workspace => "Workspace",
        Dialect::Instance => "Instance",
        Dialect::Licence => "Licence",
        Dialect::QuotaSet => "QuotaSet",
        Dialect::Native => "Native",
    }
}

/// Name of the schema of a dialect's errors.
pub(super) fn schema_name(dialect: Dialect) -> String {
    format!("{}.Error", word(dialect))
}

/// The schema of a dialect's errors.
pub(super) fn schema(dialect: Dialect) -> ObjectBuilder {
    match dialect {
        Dialect::GpuQuota => object([
            ("code", number("Status * 100 + a number of the kind of error.")),
            ("message", message()),
        ]),
        Dialect::Workspace => object([
            ("error_code", text("`WKS.` and 8 digits, of which the last three are the status.").max_length(Some(12))),
            ("error_msg", message().max_length(Some(1000))),
        ]),
        Dialect::Instance => object([
            (
                "code",
                text("10001 internal or overload, 10003 parameters missing, 10004 invalid, 10007 account frozen, 10008 token not accepted, 10009 no access.")
                    .enum_values(Some(["10001", "10003", "10004", "10007", "10008", "10009"])),
            ),
            ("msg", message()),
            ("data", ObjectBuilder::new().schema_type(Type::Null)),
        ]),
        Dialect::Licence => object([
            ("success", ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([false]))),
            ("code", number("The status.")),
            ("message", message()),
        ])
        .property("errors", errors())
        .required("errors"),
        Dialect::QuotaSet => object([
            ("error_code", text("`DEH.` and the status in four digits.").pattern(Some("^DEH\\.0[0-9]{3}$"))),
            ("error_msg", message()),
            ("message", message()),
        ]),
        Dialect::Native => object([("error", native())]),
    }
}

fn native() -> ObjectBuilder {
    let kinds = KINDS.map(|kind| kind.name());
    let kind = text("What kind of error, for programs.").enum_values(Some(kinds));
    object([("kind", kind), ("message", message())]).property(
        "explain",
        AnyOfBuilder::new()
            .item(reference::<ExplainBody>())
            .item(ObjectBuilder::new().schema_type(Type::Object))
            .description(Some(
                "Only there when the ledger denied: a tree with its figures where a limit, or what is in use, stands against \
                 it; else the rule and what it is about.",
            )),
    )
}

fn errors() -> ObjectBuilder {
    let messages = ArrayBuilder::new().items(ObjectBuilder::new().schema_type(Type::String));
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(messages))
        .description(Some(
            "What is wrong with which field or parameter; empty where it is none.",
        ))
}

fn object<const N: usize>(fields: [(&str, ObjectBuilder); N]) -> ObjectBuilder {
    let empty = ObjectBuilder::new().schema_type(Type::Object);
    fields.into_iter().fold(empty, |object, (name, schema)| {
        object.property(name, schema).required(name)
    })
}

fn text(description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
}

fn number(description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
        .description(Some(description))
}

fn message() -> ObjectBuilder {
    text("One line for a person: what is wrong and what to do.")
}
