//! What a route says of itself beyond its method, path, dialect and access.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema, SchemaType};
use utoipa::openapi::{Content, ContentBuilder, RefOr, Required};

use super::body::{Body, Schemas, collect, reference};
use crate::rest::names::Moment;
use crate::rest::status::Kind;

const JSON: &str = "application/json";

/// One operation of the document. What all routes of a dialect or of an access level share is added to it there.
pub(in crate::rest) struct Operation {
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) description: &'static str,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<RequestBody>,
    /// The names of the body's fields.
    pub(in crate::rest) fields: BTreeSet<String>,
    /// The names of the answer's fields.
    pub(in crate::rest) answered: BTreeSet<String>,
    pub(super) status: StatusCode,
    pub(super) content: Vec<(&'static str, Content)>,
    /// A further answer of success.
    pub(super) also: Option<(StatusCode, Content)>,
    /// It shows one object with its generation.
    pub(super) tagged: bool,
    /// It may be asked to write over one generation only.
    pub(super) conditional: bool,
    /// What it may answer besides what every route of its kind may.
    pub(super) problems: Vec<Kind>,
    pub(super) schemas: Schemas,
}

impl Operation {
    /// An operation that takes and answers nothing yet.
    pub(super) fn new(id: &'static str, summary: &'static str, description: &'static str) -> Self {
        Self {
            id,
            summary,
            description,
            parameters: Vec::new(),
            body: None,
            fields: BTreeSet::new(),
            answered: BTreeSet::new(),
            status: StatusCode::OK,
            content: Vec::new(),
            also: None,
            tagged: false,
            conditional: false,
            problems: Vec::new(),
            schemas: Vec::new(),
        }
    }

    /// One line for a list of operations.
    pub(in crate::rest) fn summary(&self) -> &'static str {
        self.summary
    }

    /// The names of its query parameters.
    pub(in crate::rest) fn queries(&self) -> BTreeSet<String> {
        let queries = self.parameters.iter();
        let queries = queries.filter(|it| it.parameter_in == ParameterIn::Query);
        queries.map(|it| it.name.clone()).collect()
    }

    /// A value in the path.
    pub(super) fn path<T: ToSchema>(self, name: &str, description: &str) -> Self {
        self.problem(Kind::InvalidPath).parameter::<T>(
            name,
            ParameterIn::Path,
            Required::True,
            description,
        )
    }

    /// A query parameter that may be left out.
    pub(super) fn query<T: ToSchema>(self, name: &str, description: &str) -> Self {
        self.parameter::<T>(name, ParameterIn::Query, Required::False, description)
    }

    /// It can be asked for the past.
    pub(super) fn past(self) -> Self {
        self.problem(Kind::Overloaded)
            .problem(Kind::Unavailable)
            .query::<Moment>("as_of", "A moment of the past; left out, now.")
    }

    /// A query parameter that must be there.
    pub(super) fn required_query<T: ToSchema>(self, name: &str, description: &str) -> Self {
        self.problem(Kind::MissingField).parameter::<T>(
            name,
            ParameterIn::Query,
            Required::True,
            description,
        )
    }

    /// The JSON body with an example.
    pub(super) fn body(mut self, body: Body, example: Value) -> Self {
        self.fields = body.names();
        let (schema, schemas, demanding) = body.parts();
        self.schemas.extend(schemas);
        let content = ContentBuilder::new()
            .schema(Some(schema))
            .example(Some(example));
        let required = if demanding {
            self.problems.push(Kind::MissingField);
            Required::True
        } else {
            Required::False
        };
        let body = RequestBodyBuilder::new()
            .content(JSON, content.build())
            .required(Some(required));
        self.body = Some(body.build());
        self
    }

    /// 200 with this body.
    pub(super) fn answers<T: ToSchema>(mut self, example: Value) -> Self {
        collect::<T>(&mut self.schemas);
        self.answered.extend(properties(&T::schema()));
        let content = ContentBuilder::new()
            .schema(Some(reference::<T>()))
            .example(Some(example));
        self.content.push((JSON, content.build()));
        self
    }

    /// 201 with this body.
    pub(super) fn creates<T: ToSchema>(mut self, example: Value) -> Self {
        self.status = StatusCode::CREATED;
        self.answers::<T>(example)
    }

    /// 200 with this body instead, when nothing is done.
    pub(super) fn answers_otherwise<T: ToSchema>(mut self, example: Value) -> Self {
        collect::<T>(&mut self.schemas);
        let content = ContentBuilder::new()
            .schema(Some(reference::<T>()))
            .example(Some(example));
        self.also = Some((StatusCode::OK, content.build()));
        self
    }

    /// Its answer has an `ETag`.
    pub(super) fn tagged(self) -> Self {
        Self {
            tagged: true,
            ..self
        }
    }

    /// It takes `If-Match`.
    pub(super) fn conditional(self) -> Self {
        let conditional = Self {
            conditional: true,
            ..self
        };
        conditional.problem(Kind::Changed)
    }

    /// 200 with something that is not described further.
    pub(super) fn answers_file(mut self, content_type: &'static str) -> Self {
        self.content.push((content_type, Content::default()));
        self
    }

    /// Something that it may answer instead.
    pub(super) fn problem(mut self, kind: Kind) -> Self {
        self.problems.push(kind);
        self
    }

    fn parameter<T: ToSchema>(
        mut self,
        name: &str,
        parameter_in: ParameterIn,
        required: Required,
        description: &str,
    ) -> Self {
        collect::<T>(&mut self.schemas);
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(parameter_in)
            .required(required)
            .description(Some(description))
            .schema(Some(reference::<T>()));
        self.parameters.push(parameter.build());
        self
    }
}

fn properties(schema: &RefOr<Schema>) -> Vec<String> {
    match schema {
        RefOr::T(Schema::Object(object)) => object.properties.keys().cloned().collect(),
        RefOr::T(Schema::AllOf(all)) => all.items.iter().flat_map(properties).collect(),
        RefOr::T(_) | RefOr::Ref(_) => Vec::new(),
    }
}

/// Says of a body that it may hold no other fields but those of the answer, which are not looked at: what was read may be sent back.
pub(super) fn closed(mut body: RequestBody, answered: &BTreeSet<String>) -> RequestBody {
    for content in body.content.values_mut() {
        let RefOr::T(content) = content else { continue };
        let Some(RefOr::T(Schema::Object(object))) = &mut content.schema else {
            continue;
        };
        for name in answered {
            let any = || {
                let any = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
                let ignored = "Not looked at: what an answer says may be sent back with it.";
                any.description(Some(ignored)).into()
            };
            object.properties.entry(name.clone()).or_insert_with(any);
        }
        object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
    }
    body
}
