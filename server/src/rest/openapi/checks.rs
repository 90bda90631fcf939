//! The document against the table of routes and against itself.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::document;
use crate::auth::Access;
use crate::rest::credential::Carrier;
use crate::rest::routes::ROUTES;

fn written() -> Value {
    serde_json::to_value(document()).unwrap()
}

fn operations(document: &Value) -> BTreeMap<(String, String), &Value> {
    let mut operations = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations.insert((method.to_uppercase(), path.clone()), operation);
        }
    }
    operations
}

// Every value in the document under this key, wherever it stands.
fn under<'a>(key: &str, value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if name == key {
                    found.push(value);
                }
                under(key, value, found);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| under(key, value, found)),
        _ => {}
    }
}

#[test]
fn the_document_has_every_route_with_its_security_and_nothing_else() {
    let document = written();
    let mut described = operations(&document);
    for route in ROUTES {
        let key = (route.method.to_string(), route.path.to_owned());
        let operation = described.remove(&key).unwrap_or_else(|| panic!("{key:?}"));
        let expected = match (route.access, route.dialect.carrier()) {
            (Access::Open, _) => serde_json::json!([]),
            (_, Carrier::Bearer) => serde_json::json!([{ "bearer": [] }]),
            (_, Carrier::XAuthToken) => serde_json::json!([{ "xAuthToken": [] }]),
            (_, Carrier::Token) => serde_json::json!([{ "token": [] }]),
        };
        assert_eq!(operation["security"], expected, "{key:?}");
        assert_ne!(operation["summary"], "", "{key:?}");
        let success: Vec<&String> = operation["responses"]
            .as_object()
            .unwrap()
            .keys()
            .filter(|status| status.starts_with('2'))
            .collect();
        let dry_run = operation["parameters"]
            .as_array()
            .is_some_and(|list| list.iter().any(|it| it["name"] == "dry_run"));
        let most = if dry_run { 2 } else { 1 };
        assert!((1..=most).contains(&success.len()), "{key:?}");
    }
    assert!(described.is_empty(), "{:?}", described.keys());
}

#[test]
fn operation_ids_are_unique_and_paths_name_their_parameters() {
    let document = written();
    let mut ids = BTreeSet::new();
    for ((method, path), operation) in operations(&document) {
        assert!(ids.insert(operation["operationId"].as_str().unwrap()));
        let in_path = path.split('/').filter_map(|part| {
            part.strip_prefix('{')
                .map(|name| name.trim_end_matches('}'))
        });
        let in_path: BTreeSet<&str> = in_path.collect();
        let parameters = operation["parameters"].as_array().unwrap();
        let described = parameters.iter().filter(|it| it["in"] == "path");
        let described: BTreeSet<&str> = described.map(|it| it["name"].as_str().unwrap()).collect();
        assert_eq!(described, in_path, "{method} {path}");
    }
    assert_eq!(ids.len(), ROUTES.len());
}

#[test]
fn every_reference_leads_somewhere() {
    let document = written();
    let mut references = Vec::new();
    under("$ref", &document, &mut references);
    assert!(references.len() > ROUTES.len());
    for reference in references {
        let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

#[test]
fn a_name_means_one_schema() {
    let mut known: BTreeMap<String, Value> = BTreeMap::new();
    for route in ROUTES {
        for (name, schema) in (route.describe)().schemas {
            let schema = serde_json::to_value(schema).unwrap();
            let other = known.entry(name.clone()).or_insert_with(|| schema.clone());
            assert_eq!(*other, schema, "{name}");
        }
    }
}
