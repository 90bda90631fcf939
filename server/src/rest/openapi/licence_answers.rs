//! Answers of document 003: what is shown stands in `data` of an envelope.

use std::borrow::Cow;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::body::{Schemas, collect, reference};
use crate::rest::licence::{Long, Short, Statistics};

macro_rules! answers {
    ($($(#[$doc:meta])* $name:ident($as:literal) of $row:ty = $schema:expr;)+) => {
        $(
            $(#[$doc])*
            pub(super) enum $name {}

            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    RefOr::from($schema)
                }
            }

            impl ToSchema for $name {
                fn name() -> Cow<'static, str> {
                    $as.into()
                }

                fn schemas(schemas: &mut Schemas) {
                    collect::<$row>(schemas);
                }
            }
        )+
    };
}

answers! {
    /// A page of rows.
    Page("Licence.Page") of Long<'_> = envelope(page());
    /// One row.
    Shown("Licence.Shown") of Long<'_> = envelope(reference::<Long<'_>>());
    /// One row that was changed.
    Changed("Licence.Changed") of Long<'_> = with_message(envelope(reference::<Long<'_>>()));
    /// One row that was made.
    Created("Licence.Created") of Short<'_> = with_message(envelope(reference::<Short<'_>>()));
    /// Statistics of all rows.
    Counted("Licence.Counted") of Statistics<'_> = envelope(reference::<Statistics<'_>>());
}

fn envelope(data: impl Into<RefOr<Schema>>) -> ObjectBuilder {
    let always = ObjectBuilder::new()
        .schema_type(Type::Boolean)
        .enum_values(Some([true]));
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("success", always)
        .required("success")
        .property("data", data)
        .required("data")
}

fn with_message(envelope: ObjectBuilder) -> ObjectBuilder {
    let message = ObjectBuilder::new().schema_type(Type::String);
    envelope.property("message", message).required("message")
}

fn page() -> ObjectBuilder {
    let link = |description: &str| {
        OneOfBuilder::new()
            .item(ObjectBuilder::new().schema_type(Type::Null))
            .item(ObjectBuilder::new().schema_type(Type::String))
            .description(Some(description))
    };
    let count = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0))
        .description(Some("Rows of all pages."));
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("count", count)
        .required("count")
        .property(
            "next",
            link("Absolute address of the page behind it; null on the last."),
        )
        .required("next")
        .property(
            "previous",
            link("Absolute address of the page before it; null on the first."),
        )
        .required("previous")
        .property(
            "results",
            ArrayBuilder::new().items(reference::<Long<'_>>()),
        )
        .required("results")
}
