//! `add`, `block/put`, `dag/put` and `dag/import`: forwarded to the node; the cluster pins what the node
//! has pinned.
//!
//! The node gets the request as it was sent, so that all options, settings, answers and errors are the
//! node's. The node's own pin keeps garbage collection from removing the blocks before the cluster has
//! pinned them.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;

use axum::body::Body;
use axum::http::uri::PathAndQuery;
use axum::http::{Request, Response, StatusCode, Uri};
use bytes::Bytes;
use cluster_api::{PinMode, PinOptions};
use cluster_core::Cid;
use cluster_http::rpc::{Failure, json_line};
use cluster_ipfs::api::RequestBody;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use serde::Deserialize;

use super::call::{Command, Options, Put};
use super::kubo_response::failed;
use super::line_filter::{LineFilter, filter_lines};
use super::{Proxy, forward, pins};
use crate::cluster::{Cluster, Error};

/// Maximum number of pins of one upload that are being committed at once.
const PINS_AT_ONCE: usize = 64;

/// Maximum number of known directories of one upload, each of eight bytes; in larger silent uploads the lines
/// of further directories are left out.
const DIRECTORIES_MAX: usize = 100_000;

/// Forwards a request that adds content, and pins what its response says the node has pinned.
pub(super) async fn answer(
    proxy: &Proxy,
    command: Command,
    client: Option<SocketAddr>,
    request: Request<RequestBody>,
) -> Response<Body> {
    let asked = match read(command, request.uri().query().unwrap_or_default()) {
        Ok(asked) => asked,
        Err(failure) => return failed(failure),
    };
    let request = match with_query(request, &asked.query) {
        Ok(request) => request,
        Err(failure) => return failed(failure),
    };
    let response = forward::pass(&proxy.upstream, client, request).await;
    let Some(kind) = asked.reader.filter(|_| response.status() == StatusCode::OK) else {
        return response;
    };
    let claims = Claims {
        cluster: proxy.cluster.clone(),
        options: asked.options,
        running: FuturesUnordered::new(),
    };
    match kind {
        Reader::Add(add) => {
            let adding = AddFilter {
                add,
                claims,
                root: None,
                any: false,
                directories: HashSet::new(),
                keyed: RandomState::new(),
            };
            filter_lines(response, adding).await
        }
        Reader::Put(put) => filter_lines(response, PutFilter { put, claims }).await,
    }
}

/// A parsed request.
struct UploadRequest {
    /// Query to forward to the node.
    query: String,
    /// Options of the cluster's pins.
    options: PinOptions,
    /// Reader of the response; `None` if nothing is to be pinned.
    reader: Option<Reader>,
}

enum Reader {
    Add(Add),
    Put(Put),
}

/// Options of `add` that change how its response is read.
struct Add {
    wrap: bool,
    silent: bool,
    /// Options with the base of CIDs in the response; `None` for the default.
    show: Option<Options>,
}

fn read(command: Command, query: &str) -> Result<UploadRequest, Failure> {
    let (_, options) = Options::parse(query)?;
    let asked = |query: String, pins: PinOptions, reader| UploadRequest {
        query,
        options: pins,
        reader,
    };
    let plain = || asked(query.to_owned(), PinOptions::default(), None);
    let Command::Put(put) = command else {
        return read_add(&options, query);
    };
    let pins = match put {
        Put::Block | Put::Dag => options.flag(&["pin"], false)?,
        Put::Import => options.flag(&["pin-roots"], true)?,
    };
    if !pins {
        return Ok(plain());
    }
    let query = options.rewritten(&["encoding", "enc", "cid-base"], &[("encoding", "json")]);
    Ok(asked(query, pin_options(&options)?, Some(Reader::Put(put))))
}

fn read_add(options: &Options, query: &str) -> Result<UploadRequest, Failure> {
    let off = options.flag(&["only-hash", "n"], false)? || !options.flag(&["pin"], true)?;
    // The option of the cluster's own API.
    let no_pin = options.flag(&["no-pin"], false)?;
    if options.text(&["format"]) == Some("car") {
        let why = "format=car: send CAR files to dag/import, or to the cluster's REST API";
        return Err(Failure::failed(why));
    }
    if off || no_pin {
        let query = if off {
            query.to_owned()
        } else {
            options.rewritten(&["pin"], &[("pin", "false")])
        };
        return Ok(UploadRequest {
            query,
            options: PinOptions::default(),
            reader: None,
        });
    }
    let mut pins = pin_options(options)?;
    pins.name = pins::checked_name(options.text(&["pin-name"]))?;
    let base = options.text(&["cid-base"]).is_some();
    let add = Add {
        // The second is the name in the first releases of ipfs-cluster.
        wrap: options.flag(&["wrap-with-directory", "w"], false)?
            || options.flag(&["wrap-in-directory"], false)?,
        silent: options.flag(&["silent"], false)?,
        show: base.then(|| options.clone()),
    };
    // The proxy must see all CIDs, in the form in which the node pins them.
    let without = ["silent", "encoding", "enc", "cid-base"];
    let changed = without.iter().any(|name| options.text(&[name]).is_some());
    let query = if changed {
        options.rewritten(&without, &[("encoding", "json")])
    } else {
        query.to_owned()
    };
    Ok(UploadRequest {
        query,
        options: pins,
        reader: Some(Reader::Add(add)),
    })
}

/// Returns the pin options of the cluster's own API. `mode` is left out: for Kubo it is a file's mode.
fn pin_options(options: &Options) -> Result<PinOptions, Failure> {
    Ok(PinOptions {
        mode: PinMode::Recursive,
        name: String::new(),
        ..pins::parsed_options(options.query())?
    })
}

fn with_query(mut request: Request<RequestBody>, query: &str) -> Result<Request<RequestBody>, Failure> {
    if request.uri().query().unwrap_or_default() == query {
        return Ok(request);
    }
    let path: PathAndQuery = format!("{}?{query}", request.uri().path())
        .parse()
        .map_err(Failure::bad_request)?;
    *request.uri_mut() = Uri::from(path);
    Ok(request)
}

/// Running claims of one upload: pins of content that the node holds.
struct Claims {
    cluster: Cluster,
    options: PinOptions,
    running: FuturesUnordered<BoxFuture<'static, Result<(), Error>>>,
}

impl Claims {
    /// Starts to pin, and waits while [`PINS_AT_ONCE`] claims are running.
    async fn start(&mut self, cid: Cid) -> Result<(), Failure> {
        let (cluster, options) = (self.cluster.clone(), self.options.clone());
        self.running.push(Box::pin(
            async move { cluster.claim(cid, &options).await.map(|_| ()) },
        ));
        while self.running.len() >= PINS_AT_ONCE {
            self.wait_one().await?;
        }
        Ok(())
    }

    async fn wait_one(&mut self) -> Result<(), Failure> {
        match self.running.next().await {
            Some(Err(error)) => Err(Failure::from(error).with_prefix("pin: ")),
            Some(Ok(())) | None => Ok(()),
        }
    }

    async fn wait_all(&mut self) -> Result<(), Failure> {
        while !self.running.is_empty() {
            self.wait_one().await?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct AddLine {
    #[serde(rename = "Name", default)]
    name: String,
    #[serde(rename = "Hash", default)]
    hash: String,
}

/// Pins from the response to `add`.
struct AddFilter {
    add: Add,
    claims: Claims,
    /// CID of the last line, which is the wrapping directory when the response ends.
    root: Option<Cid>,
    any: bool,
    /// Hashes of the paths of the directories seen so far: paths may be long.
    directories: HashSet<u64>,
    keyed: RandomState,
}

impl AddFilter {
    /// Returns whether a line is sent to the client. With `silent` Kubo sends those of directories only.
    fn is_shown(&mut self, name: &str) -> bool {
        if !self.add.silent {
            return true;
        }
        let mut above = name;
        while let Some((parent, _)) = above.rsplit_once('/') {
            let parent_hash = self.keyed.hash_one(parent);
            if self.directories.len() >= DIRECTORIES_MAX || !self.directories.insert(parent_hash) {
                break;
            }
            above = parent;
        }
        name.is_empty() || self.directories.contains(&self.keyed.hash_one(name))
    }

    /// Returns the line with its CID in the base that the client asked for.
    fn with_shown_cid(&self, line: Bytes, hash: &str) -> Bytes {
        let Some(options) = &self.add.show else {
            return line;
        };
        let Ok(cid) = hash.parse::<cluster_ipfs::Cid>() else {
            return line;
        };
        let (from, to) = (format!("\"{hash}\""), format!("\"{}\"", options.format_cid(&cid)));
        String::from_utf8_lossy(&line).replace(&from, &to).into()
    }
}

impl LineFilter for AddFilter {
    async fn line(&mut self, line: Bytes) -> Result<Option<Bytes>, Failure> {
        let Ok(AddLine { name, hash }) = serde_json::from_slice(&line) else {
            return Ok(Some(line));
        };
        if hash.is_empty() {
            return Ok(Some(line));
        }
        let cid = hash.parse::<Cid>().map_err(|error| {
            Failure::failed(format!(
                "the IPFS node adds {hash:?}, which is not a valid CID: {error}"
            ))
        })?;
        self.any = true;
        if self.add.wrap {
            self.root = Some(cid);
        } else if !name.contains('/') {
            self.claims.start(cid).await?;
        }
        let line = self.with_shown_cid(line, &hash);
        Ok(self.is_shown(&name).then_some(line))
    }

    async fn end(&mut self) -> Result<(), Failure> {
        if !self.any {
            return Err(Failure::failed("the IPFS node does not say what it has added"));
        }
        if let Some(root) = self.root.take() {
            self.claims.start(root).await?;
        }
        self.claims.wait_all().await
    }
}

/// Pins from the response to `block/put`, `dag/put` or `dag/import`.
struct PutFilter {
    put: Put,
    claims: Claims,
}

#[derive(Deserialize)]
struct BlockLine {
    #[serde(rename = "Key")]
    key: String,
}

#[derive(Deserialize)]
struct DagLine {
    #[serde(rename = "Cid")]
    cid: Link,
}

#[derive(serde::Serialize, Deserialize)]
struct Link {
    #[serde(rename = "/")]
    cid: String,
}

#[derive(serde::Serialize, Deserialize)]
struct ImportLine {
    #[serde(rename = "Root")]
    root: Root,
}

#[derive(serde::Serialize, Deserialize)]
struct Root {
    #[serde(rename = "Cid")]
    cid: Link,
    #[serde(rename = "PinErrorMsg", default)]
    error: String,
}

impl PutFilter {
    async fn claim(&mut self, cid: &str) -> Result<(), Failure> {
        let cid = cid.parse().map_err(|error| {
            Failure::failed(format!(
                "the IPFS node names {cid:?}, which is not a valid CID: {error}"
            ))
        })?;
        self.claims.start(cid).await?;
        self.claims.wait_all().await
    }
}

impl LineFilter for PutFilter {
    async fn line(&mut self, text: Bytes) -> Result<Option<Bytes>, Failure> {
        match self.put {
            Put::Block => {
                if let Ok(BlockLine { key }) = serde_json::from_slice(&text) {
                    self.claim(&key).await?;
                }
            }
            Put::Dag => {
                if let Ok(DagLine { cid }) = serde_json::from_slice(&text) {
                    self.claim(&cid.cid).await?;
                }
            }
            Put::Import => {
                let Ok(mut report) = serde_json::from_slice::<ImportLine>(&text) else {
                    return Ok(Some(text));
                };
                // An import reports roots that cannot be pinned, and continues.
                if report.root.error.is_empty()
                    && let Err(why) = self.claim(&report.root.cid.cid).await
                {
                    why.message().clone_into(&mut report.root.error);
                    return Ok(Some(json_line(&report)));
                }
            }
        }
        Ok(Some(text))
    }

    async fn end(&mut self) -> Result<(), Failure> {
        self.claims.wait_all().await
    }
}
