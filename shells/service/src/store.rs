//! Persistent storage of a peer: one fjall database with Raft's log and hard state, the pinset and its
//! indexes, the local state and the queues. Each [`Batch`](cluster_core::Batch) of the core becomes one
//! atomic fjall batch.
//!
//! Users:
//!
//! - the driver owns the [`Store`]: [`Store::open`], [`Store::recovered`], [`Store::initialise`],
//!   [`Store::write`], and [`Store::view`] to read what it has written;
//! - a [`Syncer`] makes written batches durable in its own thread, many with one sync;
//! - a [`Reader`] reads from any thread: listings in the order of CIDs, a page at a time or from a
//!   [`Listing`], a consistent view of one moment; and searches in pages of bounded work ([`Search`]);
//! - snapshots leave as a [`SnapshotSource`] and arrive through a [`Stager`].
//!
//! Every error after opening is final: the database may lack a batch that was reported as durable, so the
//! process must end ([`StoreError`]). A folder that is damaged, or written by a later release, is refused
//! at opening with advice ([`OpenError`]); nothing is ever opened in part.
//!
//! # Layout on disk
//!
//! | in the folder | |
//! |---|---|
//! | `format` | the version of all the rest, as text |
//! | `lock` | locked while a process has the folder open; holds that process's id |
//! | `synced` | the number of batches known to be durable: see `sync_marker.rs` |
//! | `db/` | the database |
//!
//! | keyspace | key → value |
//! |---|---|
//! | `log` | index, big-endian → entry, chained checksum |
//! | `meta` | `head`, `founding`, `boot`, `members`, `search`, `policy`, `window/` + Raft id → record |
//! | `pins.N` | CID → pin |
//! | `index.N` | `p` peer CID, `e` expiry CID → nothing |
//! | `search.M` | time CID, name time CID, metadata time CID: see `search_index.rs` |
//! | `local` | CID → local state |
//! | `queue` | lane, at, CID → nothing |
//!
//! `N` is the generation of the pinset. A received snapshot is written into the keyspaces of an unused
//! generation, and installed by writing its number into `head`. `M` is the number in `search`, the marker of
//! the search index in use.

mod counting;
mod error;
mod folder;
mod fresh_count;
mod journal;
mod keys;
mod open;
mod reader;
mod record;
mod reindex;
mod replace;
mod search;
mod search_index;
mod shared;
mod snapshot;
mod spaces;
mod staging;
mod sync;
mod sync_marker;
mod view;
mod write;

#[cfg(test)]
mod tests;

pub use error::{OpenError, StageError, StoreError};
pub use folder::{FORMAT, format_of};
pub use open::{OnFatal, OpenOptions, Store};
pub use reader::{Listing, Reader, Row};
pub use replace::{NewPinset, PinCounts};
pub use search::{Comparison, NameMatch, Order, Page, Search};
pub use search_index::{ParsePositionError, Position};
pub use snapshot::{CHUNK_MAX, SnapshotSource};
pub use staging::{Stager, Staging};
pub use sync::Syncer;
pub use view::StoreView;
