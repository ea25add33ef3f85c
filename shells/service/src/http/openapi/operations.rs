//! Descriptions of the REST API's operations: summary, parameters, bodies and answers.

use cluster_api::{
    AddedOutput, Alert, BandwidthByProtocol, Caller, ConnectGraph, CreatedPin, Credential, CredentialAdd,
    CredentialCreated, CredentialUsage, Drain, Event, GlobalPinInfo, GlobalRepoGc, GlobalScrub,
    HealthSummary, Id, Metric, OldPin, PeerAdd, Pin, Rebalance, Token, Version,
};

use super::SchemaOf;
use crate::http::page::Root;
use crate::metrics::{History, Readiness};

/// Name, type and meaning of a query parameter.
pub(super) type Parameter = (&'static str, &'static str, &'static str);

/// Description of one operation.
pub(super) struct Operation {
    pub(super) method: &'static str,
    /// Path in the router's notation.
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    /// More than the summary; may be empty.
    pub(super) details: &'static str,
    pub(super) parameters: &'static [&'static [Parameter]],
    pub(super) body: Option<Content>,
    /// Answers of success by status; errors are common to all.
    pub(super) answers: &'static [(u16, Answer)],
}

/// An answer.
pub(super) enum Answer {
    /// Without a body; with a description.
    Empty(&'static str),
    /// With a description and a body.
    Body(&'static str, Content),
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

macro_rules! schema {
    ($type:ty) => {
        |schemas| schemas.subschema_for::<$type>()
    };
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

const DRAIN: &[Parameter] = &[
    (
        "moves",
        "integer",
        "Maximum number of copies that wait for their replacements at once, 1 to 4096; 256 by default.",
    ),
    (
        "force",
        "boolean",
        "Drain the peer although some of its pins cannot move.",
    ),
];

const REBALANCE: &[Parameter] = &[
    (
        "automatic",
        "boolean",
        "Rebalance whenever a peer deviates from its target by more than the threshold.",
    ),
    (
        "threshold",
        "integer",
        "Deviation from a target that starts automatic rebalancing, in percent, 0 to 1000.",
    ),
    (
        "moves",
        "integer",
        "Maximum number of copies of a peer that wait for their replacements at once, 1 to 4096.",
    ),
    (
        "total-moves",
        "integer",
        "The same for all peers together, divided equally, one each at least.",
    ),
];

const LOCAL: &[Parameter] = &[("local", "boolean", "Only at the peer that is asked.")];

const UNDER_REPLICATED: &[Parameter] = &[(
    "under-replicated",
    "boolean",
    "Only pins with fewer confirmed copies than their minimum; without other conditions.",
)];
const SCRUBBERS: &[Parameter] = &[("peer", "string", "Only at these peers: ids, separated by commas.")];

const SCRUB: &[Parameter] = &[
    (
        "action",
        "string",
        "`start` a cycle unless one runs, `pause`, or `resume`.",
    ),
    (
        "fraction",
        "string",
        "Share of the time in which the disk may be read, 0.001 to 1, or `default` for the configured one.",
    ),
];

const CONSISTENT: &[Parameter] = &[(
    "consistent",
    "boolean",
    "Show all writes that were acknowledged before; needs a majority of the voters.",
)];

const PIN: &[Parameter] = &[
    ("name", "string", "Name of the pin."),
    ("mode", "string", "`recursive` (the default) or `direct`."),
    (
        "replication-min",
        "integer",
        "Minimum of copies, below which the pin is repaired; -1 for every peer.",
    ),
    (
        "replication-max",
        "integer",
        "Maximum number of copies; -1 for every peer.",
    ),
    ("replication", "integer", "Both of these."),
    (
        "user-allocations",
        "string",
        "Ids of preferred peers, separated by commas.",
    ),
    (
        "expire-at",
        "string",
        "Time at which the pin is removed (RFC 3339).",
    ),
    (
        "expire-in",
        "string",
        "Duration after which the pin is removed, such as `24h`.",
    ),
    (
        "meta-KEY",
        "string",
        "Value of KEY in the metadata; for any KEY that does not begin with `owner/`.",
    ),
    (
        "pin-update",
        "string",
        "CID of a pin whose options and allocations are taken over.",
    ),
    (
        "origins",
        "string",
        "Multiaddresses of nodes that have the content, separated by commas.",
    ),
    (
        "shard-size",
        "integer",
        "Accepted for the Go peer's clients, and without effect.",
    ),
];

const ADD: &[Parameter] = &[
    (
        "local",
        "boolean",
        "Store the blocks at the peer that is asked; the others fetch them.",
    ),
    (
        "recursive",
        "boolean",
        "Accepted for the Go peer's clients: a directory is added as it is sent.",
    ),
    (
        "hidden",
        "boolean",
        "Accepted for the Go peer's clients, which leave out hidden files.",
    ),
    (
        "wrap-with-directory",
        "boolean",
        "Wrap everything in one more directory.",
    ),
    ("shard", "boolean", "Not supported: true is answered with 501."),
    (
        "stream-channels",
        "boolean",
        "False for one array at the end instead of a line for each file.",
    ),
    ("format", "string", "`unixfs` (the default) or `car`."),
    ("no-pin", "boolean", "Store the content without pinning it."),
    ("layout", "string", "`balanced` (the default) or `trickle`."),
    ("chunker", "string", "`size-262144`, `rabin`, `buzhash`, …"),
    (
        "raw-leaves",
        "boolean",
        "Leaves are raw blocks; true by default with CIDs of version 1.",
    ),
    ("progress", "boolean", "Report bytes in between."),
    ("cid-version", "integer", "0 (the default) or 1."),
    ("hash", "string", "Hash function: `sha2-256`, `blake3`, …"),
    (
        "nocopy",
        "boolean",
        "Only URLs are accepted, whose content is stored.",
    ),
];

const SEARCH: &[Parameter] = &[
    (
        "filter",
        "string",
        "Types of pins, separated by commas: `all`, `pin`, `meta-pin`, `clusterdag-pin`, `shard-pin`.",
    ),
    ("name", "string", "Only pins with this name."),
    (
        "name-match",
        "string",
        "`exact` (the default), `iexact`, `prefix`, `iprefix`, `partial` or `ipartial`.",
    ),
    (
        "meta-KEY",
        "string",
        "Only pins with this value of KEY in the metadata.",
    ),
    ("before", "string", "Only pins made before this time (RFC 3339)."),
    ("after", "string", "Only pins made after this time (RFC 3339)."),
    ("peer", "string", "Only pins that this peer must hold."),
    ("sort", "string", "`cid`, `newest` or `oldest`."),
    (
        "limit",
        "integer",
        "Most pins in the answer; up to 1000 the answer has `X-Next-Cursor` if there are more.",
    ),
    ("cursor", "string", "`X-Next-Cursor` of the page before."),
    (
        "whole",
        "boolean",
        "With all fields, as `state import` reads them.",
    ),
];

const STATUS: &[Parameter] = &[
    (
        "filter",
        "string",
        "Statuses, separated by commas: `pinned`, `pinning`, `queued`, `error`, …",
    ),
    (
        "cids",
        "string",
        "Only these CIDs, separated by commas; up to 256.",
    ),
];

const EVENTS: &[Parameter] = &[
    ("type", "string", "Types of events, separated by commas."),
    ("cid", "string", "Only of this CID."),
    ("peer", "string", "Only of this peer."),
    ("after", "integer", "Id of the last event that was read."),
];

const fn get(path: &'static str, summary: &'static str, answers: &'static [(u16, Answer)]) -> Operation {
    Operation {
        method: "GET",
        path,
        summary,
        details: "",
        parameters: &[],
        body: None,
        answers,
    }
}

const fn post(path: &'static str, summary: &'static str, answers: &'static [(u16, Answer)]) -> Operation {
    let operation = get(path, summary, answers);
    Operation {
        method: "POST",
        ..operation
    }
}

const fn delete(path: &'static str, summary: &'static str, answers: &'static [(u16, Answer)]) -> Operation {
    let operation = get(path, summary, answers);
    Operation {
        method: "DELETE",
        ..operation
    }
}

impl Operation {
    const fn with(self, parameters: &'static [&'static [Parameter]]) -> Self {
        Self { parameters, ..self }
    }

    const fn reads(self, body: Content) -> Self {
        Self {
            body: Some(body),
            ..self
        }
    }

    const fn says(self, details: &'static str) -> Self {
        Self { details, ..self }
    }
}

const NO_PINS: Answer = Answer::Empty("There are none.");

const PIN_ADDED: &[(u16, Answer)] = &[(200, Answer::Body("The pin.", Content::Json(schema!(CreatedPin))))];
const PIN_SHOWN: &[(u16, Answer)] = &[(200, Answer::Body("The pin.", Content::Json(schema!(Pin))))];
const STATUS_OF_ONE: &[(u16, Answer)] = &[(
    200,
    Answer::Body("Its status at the peers.", Content::Json(schema!(GlobalPinInfo))),
)];
const STATUSES: &[(u16, Answer)] = &[
    (
        200,
        Answer::Body("The statuses.", Content::Lines(schema!(GlobalPinInfo))),
    ),
    (204, NO_PINS),
];
/// Answers of routes that exist because the word in the place of a CID is none.
const NEVER: &[(u16, Answer)] = &[];

const OF_A_NAME: &str = "The path is resolved by the IPFS node of the peer that is asked.";

/// All operations, in the order of the routes.
pub(super) const OPERATIONS: &[Operation] = &[
    get(
        "/",
        "Describes the API, or shows the web page to browsers",
        &[(
            200,
            Answer::Body("Name and version.", Content::Json(schema!(Root))),
        )],
    ),
    get(
        "/ui/{file}",
        "Returns a file of the web page",
        &[(200, Answer::Body("The file.", Content::Other("*/*")))],
    ),
    get(
        "/openapi.json",
        "Returns this document",
        &[(
            200,
            Answer::Body(
                "The document.",
                Content::Json(schema!(serde_json::Map<String, serde_json::Value>)),
            ),
        )],
    ),
    get(
        "/health",
        "Tells whether the process runs",
        &[(204, Answer::Empty("It runs."))],
    ),
    get(
        "/health/ready",
        "Tells whether the peer can serve",
        &[
            (200, Answer::Body("It can.", Content::Json(schema!(Readiness)))),
            (
                503,
                Answer::Body("It cannot, with the reasons.", Content::Json(schema!(Readiness))),
            ),
        ],
    ),
    get(
        "/auth/self",
        "Shows who makes the request, and what is permitted",
        &[(200, Answer::Body("The caller.", Content::Json(schema!(Caller))))],
    ),
    get(
        "/auth/credentials",
        "Lists the credentials",
        &[(
            200,
            Answer::Body("Without tokens.", Content::Json(schema!(Vec<Credential>))),
        )],
    ),
    post(
        "/auth/credentials",
        "Creates a credential",
        &[(
            200,
            Answer::Body(
                "With its token, which is shown only here.",
                Content::Json(schema!(CredentialCreated)),
            ),
        )],
    )
    .reads(Content::Json(schema!(CredentialAdd))),
    delete(
        "/auth/credentials/{credential}",
        "Revokes a credential",
        &[(
            200,
            Answer::Body("The revoked credential.", Content::Json(schema!(Credential))),
        )],
    ),
    get(
        "/auth/credentials/{credential}/usage",
        "Returns the pins and bytes that a credential with the scope own holds",
        &[(
            200,
            Answer::Body("What its owner holds.", Content::Json(schema!(CredentialUsage))),
        )],
    ),
    get(
        "/id",
        "Describes the peer",
        &[(200, Answer::Body("The peer.", Content::Json(schema!(Id))))],
    ),
    get(
        "/version",
        "Returns the version of the peer",
        &[(200, Answer::Body("The version.", Content::Json(schema!(Version))))],
    ),
    get(
        "/peers",
        "Describes all peers",
        &[(200, Answer::Body("The peers.", Content::Lines(schema!(Id))))],
    ),
    post(
        "/peers",
        "Adds a peer to the cluster",
        &[(200, Answer::Body("The new peer.", Content::Json(schema!(Id))))],
    )
    .reads(Content::Json(schema!(PeerAdd))),
    delete(
        "/peers/{peer}",
        "Removes a peer from the cluster",
        &[(204, Answer::Empty("It is no member any more."))],
    ),
    get(
        "/drains",
        "Returns the progress of all drains",
        &[(
            200,
            Answer::Body("The drains.", Content::Json(schema!(Vec<Drain>))),
        )],
    ),
    get(
        "/drains/{peer}",
        "Returns the progress of the drain of a peer",
        &[(200, Answer::Body("The drain.", Content::Json(schema!(Drain))))],
    ),
    post(
        "/drains/{peer}",
        "Drains a peer: its pins move to others",
        &[(
            200,
            Answer::Body("The new or changed drain.", Content::Json(schema!(Drain))),
        )],
    )
    .with(&[DRAIN]),
    delete(
        "/drains/{peer}",
        "Ends the drain of a peer; its remaining pins stay",
        &[(
            200,
            Answer::Body("The ended drain.", Content::Json(schema!(Drain))),
        )],
    ),
    get(
        "/rebalance",
        "Returns how far the peers are from their targets, and the settings of the rebalancing",
        &[(
            200,
            Answer::Body("The rebalancing.", Content::Json(schema!(Rebalance))),
        )],
    ),
    post(
        "/rebalance",
        "Starts a run of the rebalancing: copies move until all peers have their share",
        &[(
            200,
            Answer::Body("The rebalancing.", Content::Json(schema!(Rebalance))),
        )],
    ),
    delete(
        "/rebalance",
        "Ends the run of the rebalancing",
        &[(
            200,
            Answer::Body("The rebalancing.", Content::Json(schema!(Rebalance))),
        )],
    ),
    post(
        "/rebalance/settings",
        "Changes the settings of the rebalancing; absent ones stay",
        &[(
            200,
            Answer::Body("The rebalancing.", Content::Json(schema!(Rebalance))),
        )],
    )
    .with(&[REBALANCE]),
    get(
        "/events",
        "Streams changes of the cluster as they happen",
        &[(
            200,
            Answer::Body(
                "The events; empty lines keep the stream alive.",
                Content::Events(schema!(Event)),
            ),
        )],
    )
    .with(&[EVENTS, LOCAL]),
    get(
        "/health/graph",
        "Returns the connections between the peers",
        &[(
            200,
            Answer::Body("The graph.", Content::Json(schema!(ConnectGraph))),
        )],
    ),
    get(
        "/health/summary",
        "Returns what is wrong in the cluster",
        &[(
            200,
            Answer::Body("The problems.", Content::Json(schema!(HealthSummary))),
        )],
    ),
    get(
        "/health/alerts",
        "Lists alerts: metrics of peers that have expired",
        &[(
            200,
            Answer::Body("The alerts.", Content::Json(schema!(Vec<Alert>))),
        )],
    ),
    get(
        "/health/bandwidth",
        "Returns the traffic between the peers by protocol",
        &[(
            200,
            Answer::Body("The traffic.", Content::Json(schema!(BandwidthByProtocol))),
        )],
    ),
    get(
        "/monitor/metrics",
        "Lists the names of the metrics of peers",
        &[(
            200,
            Answer::Body("The names.", Content::Json(schema!(Vec<String>))),
        )],
    ),
    get(
        "/monitor/metrics/{name}",
        "Lists the samples of a metric",
        &[(
            200,
            Answer::Body("The samples.", Content::Json(schema!(Vec<Metric>))),
        )],
    ),
    get(
        "/metrics",
        "Returns the metrics of the peer for Prometheus",
        &[(200, Answer::Body("The metrics.", Content::Other("text/plain")))],
    ),
    get(
        "/metrics/history",
        "Returns the rate and latency of changes in the last hour",
        &[(200, Answer::Body("The samples.", Content::Json(schema!(History))))],
    ),
    post(
        "/add",
        "Uploads content and pins it",
        &[(
            200,
            Answer::Body("A line for each file.", Content::Lines(schema!(AddedOutput))),
        )],
    )
    .with(&[ADD, PIN])
    .reads(Content::Form)
    .says("With `stream-channels=false` the answer is one array."),
    post(
        "/ipfs/gc",
        "Collects garbage at the IPFS nodes",
        &[(
            200,
            Answer::Body("What was removed, by peer.", Content::Json(schema!(GlobalRepoGc))),
        )],
    )
    .with(&[LOCAL]),
    get(
        "/ipfs/scrub",
        "Returns the state of the scrubs: what was re-read, what was damaged, what is not mended",
        &[(
            200,
            Answer::Body("The state of each peer.", Content::Json(schema!(GlobalScrub))),
        )],
    )
    .with(&[LOCAL, SCRUBBERS]),
    post(
        "/ipfs/scrub",
        "Starts, pauses, resumes or slows the scrubs",
        &[(
            200,
            Answer::Body("The state of each peer.", Content::Json(schema!(GlobalScrub))),
        )],
    )
    .with(&[SCRUB, LOCAL, SCRUBBERS]),
    get(
        "/allocations",
        "Lists and searches pins",
        &[
            (200, Answer::Body("The pins.", Content::Lines(schema!(Pin)))),
            (204, NO_PINS),
        ],
    )
    .with(&[SEARCH, UNDER_REPLICATED, CONSISTENT]),
    post(
        "/allocations",
        "Imports pins unchanged",
        &[(204, Answer::Empty("All are committed."))],
    )
    .reads(Content::Lines(schema!(Pin)))
    .says("Up to 4096 pins, as `GET /allocations?whole=true` lists them."),
    get("/allocations/{hash}", "Returns a pin", PIN_SHOWN).with(&[CONSISTENT]),
    get(
        "/pinlist",
        "Lists all pins as one array, as Go ipfs-cluster 0.0.12 does",
        &[(
            200,
            Answer::Body("The pins.", Content::Json(schema!(Vec<OldPin>))),
        )],
    )
    .with(&[CONSISTENT]),
    get("/pins", "Lists the statuses of all pins", STATUSES).with(&[
        STATUS,
        UNDER_REPLICATED,
        LOCAL,
        CONSISTENT,
    ]),
    post("/pins/recover", "Retries all that failed", STATUSES).with(&[LOCAL]),
    get("/pins/recover", "Refused: `recover` is no CID", NEVER),
    delete("/pins/recover", "Refused: `recover` is no CID", NEVER),
    post("/pins/sync", "Compares all pins with the IPFS nodes", STATUSES).with(&[LOCAL]),
    get("/pins/sync", "Refused: `sync` is no CID", NEVER),
    delete("/pins/sync", "Refused: `sync` is no CID", NEVER),
    get("/pins/{hash}", "Returns the status of a CID", STATUS_OF_ONE).with(&[LOCAL, CONSISTENT]),
    post("/pins/{hash}", "Pins a CID, or changes its pin", PIN_ADDED).with(&[PIN]),
    delete("/pins/{hash}", "Unpins a CID", PIN_SHOWN),
    post("/pins/{hash}/recover", "Retries a CID that failed", STATUS_OF_ONE).with(&[LOCAL]),
    post(
        "/pins/{hash}/sync",
        "Compares a CID with the IPFS nodes",
        STATUS_OF_ONE,
    )
    .with(&[LOCAL]),
    post("/pins/ipfs/{*path}", "Pins what a path names", PIN_ADDED)
        .with(&[PIN])
        .says(OF_A_NAME),
    delete("/pins/ipfs/{*path}", "Unpins what a path names", PIN_SHOWN).says(OF_A_NAME),
    post(
        "/pins/ipns/{*path}",
        "Pins what an IPNS name stands for",
        PIN_ADDED,
    )
    .with(&[PIN])
    .says(OF_A_NAME),
    delete(
        "/pins/ipns/{*path}",
        "Unpins what an IPNS name stands for",
        PIN_SHOWN,
    )
    .says(OF_A_NAME),
    post(
        "/pins/ipld/{*path}",
        "Pins what a path through IPLD data names",
        PIN_ADDED,
    )
    .with(&[PIN])
    .says(OF_A_NAME),
    delete(
        "/pins/ipld/{*path}",
        "Unpins what a path through IPLD data names",
        PIN_SHOWN,
    )
    .says(OF_A_NAME),
    post(
        "/token",
        "Issues a JWT to a configured user",
        &[(200, Answer::Body("The token.", Content::Json(schema!(Token))))],
    ),
];
