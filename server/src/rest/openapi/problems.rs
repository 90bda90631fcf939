//! Error answers of the document: each is what the dialect really answers to a problem of that kind.

use std::collections::{BTreeMap, BTreeSet};

use http::{Method, StatusCode};
use serde_json::Value;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{
    Components, ContentBuilder, Header, Ref, RefOr, Response, ResponseBuilder, Schema,
};

use super::operation::Operation;
use crate::auth::Access;
use crate::rest::credential_challenge;
use crate::rest::front::fault;
use crate::rest::routes::{Dialect, Route};
use crate::rest::status::{Kind, Problem};
