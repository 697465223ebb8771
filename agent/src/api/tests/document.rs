//! The description and the routes are one thing.

use std::path::Path;

use crn_api_types::{Code, ErrorCode, TransportCode};
use serde_json::Value;

use super::harness::Bench;
use crate::api::{document_text, error::status_of};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

fn document() -> Value {
    serde_json::from_str(&document_text()).unwrap()
}

/// The checked-in description is the present one. After a change:
/// `UPDATE_OPENAPI=1 cargo test -p crn-agent --lib checked_in`.
#[test]
fn the_checked_in_description_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, document_text()).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == document_text(),
        "docs/openapi.json is old: UPDATE_OPENAPI=1 cargo test -p crn-agent --lib checked_in"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_described_route_exists_and_no_other_method() {
    let bench = Bench::new().await;
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 20, "{}", paths.len());
    for (path, operations) in paths {
        let concrete = path
            .split('/')
            .map(|p| if p.starts_with('{') { "nothing" } else { p });
        let mut concrete = concrete.collect::<Vec<_>>().join("/");
        if concrete == "/v1/events" {
            concrete.push_str("?follow=false");
        }
        for method in METHODS {
            let answer = bench.send(&method.to_uppercase(), &concrete, b"").await;
            let described = operations.get(method).is_some();
            let refused = answer.code().as_deref() == Some("method_not_allowed");
            assert_eq!(refused, !described, "{method} {path}: {answer:?}");
            if let Some(operation) = operations.get(method) {
                let status = answer.status.to_string();
                let responses = operation["responses"].as_object().unwrap();
                assert!(
                    responses.contains_key(&status),
                    "{method} {path}: {status} {answer:?}"
                );
                let no_route = answer.body.contains("there is no /");
                assert!(!no_route, "{method} {path}: {answer:?}");
            } else {
                assert!(
                    answer.head.contains("allow:"),
                    "{method} {path}: {answer:?}"
                );
            }
        }
    }
}

#[test]
fn every_error_is_described_as_json() {
    let document = document();
    let mut described = std::collections::BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                if status.starts_with(['4', '5']) {
                    described.insert(status.clone());
                    let schema = &response["content"]["application/json"]["schema"]["$ref"];
                    let expected = "#/components/schemas/ErrorBody";
                    assert_eq!(schema, expected, "{method} {path} {status}");
                }
            }
            assert!(operation["operationId"].is_string() && operation["tags"][0].is_string());
        }
    }
    let operations = ErrorCode::ALL.map(Code::from);
    for code in operations
        .into_iter()
        .chain(TransportCode::ALL.map(Code::from))
    {
        let status = status_of(code);
        // What only a stream's last line tells has no status of its own.
        if code != ErrorCode::ImageSource {
            assert!(described.contains(status.as_str()), "{code:?}");
        }
    }
}

/// What is referred to is there.
#[test]
fn references_lead_somewhere() {
    fn walk(value: &Value, document: &Value) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    let pointer = reference.trim_start_matches('#');
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                }
                fields.values().for_each(|v| walk(v, document));
            }
            Value::Array(items) => items.iter().for_each(|v| walk(v, document)),
            _ => {}
        }
    }
    let document = document();
    walk(&document, &document);
}
