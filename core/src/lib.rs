//! The protocol of an ipfs-cluster peer as a pure state machine: no clock, no I/O, no async, no threads, no
//! global randomness. The shells around it bind it to disks, networks and IPFS nodes; the simulator binds it
//! to models of those. Five sentences define the contract:
//!
//! 1. **The past is an event, the future is an effect.** Nothing else crosses the line. [`Event`]s are named
//!    in the past tense, [`Effect`]s in the imperative; both are plain, comparable, printable, serialisable
//!    data.
//! 2. **Every returned effect may be started at once.** If B must follow A, the core does not return B until
//!    A's event has arrived: a vote or an acknowledgement is held inside the core until its batch is durable.
//! 3. **What starts with an id ends with that id**, exactly once, or the process died: [`Ticket`], [`OpId`],
//!    [`ProposalId`], [`SnapshotId`]. One [`Event::Persisted`] reports a [`BatchId`] and all earlier batches;
//!    batches without [`Batch::sync`] need none.
//! 4. **Same config, same recovered state, same seed, same events: same effects**, byte for byte. Time
//!    enters as [`Now`], randomness through the seed.
//! 5. **Bulk data never enters the core.** Listings, snapshots, blocks and uploads are streamed by the
//!    shells.
//!
//! The one thing that is neither event nor effect is the [`PinsetView`]: the applied pinset, passed in like
//! time, so that tens of millions of pins need not fit in memory. Its writes leave as [`Effect::Persist`].
//!
//! # A loop that runs
//!
//! A shell waits for an event, calls [`Node::handle`] and carries out the effects. `examples/single_node.rs`
//! does so with an in-memory store ([`PinsetView`]) and without network or IPFS node:
//!
//! ```ignore
#![doc = include_str!("../examples/single_node.rs")]
//! ```

mod allocator;
pub mod announce;
mod balance;
mod codec;
mod command;
mod config;
mod credential;
mod decide;
mod draft;
mod drain;
mod drainer;
mod effect;
mod event;
mod failover;
mod ids;
mod limits;
mod local;
mod members;
mod membership;
mod metric;
mod monitor;
mod node;
mod owners;
mod pending;
mod pin;
mod pinset;
mod planted;
mod policy;
mod raft;
mod rebalance;
mod rebalancer;
mod records;
mod requests;
mod rescue;
mod rng;
mod scrubber;
mod snapshot;
#[cfg(test)]
mod testing;
mod time;
mod tracker;
mod view;
mod window;
mod wire;

pub use balance::{Balance, PeerBalance};
pub use codec::{
    DecodeError, FIRST_VERSION, POLICY_VERSION, READABLE_VERSION, VERSION, decode, decode_up_to, encode,
    encode_for_version,
};
pub use command::{Command, Outcome, Precondition, Proposal};
pub use config::{
    Config, FailoverConfig, MembershipConfig, MonitorConfig, RaftConfig, RequestsConfig, TrackerConfig,
};
pub use credential::{
    CREDENTIAL_LIMITS_MAX, CREDENTIAL_NAME_MAX, CREDENTIALS_MAX, Credential, CredentialError, CredentialId,
    CredentialLimit, ParseCredentialIdError, Scope,
};
pub use drain::{DRAINS_MAX, Drain, DrainError, MOVES_MAX};
pub use drainer::Blocked;
pub use effect::{Batch, Effect, IpfsAction, Refusal, Reply, StoreOp};
pub use event::{Event, IpfsError, Missing, Request};
pub use ids::{
    BatchId, Cid, ClusterId, Incarnation, Index, OpId, ParseIdError, PeerId, ProposalId, RaftId, ReadId,
    SnapshotId, Term, Ticket,
};
pub use limits::{
    ALLOCATIONS_MAX, LimitsConfig, METADATA_KEYS_MAX, METADATA_MAX, NAME_MAX, ORIGIN_MAX, ORIGINS_MAX,
    PIN_MAX, TooLarge, USER_ALLOCATIONS_MAX,
};
pub use local::{Lane, Local, Phase, QueueKey};
pub use members::{Member, Members, MembersChange, MembersStep, MembersWish};
pub use membership::Membership;
pub use metric::{CAPACITY, COPIES, Metric, PING, copies_value};
pub use monitor::{Alert, Received};
pub use node::{Counters, Node, Timer, View};
pub use owners::{OWNERS_MAX, bytes_key, is_reserved_key, owner_key, owners_in, without_owners};
pub use pin::{Mode, Pin, PinOptions, PinType, Replicas};
#[cfg(planted_bugs)]
pub use planted::{Bug, announce_news, plant, shrink};
pub use policy::Policy;
pub use rebalance::{NotRebalancing, Rebalance, RebalanceChange, RebalanceRun, RebalanceSettings};
pub use rebalancer::RebalanceProgress;
pub use records::{HardState, Identity, LogEntry, Payload, Recovered};
pub use rescue::{Rescue, RescueError};
pub use scrubber::{
    SCRUB_SHARE_MAX, ScrubChange, ScrubConfig, ScrubCounts, ScrubCycle, ScrubRecord, ScrubStep, Scrubber,
};
pub use snapshot::{Applied, Manifest};
pub use time::{Instant, Now, Timestamp};
pub use view::PinsetView;
pub use window::Window;
pub use wire::{COPIES_MAX, CopyOf, Envelope, Message, RaftKind, RaftMessage};
