//! Descriptions of the REST API's operations: summary, parameters, bodies and answers.

use cluster_api::{
    AddedOutput, Alert, BandwidthByProtocol, Caller, ConnectGraph, CreatedPin, Credential, CredentialAdd,
    CredentialCreated, CredentialUsage, Drain, Event, GlobalPinInfo, GlobalRepoGc, GlobalScrub,
    HealthSummary, Id, ImportedPin, Metric, OldPin, PeerAdd, Pin, Rebalance, Token, Version,
};

use schemars::JsonSchema;

use super::SchemaOf;
use crate::http::page::Root;
use crate::metrics::{History, Readiness};

/// Query parameters, one a line: name, type and meaning.
pub(super) type Parameters = &'static str;

/// Description of one operation.
pub(super) struct Operation {
    pub(super) method: &'static str,
    /// Path in the router's notation.
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    /// More than the summary; may be empty.
    pub(super) details: &'static str,
    pub(super) parameters: &'static [Parameters],
    pub(super) body: Option<Content>,
    /// Answers of success: status, description and body; errors are common to all.
    pub(super) answers: Vec<(u16, &'static str, Option<Content>)>,
}

/// Content of a body.
pub(super) enum Content {
    /// One JSON value.
    Json(SchemaOf),
    /// JSON values, one a line.
    Lines(SchemaOf),
    /// The same as server-sent events if the client accepts them.
    Events(SchemaOf),
    /// Text of a media type.
    Other(&'static str),
    /// An upload.
    Form,
}

impl Content {
    fn json<T: JsonSchema>() -> Self {
        Self::Json(|schemas| schemas.subschema_for::<T>())
    }

    fn lines<T: JsonSchema>() -> Self {
        Self::Lines(|schemas| schemas.subschema_for::<T>())
    }
}

impl Operation {
    /// Splits its query parameters into name, type and meaning.
    pub(super) fn query_parameters(
        &self,
    ) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        let lines = self.parameters.iter().flat_map(|table| table.lines());
        lines.filter_map(|line| {
            let (name, rest) = line.split_once(' ')?;
            let (kind, meaning) = rest.split_once(' ')?;
            Some((name, kind, meaning))
        })
    }

    fn with(self, parameters: &'static [Parameters]) -> Self {
        Self { parameters, ..self }
    }

    fn reads(self, body: Content) -> Self {
        let body = Some(body);
        Self { body, ..self }
    }

    fn says(self, details: &'static str) -> Self {
        Self { details, ..self }
    }

    fn answers(mut self, status: u16, description: &'static str, body: Option<Content>) -> Self {
        self.answers.push((status, description, body));
        self
    }

    fn empty(self, status: u16, description: &'static str) -> Self {
        self.answers(status, description, None)
    }

    fn json<T: JsonSchema>(self, description: &'static str) -> Self {
        self.answers(200, description, Some(Content::json::<T>()))
    }

    fn lines<T: JsonSchema>(self, description: &'static str) -> Self {
        self.answers(200, description, Some(Content::lines::<T>()))
    }

    fn events<T: JsonSchema>(self, description: &'static str) -> Self {
        let events = Content::Events(|schemas| schemas.subschema_for::<T>());
        self.answers(200, description, Some(events))
    }

    fn text(self, description: &'static str, media_type: &'static str) -> Self {
        self.answers(200, description, Some(Content::Other(media_type)))
    }
}

fn operation(method: &'static str, path: &'static str, summary: &'static str) -> Operation {
    Operation {
        method,
        path,
        summary,
        details: "",
        parameters: &[],
        body: None,
        answers: Vec::new(),
    }
}

fn get(path: &'static str, summary: &'static str) -> Operation {
    operation("GET", path, summary)
}

fn post(path: &'static str, summary: &'static str) -> Operation {
    operation("POST", path, summary)
}

fn delete(path: &'static str, summary: &'static str) -> Operation {
    operation("DELETE", path, summary)
}

/// Returns the meaning of a parameter in the path.
pub(super) fn parameter(name: &str) -> &'static str {
    match name {
        "credential" => "Id or name of the credential.",
        "file" => "Name of a file of the page.",
        "hash" => "CID.",
        "name" => "Name of the metric: `ping`, `freespace`, `tag:…`.",
        "path" => "Rest of an IPFS path; may contain slashes.",
        "peer" => "Id of the peer.",
        _ => "",
    }
}

const DRAIN: Parameters = "\
moves integer Maximum number of copies that wait for their replacements at once, 1 to 4096; 256 by default.
force boolean Drain the peer although some of its pins cannot move.";

const REBALANCE: Parameters = "\
automatic boolean Rebalance whenever a peer deviates from its target by more than the threshold.
threshold integer Deviation from a target that starts automatic rebalancing, in percent, 0 to 1000.
moves integer Maximum number of copies of a peer that wait for their replacements at once, 1 to 4096.
total-moves integer The same for all peers together, divided equally, one each at least.
bytes-per-second string Maximum rate at which a peer fetches copies that move to it, those of drains \
    included, like `50MB`; 0 for no limit.
total-bytes-per-second string The same for all peers together, divided equally.";

const LOCAL: Parameters = "\
local boolean Only at the peer that is asked.";

const UNDER_REPLICATED: Parameters = "\
under-replicated boolean Only pins with fewer confirmed copies than their minimum; without other conditions.";

const SCRUBBERS: Parameters = "\
peer string Only at these peers: ids, separated by commas.";

const SCRUB: Parameters = "\
action string `start` a cycle unless one runs, `pause`, or `resume`.
fraction string Share of the time in which the disk may be read, 0.001 to 1, or `default` for the \
    configured one.";

const CONSISTENT: Parameters = "\
consistent boolean Show all writes that were acknowledged before; needs a majority of the voters.";

const PIN: Parameters = "\
name string Name of the pin.
mode string `recursive` (the default) or `direct`.
replication-min integer Minimum of copies, below which the pin is repaired; -1 for every peer.
replication-max integer Maximum number of copies; -1 for every peer.
replication integer Both of these.
user-allocations string Ids of preferred peers, separated by commas.
expire-at string Time at which the pin is removed (RFC 3339).
expire-in string Duration after which the pin is removed, such as `24h`.
meta-KEY string Value of KEY in the metadata; for any KEY that does not begin with `owner/`.
pin-update string CID of a pin whose options and allocations are taken over.
origins string Multiaddresses of nodes that have the content, separated by commas.
shard-size integer Accepted for the Go peer's clients, and without effect.";

const IMPORT: Parameters = "\
stream boolean Answer each line with one, while the body arrives.";

const ADD: Parameters = "\
local boolean Store the blocks at the peer that is asked; the others fetch them.
recursive boolean Accepted for the Go peer's clients: a directory is added as it is sent.
hidden boolean Accepted for the Go peer's clients, which leave out hidden files.
wrap-with-directory boolean Wrap everything in one more directory.
shard boolean Not supported: true is answered with 501.
stream-channels boolean False for one array at the end instead of a line for each file.
format string `unixfs` (the default) or `car`.
no-pin boolean Store the content without pinning it.
layout string `balanced` (the default) or `trickle`.
chunker string `size-262144`, `rabin`, `buzhash`, …
raw-leaves boolean Leaves are raw blocks; true by default with CIDs of version 1.
progress boolean Report bytes in between.
cid-version integer 0 (the default) or 1.
hash string Hash function: `sha2-256`, `blake3`, …
nocopy boolean Only URLs are accepted, whose content is stored.";

const SEARCH: Parameters = "\
filter string Types of pins, separated by commas: `all`, `pin`, `meta-pin`, `clusterdag-pin`, `shard-pin`.
name string Only pins with this name.
name-match string `exact` (the default), `iexact`, `prefix`, `iprefix`, `partial` or `ipartial`.
meta-KEY string Only pins with this value of KEY in the metadata.
before string Only pins made before this time (RFC 3339).
after string Only pins made after this time (RFC 3339).
peer string Only pins that this peer must hold.
sort string `cid`, `newest` or `oldest`.
limit integer Most pins in the answer; up to 1000 the answer has `X-Next-Cursor` if there are more.
cursor string `X-Next-Cursor` of the page before.
whole boolean With all fields, as `state import` reads them.";

const STATUS: Parameters = "\
filter string Statuses, separated by commas: `pinned`, `pinning`, `queued`, `error`, …
cids string Only these CIDs, separated by commas; up to 256.";

const EVENTS: Parameters = "\
type string Types of events, separated by commas.
cid string Only of this CID.
peer string Only of this peer.
after integer Id of the last event that was read.";

const OF_A_NAME: &str = "The path is resolved by the IPFS node of the peer that is asked.";

/// Returns all operations.
pub(super) fn operations() -> Vec<Operation> {
    let groups = [
        of_page(),
        of_observation(),
        of_credentials(),
        of_peers(),
        of_content(),
        of_pins(),
        of_statuses(),
    ];
    groups.into_iter().flatten().collect()
}

/// The page and this document.
fn of_page() -> Vec<Operation> {
    vec![
        get("/", "Describes the API, or shows the web page to browsers").json::<Root>("Name and version."),
        get("/ui/{file}", "Returns a file of the web page").text("The file.", "*/*"),
        get("/openapi.json", "Returns this document")
            .json::<serde_json::Map<String, serde_json::Value>>("The document."),
    ]
}

/// Events, health and metrics.
fn of_observation() -> Vec<Operation> {
    vec![
        get("/health", "Tells whether the process runs").empty(204, "It runs."),
        get("/health/ready", "Tells whether the peer can serve")
            .json::<Readiness>("It can.")
            .answers(
                503,
                "It cannot, with the reasons.",
                Some(Content::json::<Readiness>()),
            ),
        get("/events", "Streams changes of the cluster as they happen")
            .events::<Event>("The events; empty lines keep the stream alive.")
            .with(&[EVENTS, LOCAL]),
        get("/health/graph", "Returns the connections between the peers").json::<ConnectGraph>("The graph."),
        get("/health/summary", "Returns what is wrong in the cluster").json::<HealthSummary>("The problems."),
        get(
            "/health/alerts",
            "Lists alerts: metrics of peers that have expired",
        )
        .json::<Vec<Alert>>("The alerts."),
        get(
            "/health/bandwidth",
            "Returns the traffic between the peers by protocol",
        )
        .json::<BandwidthByProtocol>("The traffic."),
        get("/monitor/metrics", "Lists the names of the metrics of peers").json::<Vec<String>>("The names."),
        get("/monitor/metrics/{name}", "Lists the samples of a metric").json::<Vec<Metric>>("The samples."),
        get("/metrics", "Returns the metrics of the peer for Prometheus").text("The metrics.", "text/plain"),
        get(
            "/metrics/history",
            "Returns the rate and latency of changes in the last hour",
        )
        .json::<History>("The samples."),
    ]
}

/// Credentials and tokens.
fn of_credentials() -> Vec<Operation> {
    vec![
        get("/auth/self", "Shows who makes the request, and what is permitted").json::<Caller>("The caller."),
        get("/auth/credentials", "Lists the credentials").json::<Vec<Credential>>("Without tokens."),
        post("/auth/credentials", "Creates a credential")
            .json::<CredentialCreated>("With its token, which is shown only here.")
            .reads(Content::json::<CredentialAdd>()),
        delete("/auth/credentials/{credential}", "Revokes a credential")
            .json::<Credential>("The revoked credential."),
        get(
            "/auth/credentials/{credential}/usage",
            "Returns the pins and bytes that a credential with the scope own holds",
        )
        .json::<CredentialUsage>("What its owner holds."),
        post("/token", "Issues a JWT to a configured user").json::<Token>("The token."),
    ]
}

/// Peers and drains.
fn of_peers() -> Vec<Operation> {
    vec![
        get("/id", "Describes the peer").json::<Id>("The peer."),
        get("/version", "Returns the version of the peer").json::<Version>("The version."),
        get("/peers", "Describes all peers").lines::<Id>("The peers."),
        post("/peers", "Adds a peer to the cluster")
            .json::<Id>("The new peer.")
            .reads(Content::json::<PeerAdd>()),
        delete("/peers/{peer}", "Removes a peer from the cluster").empty(204, "It is no member any more."),
        get("/drains", "Returns the progress of all drains").json::<Vec<Drain>>("The drains."),
        get("/drains/{peer}", "Returns the progress of the drain of a peer").json::<Drain>("The drain."),
        post("/drains/{peer}", "Drains a peer: its pins move to others")
            .json::<Drain>("The new or changed drain.")
            .with(&[DRAIN]),
        delete(
            "/drains/{peer}",
            "Ends the drain of a peer; its remaining pins stay",
        )
        .json::<Drain>("The ended drain."),
        get(
            "/rebalance",
            "Returns how far the peers are from their targets, and the settings of the rebalancing",
        )
        .json::<Rebalance>("The rebalancing."),
        post(
            "/rebalance",
            "Starts a run of the rebalancing: copies move until all peers have their share",
        )
        .json::<Rebalance>("The rebalancing."),
        delete("/rebalance", "Ends the run of the rebalancing").json::<Rebalance>("The rebalancing."),
        post(
            "/rebalance/settings",
            "Changes the settings of the rebalancing; absent ones stay",
        )
        .json::<Rebalance>("The rebalancing.")
        .with(&[REBALANCE]),
    ]
}

/// Uploads and the IPFS nodes.
fn of_content() -> Vec<Operation> {
    vec![
        post("/add", "Uploads content and pins it")
            .lines::<AddedOutput>("A line for each file.")
            .with(&[ADD, PIN])
            .reads(Content::Form)
            .says("With `stream-channels=false` the answer is one array."),
        post("/ipfs/gc", "Collects garbage at the IPFS nodes")
            .json::<GlobalRepoGc>("What was removed, by peer.")
            .with(&[LOCAL]),
        get(
            "/ipfs/scrub",
            "Returns the state of the scrubs: what was re-read, what was damaged, what is not mended",
        )
        .json::<GlobalScrub>("The state of each peer.")
        .with(&[LOCAL, SCRUBBERS]),
        post("/ipfs/scrub", "Starts, pauses, resumes or slows the scrubs")
            .json::<GlobalScrub>("The state of each peer.")
            .with(&[SCRUB, LOCAL, SCRUBBERS]),
    ]
}

/// The pinset.
fn of_pins() -> Vec<Operation> {
    vec![
        get("/allocations", "Lists and searches pins")
            .lines::<Pin>("The pins.")
            .empty(204, "There are none.")
            .with(&[SEARCH, UNDER_REPLICATED, CONSISTENT]),
        post("/allocations", "Imports pins unchanged")
            .lines::<ImportedPin>("With `stream`: the results, a line for each pin, in the same order.")
            .empty(204, "All are committed.")
            .with(&[IMPORT])
            .reads(Content::lines::<Pin>())
            .says(
                "Up to 4096 pins, as `GET /allocations?whole=true` lists them; with `stream` any number. An \
                 invalid or refused pin fails the request; with `stream` only its own line.",
            ),
        get("/allocations/{hash}", "Returns a pin")
            .json::<Pin>("The pin.")
            .with(&[CONSISTENT]),
        get(
            "/pinlist",
            "Lists all pins as one array, as Go ipfs-cluster 0.0.12 does",
        )
        .json::<Vec<OldPin>>("The pins.")
        .with(&[CONSISTENT]),
    ]
}

/// Pins with their statuses at the peers.
fn of_statuses() -> Vec<Operation> {
    vec![
        get("/pins", "Lists the statuses of all pins")
            .lines::<GlobalPinInfo>("The statuses.")
            .empty(204, "There are none.")
            .with(&[STATUS, UNDER_REPLICATED, LOCAL, CONSISTENT]),
        post("/pins/recover", "Retries all that failed")
            .lines::<GlobalPinInfo>("The statuses.")
            .empty(204, "There are none.")
            .with(&[LOCAL]),
        get("/pins/recover", "Refused: `recover` is no CID"),
        delete("/pins/recover", "Refused: `recover` is no CID"),
        post("/pins/sync", "Compares all pins with the IPFS nodes")
            .lines::<GlobalPinInfo>("The statuses.")
            .empty(204, "There are none.")
            .with(&[LOCAL]),
        get("/pins/sync", "Refused: `sync` is no CID"),
        delete("/pins/sync", "Refused: `sync` is no CID"),
        get("/pins/{hash}", "Returns the status of a CID")
            .json::<GlobalPinInfo>("Its status at the peers.")
            .with(&[LOCAL, CONSISTENT]),
        post("/pins/{hash}", "Pins a CID, or changes its pin")
            .json::<CreatedPin>("The pin.")
            .with(&[PIN]),
        delete("/pins/{hash}", "Unpins a CID").json::<Pin>("The pin."),
        post("/pins/{hash}/recover", "Retries a CID that failed")
            .json::<GlobalPinInfo>("Its status at the peers.")
            .with(&[LOCAL]),
        post("/pins/{hash}/sync", "Compares a CID with the IPFS nodes")
            .json::<GlobalPinInfo>("Its status at the peers.")
            .with(&[LOCAL]),
        post("/pins/ipfs/{*path}", "Pins what a path names")
            .json::<CreatedPin>("The pin.")
            .with(&[PIN])
            .says(OF_A_NAME),
        delete("/pins/ipfs/{*path}", "Unpins what a path names")
            .json::<Pin>("The pin.")
            .says(OF_A_NAME),
        post("/pins/ipns/{*path}", "Pins what an IPNS name stands for")
            .json::<CreatedPin>("The pin.")
            .with(&[PIN])
            .says(OF_A_NAME),
        delete("/pins/ipns/{*path}", "Unpins what an IPNS name stands for")
            .json::<Pin>("The pin.")
            .says(OF_A_NAME),
        post("/pins/ipld/{*path}", "Pins what a path through IPLD data names")
            .json::<CreatedPin>("The pin.")
            .with(&[PIN])
            .says(OF_A_NAME),
        delete("/pins/ipld/{*path}", "Unpins what a path through IPLD data names")
            .json::<Pin>("The pin.")
            .says(OF_A_NAME),
    ]
}
