//! Memory that other IPFS peers make this node hold, accounted for each peer and for all together.
//!
//! Everything whose size a peer chooses is charged to its [`Account`]: bytes in the multiplexer that no
//! stream has read yet, open streams, frames of bitswap from their first byte until they are processed,
//! queued answers, and blocks that are read for it. A peer over its limits is not read from any more: TCP
//! holds it back until what was received is processed. Honest peers notice a pause. A connection that stays
//! paused is closed, and the reason logged.
//!
//! There are two limits: [`PEER_MAX`] for each peer, and [`POOL_MAX`] for all together. While the pool is
//! used up, a peer may still hold [`SHARE_MIN`], so that peers that hold much cannot shut out the others.
//! Kept peers, those of this node's cluster, are exempt from the second limit.

use crate::store::lock;
use libp2p::PeerId;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

/// Limit of one peer, in bytes: four frames of the largest size, received and not processed. A single step
/// may exceed it: one read of 64 KiB, or one message of blocks that is prepared.
pub(crate) const PEER_MAX: usize = 16 << 20;
/// Limit of all peers together, in bytes: 32 peers at their limit, or 4 MiB for each of the 128 strangers
/// that may be connected.
pub(crate) const POOL_MAX: usize = 512 << 20;
/// Bytes that a peer may hold even when the pool is used up: a message with a block of the default size of
/// 256 KiB, and the start of the next messages.
pub(crate) const SHARE_MIN: usize = 1 << 20;
/// Time after which a connection that a limit keeps from being read is closed.
pub(super) const STALL_MAX: Duration = Duration::from_secs(10);
/// Interval of log messages about one peer.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Number of peers whose log messages are rate-limited individually. Identities cost nothing: beyond this
/// number, new peers are not logged.
const LOGGED_PEERS_MAX: usize = 1024;

/// The accounts of all peers.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// Bytes held for all peers.
    held: AtomicUsize,
    accounts: Mutex<HashMap<PeerId, Weak<Account>>>,
    exempt: Mutex<HashSet<PeerId>>,
    last_logged: Mutex<HashMap<PeerId, Instant>>,
}

impl Pool {
    /// Returns the account of a peer, which all its connections share. It is dropped with its last user.
    pub(crate) fn account(self: &Arc<Self>, peer: PeerId) -> Arc<Account> {
        let mut accounts = lock(&self.accounts);
        let known = accounts.get(&peer).and_then(Weak::upgrade);
        if let Some(account) = known {
            return account;
        }
        let account = Arc::new(Account {
            peer,
            pool: self.clone(),
            exempt: AtomicBool::new(lock(&self.exempt).contains(&peer)),
            held: AtomicUsize::new(0),
            paused: Mutex::default(),
        });
        accounts.insert(peer, Arc::downgrade(&account));
        account
    }

    /// Sets whether a peer is exempt from the limit of the pool.
    pub(super) fn set_exempt(&self, peer: PeerId, exempt: bool) {
        let accounts = lock(&self.accounts);
        match exempt {
            true => lock(&self.exempt).insert(peer),
            false => lock(&self.exempt).remove(&peer),
        };
        if let Some(account) = accounts.get(&peer).and_then(Weak::upgrade) {
            account.exempt.store(exempt, Ordering::Relaxed);
            // The last user may be gone in the meantime, and dropping an account takes the lock.
            drop(accounts);
        }
    }

    /// Returns whether a message about a peer should be logged now.
    pub(super) fn should_log(&self, peer: PeerId, now: Instant) -> bool {
        let mut last_logged = lock(&self.last_logged);
        if let Some(last) = last_logged.get_mut(&peer) {
            let news = now.saturating_duration_since(*last) >= LOG_INTERVAL;
            if news {
                *last = now;
            }
            return news;
        }
        if last_logged.len() >= LOGGED_PEERS_MAX {
            last_logged.retain(|_, last| now.saturating_duration_since(*last) < LOG_INTERVAL);
        }
        let room = last_logged.len() < LOGGED_PEERS_MAX;
        if room {
            last_logged.insert(peer, now);
        }
        room
    }
}

/// Memory that one peer makes this node hold.
#[derive(Debug)]
pub(crate) struct Account {
    peer: PeerId,
    pool: Arc<Pool>,
    exempt: AtomicBool,
    held: AtomicUsize,
    /// Wakers of connections that wait for room.
    paused: Mutex<Vec<Waker>>,
}

/// Bytes charged to an account until dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    account: Arc<Account>,
    bytes: usize,
}

impl Account {
    pub(super) fn peer(&self) -> PeerId {
        self.peer
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Returns the bytes held for this peer.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Returns whether more may be read from this peer.
    pub(super) fn has_room(&self) -> bool {
        let held = self.held();
        held < PEER_MAX
            && (held < SHARE_MIN
                || self.exempt.load(Ordering::Relaxed)
                || self.pool.held.load(Ordering::Relaxed) < POOL_MAX)
    }

    /// Wakes a connection once this account has room again. The pool's limit wakes nobody: poll it.
    pub(super) fn wake_when_room(&self, waker: &Waker) {
        let mut paused = lock(&self.paused);
        if !paused.iter().any(|known| known.will_wake(waker)) {
            paused.push(waker.clone());
        }
    }

    /// Charges bytes that are held from now on.
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Charge {
        self.add(bytes);
        Charge {
            account: self.clone(),
            bytes,
        }
    }

    pub(super) fn add(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        self.pool.held.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn release(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.pool.held.fetch_sub(bytes, Ordering::Relaxed);
        let mut paused = lock(&self.paused);
        if !paused.is_empty() && self.has_room() {
            paused.drain(..).for_each(Waker::wake);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let mut accounts = lock(&self.pool.accounts);
        // A new account of this peer may be registered already.
        if accounts
            .get(&self.peer)
            .is_some_and(|known| known.strong_count() == 0)
        {
            accounts.remove(&self.peer);
        }
    }
}

impl Charge {
    /// Changes the charge to `bytes`.
    pub(crate) fn resize(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.account.add(bytes - self.bytes);
        } else {
            self.account.release(self.bytes - bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_has_room_until_its_limit_and_again_after_a_release() {
        let pool = Arc::new(Pool::default());
        let account = pool.account(PeerId::random());
        let mut charge = account.hold(PEER_MAX - 1);
        assert!(account.has_room());
        let more = pool.account(account.peer()).hold(1);
        assert!(!account.has_room(), "all connections of a peer share its account");
        charge.resize(10);
        assert!(account.has_room());
        drop((charge, more));
        assert_eq!(account.held(), 0);
        assert_eq!(pool.held.load(Ordering::Relaxed), 0);
        drop(account);
        assert!(lock(&pool.accounts).is_empty());
    }

    #[test]
    fn used_up_pool_leaves_strangers_a_share_and_kept_peers_their_limit() {
        let pool = Arc::new(Pool::default());
        let kept = pool.account(PeerId::random());
        pool.set_exempt(kept.peer(), true);
        let strangers: Vec<_> = (0..POOL_MAX / PEER_MAX)
            .map(|_| pool.account(PeerId::random()).hold(PEER_MAX))
            .collect();
        let stranger = pool.account(PeerId::random());
        let _share = stranger.hold(SHARE_MIN - 1);
        assert!(stranger.has_room());
        let _more = stranger.hold(1);
        assert!(!stranger.has_room());
        let _all = kept.hold(PEER_MAX - 1);
        assert!(kept.has_room());
        drop(strangers);
        assert!(stranger.has_room());
    }

    #[test]
    fn peers_are_logged_once_a_minute_and_their_number_is_limited() {
        let pool = Pool::default();
        let (peer, start) = (PeerId::random(), Instant::now());
        assert!(pool.should_log(peer, start));
        assert!(!pool.should_log(peer, start + Duration::from_secs(59)));
        assert!(pool.should_log(peer, start + LOG_INTERVAL));
        let flood =
            (0..2 * LOGGED_PEERS_MAX).filter(|_| pool.should_log(PeerId::random(), start + LOG_INTERVAL));
        assert!(flood.count() < LOGGED_PEERS_MAX);
        assert!(pool.should_log(PeerId::random(), start + 2 * LOG_INTERVAL));
    }
}
