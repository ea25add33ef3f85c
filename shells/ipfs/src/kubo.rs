//! Client of the RPC API of a Kubo daemon, limited to the requests that a cluster peer makes.
//!
//! Answers are read up to their trailers, so that a listing that breaks off is an error rather than a short
//! listing. Listings stream. While the daemon does not answer, requests are throttled to one a second.

mod block_upload;
mod blocks;
mod config;
mod connector;
mod forward;
mod lines;
mod pins;
mod query;
mod repo;
mod scrub;
mod throttle;
mod traceparent;
mod transport;

use std::sync::Arc;

use crate::Cid;
use tokio::sync::OnceCell;

pub use self::config::{BadAddress, Config, parse_node_address};
pub use self::forward::{Forward, ForwardBody};
pub use self::scrub::Scrub;
use self::transport::Transport;
use crate::backend::{Cause, Error};

/// Client of one Kubo daemon. Cheap to clone; clones share connections and the throttle.
#[derive(Debug, Clone)]
pub struct Client {
    transport: Arc<Transport>,
    config: Arc<Config>,
    /// Whether `block/put` accepts many blocks in one request, once known.
    many_blocks: Arc<OnceCell<bool>>,
    /// Damage that the last scrub found and could not mend.
    findings: Arc<scrub::Findings>,
}

impl Client {
    /// Creates a client of the daemon at `config.node_multiaddress`. Connects with the first request.
    ///
    /// # Errors
    /// [`BadAddress`] if the client does not support that kind of address.
    pub fn new(config: Config) -> Result<Self, BadAddress> {
        let transport = Arc::new(Transport::new(&config.node_multiaddress)?);
        Ok(Client {
            transport,
            config: Arc::new(config),
            many_blocks: Arc::default(),
            findings: Arc::default(),
        })
    }

    /// Returns the settings of this client.
    pub fn config(&self) -> &Config {
        &self.config
    }
}

fn parse_cid(command: &str, text: &str) -> Result<Cid, Error> {
    Cid::try_from(text).map_err(|error| {
        let text: String = text.chars().take(100).collect();
        Error::new(
            Cause::BadAnswer,
            command,
            format!("not a CID: {text:?} ({error})"),
        )
    })
}
