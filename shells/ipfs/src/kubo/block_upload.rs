//! Multipart body of `block/put`, made from a stream of blocks.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, Stream, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::time::{Instant, sleep_until};

use super::transport::Body;
use crate::Block;
use crate::backend::{Cause, Error, Stored};

/// CID properties that all blocks of one request share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix {
    /// Length of the digest, in bytes.
    pub(super) hash_len: u8,
    hash_code: u64,
    codec: u64,
}

impl Prefix {
    fn of(block: &Block) -> Self {
        let hash = block.cid.hash();
        Prefix {
            hash_len: hash.size(),
            hash_code: hash.code(),
            codec: block.cid.codec(),
        }
    }

    /// Returns the codec's name in the multicodec table.
    pub(super) fn codec_name(self) -> Result<&'static str, Error> {
        const NAMES: [(u64, &str); 7] = [
            (0x55, "raw"),
            (0x70, "dag-pb"),
            (0x71, "dag-cbor"),
            (0x72, "libp2p-key"),
            (0x0129, "dag-json"),
            (0x51, "cbor"),
            (0x0200, "json"),
        ];
        name_of(&NAMES, self.codec).ok_or_else(|| refuse(format!("unknown codec 0x{:x}", self.codec)))
    }

    /// Returns the hash function's name in the multicodec table.
    pub(super) fn hash_name(self) -> Result<&'static str, Error> {
        const NAMES: [(u64, &str); 9] = [
            (0x12, "sha2-256"),
            (0x13, "sha2-512"),
            (0x11, "sha1"),
            (0x00, "identity"),
            (0x16, "sha3-256"),
            (0x14, "sha3-512"),
            (0x1b, "keccak-256"),
            (0xb220, "blake2b-256"),
            (0x1e, "blake3"),
        ];
        let name = name_of(&NAMES, self.hash_code);
        name.ok_or_else(|| refuse(format!("unknown hash function 0x{:x}", self.hash_code)))
    }
}

fn name_of(names: &[(u64, &'static str)], code: u64) -> Option<&'static str> {
    names
        .iter()
        .find(|(known, _)| *known == code)
        .map(|(_, name)| *name)
}

fn refuse(message: String) -> Error {
    Error::new(Cause::Refused, "block/put", message)
}

/// Fingerprint of a multiset of multihashes, independent of order, in constant memory.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    keyed: RandomState,
    count: u64,
    sum: u64,
}

impl Tally {
    pub(super) fn add(&mut self, hash: &crate::Multihash) {
        let mut hasher = self.keyed.build_hasher();
        hasher.write_u64(hash.code());
        hasher.write(hash.digest());
        self.sum = self.sum.wrapping_add(hasher.finish());
        self.count += 1;
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

impl PartialEq for Tally {
    fn eq(&self, other: &Self) -> bool {
        (self.count, self.sum) == (other.count, other.sum)
    }
}

struct State {
    source: BoxStream<'static, Result<Block, Error>>,
    /// Block with another prefix than the last request, or the first of the next.
    next_block: Option<Block>,
    /// Pieces of the body to send next.
    ready: VecDeque<Bytes>,
    closed: bool,
    /// True if a request may carry more than one block.
    many: bool,
    error: Option<Error>,
    sent: Tally,
    stored: Stored,
    /// Time when the connection last accepted data, or began to wait for the source; `None` while the source
    /// is awaited.
    last_progress: Option<Instant>,
}

/// The source of blocks, shared by the consecutive requests that carry it.
#[derive(Clone)]
pub(super) struct Feed {
    state: Arc<Mutex<State>>,
    keyed: RandomState,
}

impl Feed {
    /// Creates a feed; with `many`, a request carries all consecutive blocks with one prefix, else a single
    /// block.
    pub(super) fn new(source: impl Stream<Item = Result<Block, Error>> + Send + 'static, many: bool) -> Self {
        let keyed = RandomState::new();
        let state = State {
            // Fused: it is polled again after its end, when a request is complete.
            source: source.fuse().boxed(),
            next_block: None,
            ready: VecDeque::new(),
            closed: false,
            many,
            error: None,
            sent: Tally {
                keyed: keyed.clone(),
                count: 0,
                sum: 0,
            },
            stored: Stored::default(),
            last_progress: None,
        };
        Feed {
            state: Arc::new(Mutex::new(state)),
            keyed,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, so the state of a poisoned lock is sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns an empty tally with the same random state, for comparison with what was sent.
    pub(super) fn tally(&self) -> Tally {
        Tally {
            keyed: self.keyed.clone(),
            count: 0,
            sum: 0,
        }
    }

    /// Returns the prefix of the next block; `None` at the end of the source.
    pub(super) async fn next_prefix(&self) -> Result<Option<Prefix>, Error> {
        futures::future::poll_fn(|cx| {
            let mut state = self.lock();
            if state.next_block.is_none() {
                match futures::ready!(state.source.poll_next_unpin(cx)) {
                    None => return Poll::Ready(Ok(None)),
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    Some(Ok(block)) => state.next_block = Some(block),
                }
            }
            Poll::Ready(Ok(state.next_block.as_ref().map(Prefix::of)))
        })
        .await
    }

    /// Returns the body of one request: all blocks up to the first with another prefix, or a single one.
    pub(super) fn body(&self, prefix: Prefix, boundary: &str) -> Body {
        let mut state = self.lock();
        state.closed = false;
        state.ready.clear();
        state.last_progress = Some(Instant::now());
        drop(state);
        let parts = Parts {
            feed: self.clone(),
            prefix,
            boundary: boundary.to_owned(),
        };
        StreamBody::new(parts).boxed_unsync()
    }

    /// Takes the error of the source that cut the last body short.
    pub(super) fn take_error(&self) -> Option<Error> {
        self.lock().error.take()
    }

    /// Returns tally and size of the last request, and resets them.
    pub(super) fn finish_run(&self) -> (Tally, Stored) {
        let mut state = self.lock();
        let stored = std::mem::take(&mut state.stored);
        (std::mem::replace(&mut state.sent, self.tally()), stored)
    }

    /// Returns an error once the node has accepted nothing for `limit` although a block was ready.
    pub(super) async fn wait_for_stall(&self, limit: Duration) -> Error {
        loop {
            let now = Instant::now();
            let since = self.lock().last_progress.unwrap_or(now);
            let deadline = since + limit;
            if deadline <= now {
                let message = format!("the node took no block for {limit:?}");
                return Error::new(Cause::TimedOut, "block/put", message);
            }
            sleep_until(deadline).await;
        }
    }
}

struct Parts {
    feed: Feed,
    prefix: Prefix,
    boundary: String,
}

impl Parts {
    /// Queues one part: its head, its data without a copy, its end.
    fn queue(&self, state: &mut State, block: Block) {
        let head = format!(
            "--{}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n",
            self.boundary, block.cid
        );
        state.sent.add(block.cid.hash());
        state.stored.blocks += 1;
        state.stored.bytes += block.data.len() as u64;
        state.ready.push_back(head.into());
        state.ready.push_back(block.data);
        state.ready.push_back(Bytes::from_static(b"\r\n"));
    }

    fn close(&self, state: &mut State) {
        state.closed = true;
        state.ready.push_back(format!("--{}--\r\n", self.boundary).into());
    }
}

impl Stream for Parts {
    type Item = Result<Frame<Bytes>, std::io::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.feed.lock();
        loop {
            if let Some(piece) = state.ready.pop_front() {
                state.last_progress = Some(Instant::now());
                if piece.is_empty() {
                    continue;
                }
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if state.closed {
                return Poll::Ready(None);
            }
            if !state.many && state.sent.count() > 0 {
                self.close(&mut state);
                continue;
            }
            let next = match state.next_block.take() {
                Some(block) => Some(Ok(block)),
                None => match state.source.poll_next_unpin(cx) {
                    Poll::Ready(next) => next,
                    Poll::Pending => {
                        // From now on the node waits for the source.
                        state.last_progress = None;
                        return Poll::Pending;
                    }
                },
            };
            match next {
                Some(Ok(block)) if Prefix::of(&block) == self.prefix => self.queue(&mut state, block),
                Some(Ok(block)) => {
                    state.next_block = Some(block);
                    self.close(&mut state);
                }
                None => self.close(&mut state),
                Some(Err(error)) => {
                    let broken = std::io::Error::other(error.to_string());
                    state.error = Some(error);
                    state.closed = true;
                    return Poll::Ready(Some(Err(broken)));
                }
            }
        }
    }
}

/// Returns a random boundary, fresh for each request, so that no block can contain it.
pub(super) fn boundary() -> String {
    let half = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", half(), half())
}
