//! Scrub of either kind of node.

use super::{Backend, Error};
use crate::{Cid, Scrubbed, Unmended, kubo};

/// A scrub of a peer's IPFS node, one piece after the other.
#[derive(Debug)]
pub enum Scrub {
    /// Of a Kubo daemon.
    Kubo(kubo::Scrub),
    /// Of the node inside this process.
    Embedded(crate::Scrub),
}

impl Backend {
    /// Returns a scrub of this node.
    pub fn scrub(&self) -> Scrub {
        match self {
            Backend::Kubo(client) => Scrub::Kubo(client.scrub()),
            Backend::Embedded(node) => Scrub::Embedded(node.scrub()),
        }
    }

    /// Returns whether blocks of this pin are known to be damaged or missing. Kubo's are unpinned then.
    pub fn is_broken(&self, cid: &[u8]) -> bool {
        match self {
            Backend::Kubo(_) => false,
            Backend::Embedded(node) => Cid::try_from(cid).is_ok_and(|cid| node.is_broken(&cid)),
        }
    }

    /// Returns what was found damaged or missing and is not mended yet.
    pub fn unmended(&self) -> Unmended {
        match self {
            Backend::Kubo(client) => client.unmended(),
            Backend::Embedded(node) => node.unmended(),
        }
    }
}

impl Scrub {
    /// Checks the piece after a position; an empty one is the beginning.
    ///
    /// # Errors
    /// The node cannot be reached, or cannot read its disk.
    pub async fn check(&mut self, position: &str) -> Result<Scrubbed, Error> {
        match self {
            Scrub::Kubo(scrub) => scrub.check(position).await,
            Scrub::Embedded(scrub) => {
                let checked = scrub.check(position).await;
                checked.map_err(|error| Error::embedded("repo/verify", error))
            }
        }
    }
}
