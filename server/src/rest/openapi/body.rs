//! A JSON body as `rest::json::Fields` takes it: fields that must be there, and fields that null leaves out too.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use utoipa::ToSchema;
use utoipa::openapi::schema::{
    ArrayBuilder, ObjectBuilder, OneOfBuilder, RefBuilder, Schema, SchemaType, Type,
};
use utoipa::openapi::{Ref, RefOr};

/// Schemas by their names in the document.
pub(super) type Schemas = Vec<(String, RefOr<Schema>)>;

/// The fields of one JSON object. The five documents ignore fields that it does not name (dialects D0.9), the native API refuses them.
pub(in crate::rest) struct Body {
    object: ObjectBuilder,
    schemas: Schemas,
    demanding: bool,
    names: BTreeSet<String>,
}

impl Body {
    /// An object without fields.
    pub(super) fn new() -> Self {
        Self {
            object: ObjectBuilder::new().schema_type(Type::Object),
            schemas: Vec::new(),
            demanding: false,
            names: BTreeSet::new(),
        }
    }

    /// A field that must be there and is not null.
    pub(super) fn required<T: ToSchema>(self, name: &str, description: &str) -> Self {
        let schema = described::<T>(description);
        self.using::<T>().demand(name).property(name, schema)
    }

    /// A field that may be left out; null is as if it were.
    pub(super) fn optional<T: ToSchema>(self, name: &str, description: &str) -> Self {
        let schema = nullable(reference::<T>(), description);
        self.using::<T>().property(name, schema)
    }

    /// A field that may be left out, but not be null.
    pub(super) fn optional_not_null<T: ToSchema>(self, name: &str, description: &str) -> Self {
        let schema = described::<T>(description);
        self.using::<T>().property(name, schema)
    }

    /// A field that must be there, be it as null.
    pub(super) fn required_or_null<T: ToSchema>(self, name: &str, description: &str) -> Self {
        let schema = nullable(reference::<T>(), description);
        self.using::<T>().demand(name).property(name, schema)
    }

    /// A list that must be there, of so many.
    pub(super) fn required_list<T: ToSchema>(
        self,
        name: &str,
        sizes: RangeInclusive<usize>,
        description: &str,
    ) -> Self {
        let list = list::<T>(&sizes, description);
        self.using::<T>().demand(name).property(name, list)
    }

    /// A list of so many that may be left out; null is as if it were.
    pub(super) fn optional_list<T: ToSchema>(
        self,
        name: &str,
        sizes: RangeInclusive<usize>,
        description: &str,
    ) -> Self {
        let either = SchemaType::from_iter([Type::Array, Type::Null]);
        let list = list::<T>(&sizes, description).schema_type(either);
        self.using::<T>().property(name, list)
    }

    /// An object that may be left out; null is as if it were.
    pub(super) fn optional_object(mut self, name: &str, body: Self, description: &str) -> Self {
        let either = SchemaType::from_iter([Type::Object, Type::Null]);
        let object = body.object.schema_type(either);
        self.schemas.extend(body.schemas);
        self.property(name, object.description(Some(description)))
    }

    /// The names of its fields.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.names.clone()
    }

    /// The schema, those that it refers to, and whether an empty body is refused.
    pub(super) fn parts(self) -> (RefOr<Schema>, Schemas, bool) {
        (self.object.into(), self.schemas, self.demanding)
    }

    fn property(mut self, name: &str, schema: impl Into<RefOr<Schema>>) -> Self {
        self.object = self.object.property(name, schema);
        self.names.insert(name.to_owned());
        self
    }

    fn demand(mut self, name: &str) -> Self {
        self.object = self.object.required(name);
        self.demanding = true;
        self
    }

    fn using<T: ToSchema>(mut self) -> Self {
        collect::<T>(&mut self.schemas);
        self
    }
}

/// Adds a schema and all that it refers to.
pub(super) fn collect<T: ToSchema>(schemas: &mut Schemas) {
    T::schemas(schemas);
    schemas.push((T::name().into_owned(), T::schema()));
}

/// A reference to a schema by its name.
pub(super) fn reference<T: ToSchema>() -> RefBuilder {
    Ref::builder().ref_location_from_schema_name(T::name())
}

fn described<T: ToSchema>(description: &str) -> RefBuilder {
    reference::<T>().description(Some(description))
}

fn nullable(schema: RefBuilder, description: &str) -> OneOfBuilder {
    OneOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .item(schema)
        .description(Some(description))
}

fn list<T: ToSchema>(sizes: &RangeInclusive<usize>, description: &str) -> ArrayBuilder {
    ArrayBuilder::new()
        .items(reference::<T>())
        .min_items(Some(*sizes.start()).filter(|least| *least > 0))
        .max_items(Some(*sizes.end()))
        .description(Some(description))
}
