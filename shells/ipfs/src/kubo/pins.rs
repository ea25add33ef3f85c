//! Pinning, unpinning and listing pins.

use crate::Cid;
use futures::Stream;
use futures::future::join_all;
use futures::stream;
use serde::Deserialize;

use super::lines::Lines;
use super::query::Query;
use super::transport::Limit;
use super::{Client, parse_cid};
use crate::backend::{Cause, Error, PinRequest, PinState};
use crate::{PinMode, Progress};

/// Origins dialled for one pin; more would flood the node with dials for a single CID.
const ORIGINS_MAX: usize = 10;

/// Maximum length of a pin's name, in bytes; Kubo refuses longer ones.
const NAME_MAX: usize = 255;

/// Returns whether the error text says that nothing was pinned: first Kubo's text, then js-ipfs's.
fn is_not_pinned_error(message: &str) -> bool {
    message == "not pinned or pinned indirectly" || message.ends_with(" is not pinned")
}

#[derive(Deserialize)]
struct AddLine {
    #[serde(rename = "Pins", default)]
    pins: Option<Vec<String>>,
    #[serde(rename = "Progress", default)]
    progress: u64,
    #[serde(rename = "Bytes", default)]
    bytes: u64,
}

#[derive(Deserialize)]
struct LsLine {
    #[serde(rename = "Cid", default)]
    cid: String,
    #[serde(rename = "Type", default)]
    kind: String,
}

#[derive(Deserialize)]
struct Ignored {}

impl Client {
    /// Pins `pin.cid`, calling `progress` whenever the node gets further.
    ///
    /// Returns once the node holds everything. Dropping the future cancels the pin.
    ///
    /// # Errors
    /// [`Cause::TimedOut`] if the node makes no progress for `pin_timeout`; other causes if it cannot be
    /// reached, refuses, or does not confirm the pin.
    pub async fn pin(
        &self,
        pin: &PinRequest,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), Error> {
        if self.is_complete(&pin.cid, pin.mode).await? {
            return Ok(());
        }
        let connect = async {
            join_all(
                pin.origins
                    .iter()
                    .take(ORIGINS_MAX)
                    .map(|origin| self.connect(origin)),
            )
            .await;
            std::future::pending::<std::convert::Infallible>().await
        };
        let add = async {
            if self.pin_update(pin).await? {
                return Ok(());
            }
            self.pin_add(pin, progress).await
        };
        // Origins are hints: they are dialled concurrently, and dialling ends with the pin.
        tokio::select! {
            done = add => done,
            never = connect => match never {},
        }
    }

    /// Tries to pin by difference to `update_from`; returns whether the pin was made.
    async fn pin_update(&self, pin: &PinRequest) -> Result<bool, Error> {
        let Some(from) = pin.update_from.filter(|_| pin.mode == PinMode::Recursive) else {
            return Ok(false);
        };
        if self.pin_state_as(&from, PinMode::Recursive).await? != PinState::Pinned(PinMode::Recursive) {
            return Ok(false);
        }
        let query = Query::new()
            .with("arg", from.to_string())
            .with("arg", pin.cid.to_string())
            .with("unpin", "false");
        let updated = self
            .transport
            .object("pin/update", query.as_str(), self.config.pin_timeout)
            .await;
        match updated {
            Ok(Ignored {}) => Ok(true),
            // Updating shows no progress, so a large difference looks like a stuck one. `pin/add` continues
            // with the blocks that have arrived, and its progress is watched.
            Err(error) if matches!(error.cause(), Cause::TimedOut | Cause::Refused) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn pin_add(
        &self,
        pin: &PinRequest,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), Error> {
        let recursive = match pin.mode {
            PinMode::Recursive => "true",
            PinMode::Direct => "false",
        };
        let mut query = Query::new()
            .with("arg", pin.cid.to_string())
            .with("recursive", recursive)
            .with("progress", "true");
        if !pin.name.is_empty() {
            query = query.with("name", &pin.name[..pin.name.floor_char_boundary(NAME_MAX)]);
        }
        let limit = Limit::Idle(self.config.pin_timeout);
        let mut lines = self.transport.lines("pin/add", query.as_str(), limit).await?;
        let mut best = Progress::default();
        let mut pinned = false;
        while let Some(line) = lines.next::<AddLine>().await? {
            pinned |= line.pins.is_some();
            // Kubo repeats the line every half second while it waits: only growth is progress.
            if line.progress > best.blocks || line.bytes > best.bytes {
                best = Progress {
                    blocks: line.progress.max(best.blocks),
                    bytes: line.bytes.max(best.bytes),
                    // Kubo does not say.
                    total: 0,
                };
                lines.progressed();
                progress(best);
            }
        }
        if pinned {
            return Ok(());
        }
        let message = "the stream ended before the node confirmed the pin";
        Err(Error::new(Cause::BadAnswer, "pin/add", message))
    }

    /// Removes the pin of `cid`, recursive or direct. Succeeds if there is no pin.
    ///
    /// # Errors
    /// [`Cause::Refused`] with `unpin_disable`; otherwise the node cannot be reached, refuses, or exceeds
    /// `unpin_timeout`.
    pub async fn unpin(&self, cid: &Cid) -> Result<(), Error> {
        if self.config.unpin_disable {
            let message = "ipfs unpinning is disallowed by configuration on this peer";
            return Err(Error::new(Cause::Refused, "pin/rm", message));
        }
        let query = Query::new().with("arg", cid.to_string());
        let removed = self
            .transport
            .object("pin/rm", query.as_str(), self.config.unpin_timeout)
            .await;
        match removed {
            Ok(Ignored {}) => Ok(()),
            Err(error) if is_not_pinned_error(error.message()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Returns how `cid` is pinned.
    ///
    /// # Errors
    /// The node cannot be reached, does not answer within `request_timeout`, or its answer is invalid.
    pub async fn pin_state(&self, cid: &Cid) -> Result<PinState, Error> {
        // "all" would make Kubo walk every DAG for a CID that is not pinned.
        for mode in [PinMode::Recursive, PinMode::Direct] {
            match self.pin_state_as(cid, mode).await? {
                PinState::Unpinned => {}
                state @ (PinState::Pinned(_) | PinState::Indirect) => return Ok(state),
            }
        }
        Ok(PinState::Unpinned)
    }

    async fn pin_state_as(&self, cid: &Cid, mode: PinMode) -> Result<PinState, Error> {
        self.pin_state_by(Self::state_query(cid, mode)).await
    }

    /// Returns whether the node holds all blocks of a pin. A Kubo daemon does if it lists the pin. The proxy
    /// of another cluster also lists pins in progress, and is asked with a parameter that Kubo ignores to
    /// omit them.
    async fn is_complete(&self, cid: &Cid, mode: PinMode) -> Result<bool, Error> {
        let query = Self::state_query(cid, mode).with("cluster-held", "true");
        Ok(self.pin_state_by(query).await? == PinState::Pinned(mode))
    }

    fn state_query(cid: &Cid, mode: PinMode) -> Query {
        Query::new()
            .with("stream", "true")
            .with("arg", cid.to_string())
            .with("type", mode.as_str())
    }

    async fn pin_state_by(&self, query: Query) -> Result<PinState, Error> {
        let limit = Limit::Total(self.config.request_timeout);
        let first = async {
            let mut lines = self.transport.lines("pin/ls", query.as_str(), limit).await?;
            lines.next::<LsLine>().await
        };
        match first.await {
            Ok(None) => Ok(PinState::Unpinned),
            Ok(Some(line)) => parse_state(&line.kind),
            Err(error) if error.cause() == Cause::Refused && error.message().ends_with("not pinned") => {
                Ok(PinState::Unpinned)
            }
            Err(error) => Err(error),
        }
    }

    /// Streams every recursive pin, then every direct one, in the node's order.
    ///
    /// # Errors
    /// An item is an error when the listing breaks off; it is the last item.
    pub fn pins(&self) -> impl Stream<Item = Result<(Cid, PinMode), Error>> + Send + 'static {
        stream::try_unfold(self.listing(), |mut listing| async move {
            Ok(listing.next().await?.map(|pin| (pin, listing)))
        })
    }

    /// Returns a listing of every recursive pin, then every direct one.
    pub(super) fn listing(&self) -> Listing {
        Listing {
            client: self.clone(),
            left: vec![PinMode::Direct, PinMode::Recursive],
            open: None,
        }
    }
}

/// Two consecutive listings: Kubo lists one type of pin, or all types including every indirect block.
#[derive(Debug)]
pub(super) struct Listing {
    client: Client,
    left: Vec<PinMode>,
    open: Option<(PinMode, Lines)>,
}

impl Listing {
    /// Returns the next pin.
    pub(super) async fn next(&mut self) -> Result<Option<(Cid, PinMode)>, Error> {
        loop {
            if let Some((mode, lines)) = &mut self.open
                && let Some(line) = lines.next::<LsLine>().await?
            {
                lines.progressed();
                return parse_pin(*mode, &line).map(Some);
            }
            let Some(mode) = self.left.pop() else {
                return Ok(None);
            };
            let query = Query::new().with("stream", "true").with("type", mode.as_str());
            let limit = Limit::Idle(self.client.config.request_timeout);
            let lines = self
                .client
                .transport
                .lines("pin/ls", query.as_str(), limit)
                .await?;
            self.open = Some((mode, lines));
        }
    }
}

fn parse_pin(mode: PinMode, line: &LsLine) -> Result<(Cid, PinMode), Error> {
    if parse_state(&line.kind)? == PinState::Pinned(mode) {
        return Ok((parse_cid("pin/ls", &line.cid)?, mode));
    }
    let message = format!(
        "a list of {} pins holds one of type {:?}",
        mode.as_str(),
        line.kind
    );
    Err(Error::new(Cause::BadAnswer, "pin/ls", message))
}

fn parse_state(kind: &str) -> Result<PinState, Error> {
    if kind.starts_with("indirect") {
        return Ok(PinState::Indirect);
    }
    if kind.starts_with("recursive") {
        return Ok(PinState::Pinned(PinMode::Recursive));
    }
    if kind == "direct" {
        return Ok(PinState::Pinned(PinMode::Direct));
    }
    Err(Error::new(
        Cause::BadAnswer,
        "pin/ls",
        format!("unknown type of pin {kind:?}"),
    ))
}
