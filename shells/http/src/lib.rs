//! The dialects of HTTP that Go's and Kubo's clients speak, shared by every HTTP API of a peer and by its
//! clients: the REST API, the IPFS proxy, the embedded node's API, `ipfs-cluster-ctl`.
//!
//! - Text formats of Go: [`GoDuration`], [`json`], [`query`].
//! - Requests: [`multipart`] uploads, [`LimitedBody`] (limits on bodies), [`web_origin`] (requests
//!   made by web pages).
//! - Answers: [`rpc`] (Kubo's `/api/v0`), [`stream_error`] (failures of a streamed answer).
//! - Connections: [`Listener`], [`AllowTrailers`], [`WriteStall`].
//!
//! It knows nothing of pins, CIDs or clusters.

mod allow_trailers;
mod duration;
pub mod json;
mod listener;
pub mod multipart;
pub mod query;
mod request_body;
pub mod rpc;
pub mod stream_error;
pub mod web_origin;
mod write_stall;

pub use allow_trailers::AllowTrailers;
pub use duration::{GoDuration, ParseDurationError};
pub use listener::{Accepted, ListenAddress, Listener, Stream};
pub use request_body::{LimitedBody, SilenceFlag, Silent};
pub use write_stall::WriteStall;
