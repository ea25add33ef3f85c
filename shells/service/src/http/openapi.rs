//! The OpenAPI document of the REST API: `GET /openapi.json`.
//!
//! It is made of the table of routes, with the scope that each needs, of the descriptions in [`operations`],
//! and of the schemas of the API's types. Tests compare the descriptions with the routes, and real answers
//! with the schemas.

mod operations;

use axum::Extension;
use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use cluster_core::Scope;
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use self::operations::{Content, Operation, operations, parameter};
use super::answer;
use super::scopes::{Access, Route};

/// Version of the OpenAPI specification.
const OPENAPI: &str = "3.1.0";

/// Prefix of references to schemas.
const SCHEMAS: &str = "/components/schemas";

const DESCRIPTION: &str = "\
API of a peer of an ipfs-cluster: pins, their status at all peers, uploads, peers, events and credentials. \
Answers marked with `x-json-lines` are a stream of JSON values, one a line; an error in the middle of a \
stream is in the trailer `X-Stream-Error`. The pinning service API, on a port of its own, has a document of \
its own: <https://ipfs.github.io/pinning-services-api-spec/>.";

/// The document as it is sent; built once.
#[derive(Clone)]
pub(super) struct Document(pub(super) Bytes);

/// Answers `GET /openapi.json`.
pub(super) async fn show(Extension(Document(document)): Extension<Document>) -> Response<Body> {
    answer::of_bytes(document)
}

/// Returns a schema, and registers those that it refers to.
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// Builds the document of these routes. `version` is that of this program.
pub(super) fn document(table: &[Route], version: &str) -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut schemas = settings
        .with(|settings| {
            settings.definitions_path = SCHEMAS.into();
            settings.meta_schema = None;
        })
        .into_generator();
    let mut paths: Map<String, Value> = Map::new();
    let operations = operations();
    for route in table {
        let described = operations
            .iter()
            .find(|operation| operation.method == route.method.as_str() && operation.path == route.path);
        let Some(operation) = described else { continue };
        let at = paths
            .entry(path_of(route.path))
            .or_insert_with(|| Value::Object(Map::new()));
        at[route.method.as_str().to_ascii_lowercase()] = of_operation(operation, route.access, &mut schemas);
    }
    let error = schemas.subschema_for::<cluster_api::Error>();
    let of_error = json!({
        "description": "The request failed; the status says what a program can do about it.",
        "content": {"application/json": {"schema": error}},
    });
    json!({
        "openapi": OPENAPI,
        "info": {"title": "ipfs-cluster REST API", "version": version, "description": DESCRIPTION},
        "externalDocs": {
            "description": "Pinning service API",
            "url": "https://ipfs.github.io/pinning-services-api-spec/",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "responses": {"Error": of_error},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Token of a credential of the cluster, or a JWT from `POST /token`.",
                },
                "password": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "Configured user, or the name of a credential with its token.",
                },
            },
        },
    })
}

/// Returns a path as OpenAPI writes it: without the mark of a parameter that may contain slashes.
fn path_of(route: &str) -> String {
    route.replace("{*", "{")
}

fn of_operation(operation: &Operation, access: Access, schemas: &mut SchemaGenerator) -> Value {
    let (security, needs) = match access {
        Access::Needs(scope) => (json!([{"token": []}, {"password": []}]), scope_text(scope)),
        Access::Admitted => (json!([{}, {"token": []}, {"password": []}]), String::new()),
    };
    let mut described = json!({
        "operationId": operation_id(operation),
        "summary": operation.summary,
        "description": format!("{}{needs}", operation.details),
        "security": security,
        "responses": responses(operation, schemas),
    });
    if let Access::Needs(scope) = access {
        described["x-scope"] = scope.name().into();
    }
    let in_path = path_parameters(operation.path);
    let in_query = operation.query_parameters().map(|(name, kind, meaning)| {
        json!({"name": name, "in": "query", "description": meaning, "schema": {"type": kind}})
    });
    let parameters: Vec<Value> = in_path.chain(in_query).collect();
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if let Some(body) = &operation.body {
        described["requestBody"] = json!({"required": true, "content": content(body, schemas)});
    }
    described
}

fn scope_text(scope: Scope) -> String {
    format!(" Needs the scope `{}` if credentials are required.", scope.name())
}

/// Returns a unique name of the operation: its method and the words of its path.
fn operation_id(operation: &Operation) -> String {
    let words = operation.path.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let method = operation.method.to_ascii_lowercase();
    if words.is_empty() {
        return format!("{method}_root");
    }
    format!("{method}_{}", words.join("_"))
}

fn path_parameters(path: &str) -> impl Iterator<Item = Value> {
    let braced = path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        Some(name.strip_prefix('*').unwrap_or(name))
    });
    braced.map(|name| {
        let description = parameter(name);
        let schema = json!({"type": "string"});
        json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema})
    })
}

fn responses(operation: &Operation, schemas: &mut SchemaGenerator) -> Value {
    let mut all = Map::new();
    for (status, description, body) in &operation.answers {
        let mut described = json!({"description": description});
        if let Some(body) = body {
            described["content"] = content(body, schemas);
        }
        all.insert(status.to_string(), described);
    }
    all.insert(
        "default".to_owned(),
        json!({"$ref": "#/components/responses/Error"}),
    );
    all.into()
}

fn content(body: &Content, schemas: &mut SchemaGenerator) -> Value {
    match body {
        Content::Json(schema) => json!({"application/json": {"schema": schema(schemas)}}),
        Content::Lines(schema) => {
            json!({"application/json": {"schema": schema(schemas), "x-json-lines": true}})
        }
        Content::Events(schema) => {
            let schema = schema(schemas);
            json!({
                "application/x-ndjson": {"schema": schema, "x-json-lines": true},
                "text/event-stream": {"schema": {"type": "string"}},
            })
        }
        Content::Other(kind) => json!({*kind: {"schema": {"type": "string"}}}),
        Content::Form => {
            let file = json!({"type": "string", "contentMediaType": "application/octet-stream"});
            let schema = json!({"type": "object", "properties": {"file": file}});
            json!({"multipart/form-data": {"schema": schema}})
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use cluster_api::{AddParams, PinOptions};

    use super::*;
    use crate::cluster::testing::TestCluster;
    use crate::http::auth::Auth;
    use crate::http::routes;

    async fn table() -> Vec<Route> {
        let test = TestCluster::new(1).await;
        routes::table(Arc::new(Auth::new(test.cluster(1), None, true)))
    }

    #[tokio::test]
    async fn every_route_is_described_once_and_nothing_else_is() {
        let routes: BTreeSet<(String, &str)> = table()
            .await
            .iter()
            .map(|route| (route.method.to_string(), route.path))
            .collect();
        let operations = operations();
        let described = operations
            .iter()
            .map(|operation| (operation.method.to_owned(), operation.path));
        let set: BTreeSet<(String, &str)> = described.collect();
        assert_eq!(set, routes);
        assert_eq!(operations.len(), routes.len());
    }

    #[tokio::test]
    async fn references_resolve_and_operations_have_unique_ids() {
        let document = document(&table().await, "1.2.3");
        let mut ids = BTreeSet::new();
        let mut open = vec![&document];
        while let Some(value) = open.pop() {
            match value {
                Value::Object(fields) => {
                    if let Some(target) = fields.get("$ref") {
                        let pointer = target.as_str().unwrap().strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{pointer}");
                    }
                    if let Some(id) = fields.get("operationId") {
                        assert!(ids.insert(id.to_string()), "{id}");
                    }
                    open.extend(fields.values());
                }
                Value::Array(items) => open.extend(items),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        assert_eq!(ids.len(), operations().len());
        let pin = &document["paths"]["/pins/{hash}"]["post"];
        assert_eq!(pin["x-scope"], "pin");
        let path = &document["paths"]["/pins/ipfs/{path}"]["post"]["parameters"][0];
        assert_eq!(path["name"], "path");
    }

    #[test]
    fn parameters_of_pins_and_uploads_are_those_of_the_client() {
        let names = |method: &str, path: &str| {
            let mut all = operations().into_iter();
            let operation = all.find(|operation| (operation.method, operation.path) == (method, path));
            let parameters = operation.unwrap();
            let names = parameters.query_parameters().map(|(name, ..)| name);
            names.collect::<BTreeSet<_>>()
        };
        let pin = PinOptions {
            expire_at: cluster_api::Time::now(),
            metadata: [("KEY".to_owned(), String::new())].into(),
            pin_update: Some(String::new()),
            origins: vec![String::new()],
            ..PinOptions::default()
        };
        let documented = names("POST", "/pins/{hash}");
        let query = pin.to_query();
        for (name, _) in query.iter() {
            assert!(documented.contains(name), "{name}");
        }
        let documented = names("POST", "/add");
        let query = AddParams {
            pin,
            ..AddParams::default()
        }
        .to_query();
        for (name, _) in query.iter() {
            assert!(documented.contains(name), "{name}");
        }
    }
}
