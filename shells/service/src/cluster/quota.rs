//! Limits of credentials with the scope `own` on the pins that they hold, and on the bytes of their uploads.
//!
//! The number of an owner's pins comes from the index, as far as this peer has applied it. Requests of one
//! credential at one peer take turns between the check and the commit, so that they keep the limit together;
//! requests at other peers at the same moment may exceed it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin as Pinned;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};

use cluster_core::{CREDENTIALS_MAX, Cid, Credential, CredentialId, CredentialLimit, bytes_key};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::search::{Order, Search};
use super::{Cluster, Error};

/// Most pins of a credential with a limit of bytes: their sizes are added up for each upload, which takes a
/// second for so many.
pub(super) const BYTES_PINS_MAX: u64 = 100_000;

/// Pins whose sizes are read at once.
const PAGE: usize = 512;

/// Turns of the credentials that have limits.
#[derive(Debug, Default)]
pub(super) struct Turns {
    locks: std::sync::Mutex<BTreeMap<CredentialId, Arc<Mutex<()>>>>,
}

impl Turns {
    fn of(&self, id: CredentialId, known: &[Credential]) -> Arc<Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if locks.len() >= CREDENTIALS_MAX {
            // Those of revoked credentials.
            let ids: BTreeSet<CredentialId> = known.iter().map(|credential| credential.id).collect();
            locks.retain(|id, _| ids.contains(id));
        }
        Arc::clone(locks.entry(id).or_default())
    }
}

/// Turn of a request that adds pins for a credential with limits; to be kept until they are committed.
#[derive(Debug)]
pub(super) struct Turn {
    _turn: Option<OwnedMutexGuard<()>>,
}

/// Bytes that an upload may still bring.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    credential: Arc<Credential>,
    limit: u64,
    left: Arc<AtomicU64>,
    is_exceeded: Arc<AtomicBool>,
}

impl Budget {
    /// Returns the error for an upload that exceeds the budget.
    pub(super) fn exceeded(&self) -> Error {
        let (name, limit) = (&self.credential.name, self.limit);
        let why = format!(
            "forbidden: the credential {name:?} is limited to {limit} bytes of uploads: unpin some of them"
        );
        Error::Limit { limit: "bytes", why }
    }

    /// Returns whether more has been read than the budget.
    pub(super) fn is_exceeded(&self) -> bool {
        self.is_exceeded.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        let take = |left: u64| left.checked_sub(bytes);
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        self.is_exceeded.fetch_or(taken.is_err(), Ordering::Relaxed);
        taken.is_ok()
    }
}

/// Content of an upload, which ends with an error where it exceeds the budget.
#[derive(Debug)]
pub(super) struct Metered<R> {
    pub(super) content: R,
    pub(super) budget: Option<Budget>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Metered<R> {
    fn poll_read(
        self: Pinned<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pinned::new(&mut this.content).poll_read(cx, buffer))?;
        let read = (buffer.filled().len() - before) as u64;
        let fits = this.budget.as_ref().is_none_or(|budget| budget.take(read));
        Poll::Ready(if fits {
            Ok(())
        } else {
            Err(io::Error::other("the limit of bytes is exceeded"))
        })
    }
}

impl Cluster {
    fn limit(&self, find: impl Fn(&CredentialLimit) -> Option<u64>) -> Option<(Arc<Credential>, u64)> {
        let credential = self.actor.as_ref()?;
        let limit = credential.limits.iter().find_map(find)?;
        Some((Arc::clone(credential), limit))
    }

    fn max_bytes(&self) -> Option<(Arc<Credential>, u64)> {
        self.limit(|limit| match limit {
            CredentialLimit::Bytes(bytes) => Some(*bytes),
            CredentialLimit::Pins(_) | CredentialLimit::RequestsPerSecond(_) => None,
        })
    }

    /// Waits for the turn to add pins, and checks that the acting owner may hold them.
    ///
    /// # Errors
    /// The owner would have more pins than its credential permits.
    pub(super) async fn turn_to_pin(&self, cids: &[&Cid]) -> Result<Turn, Error> {
        let limit = self.limit(|limit| match limit {
            CredentialLimit::Pins(pins) => Some(*pins),
            CredentialLimit::Bytes(_) | CredentialLimit::RequestsPerSecond(_) => None,
        });
        let Some((credential, limit)) = limit else {
            return Ok(Turn { _turn: None });
        };
        let policy = self.inner.reader.policy();
        let lock = self.inner.turns.of(credential.id, &policy.credentials);
        let turn = lock.lock_owned().await;
        let wanted: BTreeSet<Cid> = cids.iter().map(|cid| (*cid).clone()).collect();
        let (owner, name) = (credential.name.clone(), &credential.name);
        let new = self
            .read(move |reader| {
                let mut new = 0;
                for cid in wanted {
                    let pin = reader.pin(&cid)?;
                    new += u64::from(!pin.is_some_and(|pin| pin.is_owned_by(&owner)));
                }
                Ok(new)
            })
            .await?;
        let held = self.owned_pins(name).await?;
        if new > 0 && held.saturating_add(new) > limit {
            let why = format!(
                "forbidden: the credential {name:?} is limited to {limit} pins and has {held}: unpin some"
            );
            return Err(Error::Limit { limit: "pins", why });
        }
        Ok(Turn { _turn: Some(turn) })
    }

    /// Returns the bytes that the acting owner may still upload, besides those of `replaced`; `None` for any
    /// number.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(super) async fn budget(&self, replaced: &[Cid]) -> Result<Option<Budget>, Error> {
        let Some((credential, limit)) = self.max_bytes() else {
            return Ok(None);
        };
        let used = self.owned_bytes(&credential.name, replaced).await?;
        Ok(Some(Budget {
            credential,
            limit,
            left: Arc::new(AtomicU64::new(limit.saturating_sub(used))),
            is_exceeded: Arc::default(),
        }))
    }

    /// Returns the number of pins that an owner holds.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(super) async fn owned_pins(&self, owner: &str) -> Result<u64, Error> {
        let search = Search {
            owner: Some(owner.to_owned()),
            ..Search::default()
        };
        self.read(move |reader| reader.count(&search)).await
    }

    /// Adds up the bytes that an owner holds by uploads, apart from those of `replaced`. Reads all pins of
    /// the owner.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(super) async fn owned_bytes(&self, owner: &str, replaced: &[Cid]) -> Result<u64, Error> {
        let (owner, replaced) = (owner.to_owned(), replaced.to_vec());
        self.read(move |reader| {
            let (key, listing) = (bytes_key(&owner), reader.listing());
            let search = Search {
                owner: Some(owner),
                order: Order::Oldest,
                ..Search::default()
            };
            let (mut used, mut from) = (0_u64, None);
            loop {
                let page = listing.page(&search, from.as_ref(), PAGE)?;
                for pin in page.pins.iter().filter(|pin| !replaced.contains(&pin.cid)) {
                    let bytes = pin.options.metadata.get(&key);
                    let bytes = bytes.and_then(|bytes| bytes.parse().ok());
                    used = used.saturating_add(bytes.unwrap_or(0));
                }
                from = page.next;
                if from.is_none() {
                    return Ok(used);
                }
            }
        })
        .await
    }

    /// Checks that the acting owner may hold these uploads, of which each has a CID and a size.
    ///
    /// # Errors
    /// They exceed the limit of bytes, or the database cannot be read.
    pub(super) async fn check_bytes(&self, uploads: &[(Cid, u64)]) -> Result<(), Error> {
        let replaced: Vec<Cid> = uploads.iter().map(|(cid, _)| cid.clone()).collect();
        let Some(budget) = self.budget(&replaced).await? else {
            return Ok(());
        };
        let sizes = uploads.iter().map(|(_, size)| *size);
        let total = sizes.fold(0, u64::saturating_add);
        if budget.take(total) {
            Ok(())
        } else {
            Err(budget.exceeded())
        }
    }
}
