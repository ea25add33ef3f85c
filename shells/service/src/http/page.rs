//! The web page for operators: static files below `/ui`, and the page itself at `/`.
//!
//! The files are part of the program. The page uses the REST API like any other client, so it may do what
//! its user may; its own files need no credentials. The policy in its headers allows scripts, styles and
//! requests of this origin only, and nothing inline: text of pins and peers cannot become code.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, Request, Response, StatusCode};
use schemars::JsonSchema;
use serde::Serialize;

use super::answer;
use crate::cluster::Cluster;

/// Headers of every file of the page.
const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "same-origin"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
];

/// The page, which loads the files below.
const INDEX: &str = include_str!("page/index.html");

macro_rules! files {
    ($($name:literal $kind:literal),* $(,)?) => {
        [$(($name, concat!($kind, "; charset=utf-8"), include_str!(concat!("page/", $name)))),*]
    };
}

/// Name, content type and content of the files below `/ui`.
const FILES: [(&str, &str, &str); 17] = files![
    "add.js" "text/javascript",
    "api.js" "text/javascript",
    "app.js" "text/javascript",
    "credentials.js" "text/javascript",
    "dom.js" "text/javascript",
    "format.js" "text/javascript",
    "icon.svg" "image/svg+xml",
    "live.js" "text/javascript",
    "overview.js" "text/javascript",
    "peers.js" "text/javascript",
    "pin.js" "text/javascript",
    "pins.js" "text/javascript",
    "plot.js" "text/javascript",
    "search.js" "text/javascript",
    "sign_in.js" "text/javascript",
    "style.css" "text/css",
    "upkeep.js" "text/javascript",
];

/// Returns whether a request is for the page itself, which has no secrets and needs no credentials.
pub(super) fn is_public<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    reads && (path.starts_with("/ui/") || path == "/" && accepts_html(request.headers()))
}

/// Browsers name HTML when they open a page; programs do not.
fn accepts_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter();
    let mut accepted = accepted.filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains("text/html"))
}

/// Answers a browser with the page, and a program with a description of the API.
pub(super) async fn root(State(cluster): State<Cluster>, headers: HeaderMap) -> Response<Body> {
    if accepts_html(&headers) {
        return of_file("text/html; charset=utf-8", INDEX);
    }
    answer::json(&Root {
        name: "ipfs-cluster REST API",
        version: cluster.version().to_owned(),
        documentation: "https://ipfscluster.io/documentation/reference/api/",
        openapi: "/openapi.json",
    })
}

/// Body of the response to `GET /` for programs.
#[derive(Serialize, JsonSchema)]
pub(super) struct Root {
    name: &'static str,
    version: String,
    documentation: &'static str,
    /// Path of the OpenAPI document.
    openapi: &'static str,
}

/// Answers with a file of the page.
pub(super) async fn file(Path(name): Path<String>) -> Response<Body> {
    match FILES.iter().find(|(known, ..)| *known == name) {
        Some((_, kind, content)) => of_file(kind, content),
        None => answer::error(StatusCode::NOT_FOUND, "not found"),
    }
}

fn of_file(kind: &'static str, content: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(content));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // After an upgrade of the peer, its files must fit together.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_names_only_files_that_exist_and_nothing_inline() {
        let texts = FILES.iter().map(|(_, _, content)| *content).chain([INDEX]);
        for text in texts {
            for (at, _) in text.match_indices("/ui/") {
                let name = text[at + 4..].split(['"', '\'', ')']).next().unwrap();
                assert!(FILES.iter().any(|(known, ..)| *known == name), "{name}");
            }
            let imports = text.lines().filter_map(|line| line.split_once("from './"));
            for (_, rest) in imports {
                let name = rest.trim_end_matches('\'');
                assert!(FILES.iter().any(|(known, ..)| *known == name), "{name}");
            }
            // Markup from text would let a pin's name become code.
            for banned in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "style=",
            ] {
                assert!(!text.contains(banned), "{banned}");
            }
        }
        assert!(
            !INDEX.contains("<style") && !INDEX.contains("onclick") && INDEX.matches("<script").count() == 1
        );
    }
}
