//! Types of the cluster's REST API, and a client for it.
//!
//! The types encode to the same bytes as those of ipfs-cluster v1.1.6: the same field order, `null` where
//! Go writes a nil slice or map, Go's zero time, Go's HTML escaping (through [`cluster_http::json`]). CIDs,
//! peer ids and multiaddresses are plain strings here; the daemon validates them.
//!
//! Decoding is lenient the way Go's is: missing fields and `null` take the default, unknown fields are
//! ignored.
//!
//! `examples/pin_and_wait.rs` pins a CID and waits until it is pinned:
//!
//! ```ignore
#![doc = include_str!("../examples/pin_and_wait.rs")]
//! ```

mod add;
pub mod client;
mod credential;
mod drain;
mod error;
mod event;
mod gc;
mod graph;
mod monitor;
mod nullable;
mod peer;
mod pin;
mod pin_options;
mod pin_status;
mod problem;
pub mod query;
mod rebalance;
mod scrub;
mod status;
pub mod terminal;
pub mod time;

pub use add::{AddFormat, AddLayout, AddParams, AddedOutput, DEFAULT_SHARD_SIZE};
pub use client::{Client, ClientError};
pub use cluster_http::GoDuration;
pub use credential::{Caller, Credential, CredentialAdd, CredentialCreated, CredentialUsage};
pub use drain::Drain;
pub use error::{Error, Token};
pub use event::Event;
pub use gc::{GlobalRepoGc, IpfsRepoGc, IpfsRepoStat, RepoGc};
pub use graph::ConnectGraph;
pub use monitor::{Alert, Bandwidth, BandwidthByProtocol, Metric};
pub use peer::{Id, IpfsId, PeerAdd, Version};
pub use pin::{CreatedPin, ImportedPin, OldPin, Pin, PinPath, PinType, PinTypeFilter};
pub use pin_options::{PinMode, PinOptions};
pub use pin_status::{GlobalPinInfo, IpfsPinInfo, PinInfo, PinInfoShort, Transfer};
pub use problem::{HealthSummary, Problem};
pub use query::{Query, QueryError};
pub use rebalance::{PeerBalance, Rebalance};
pub use scrub::{GlobalScrub, Scrub, ScrubCycle};
pub use status::{StatusFilter, TrackerStatus};
pub use time::Time;
