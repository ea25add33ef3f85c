//! Converts the statuses of CIDs at other peers to events at this one, while they have readers.
//!
//! Each followed member streams the changes of its own local states over one call, which this peer appends to
//! its [`EventLog`](crate::events::EventLog). Statuses between two calls are lost; events report when that
//! begins and ends. Older peers refuse the call, and are asked again at long intervals.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cluster_core::PeerId;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::rpc::{self, Answer, Call, StatusChange};
use super::{Cluster, Error, now};
use crate::events::{Change, Event};
use crate::net::Incoming;

/// Members that are followed: each has a call at this peer and one at the member.
const PEERS_MAX: usize = 64;

/// Peers that follow this one; more are refused.
pub(super) const FOLLOWERS_MAX: usize = 64;

/// Changes in one answer.
const PAGE: usize = 256;

/// Interval of looking for new members.
const MEMBERS_INTERVAL: Duration = Duration::from_secs(2);

/// Time for which following continues without a reader: a browser connects again within it.
const LINGER: Duration = Duration::from_secs(10);

/// First pause after a call that ended; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// Maximum pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// State of following other peers, shared by all its users.
#[derive(Debug, Default)]
pub(super) struct Following {
    /// Number of readers of other peers' statuses.
    readers: watch::Sender<usize>,
    /// Peers whose statuses arrive.
    complete: Mutex<BTreeSet<PeerId>>,
}

impl Following {
    fn complete(&self) -> MutexGuard<'_, BTreeSet<PeerId>> {
        self.complete.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader of other peers' statuses, until it is dropped.
#[derive(Debug)]
pub struct StatusReader {
    readers: watch::Sender<usize>,
}

impl Drop for StatusReader {
    fn drop(&mut self) {
        self.readers.send_modify(|readers| *readers -= 1);
    }
}

impl StatusChange {
    /// Returns the change of a status of this peer in an event.
    fn of(event: &Event) -> Option<Self> {
        let Change::Status {
            cid,
            peer: None,
            status,
            error,
        } = &event.change
        else {
            return None;
        };
        Some(Self {
            at: event.at,
            cid: cid.clone(),
            status: (*status).to_owned(),
            error: error.clone(),
        })
    }
}

impl Cluster {
    /// Registers a reader of events that wants other peers' statuses, and returns the peers whose statuses
    /// arrive already. Events report the others.
    pub fn read_statuses(&self) -> (StatusReader, BTreeSet<PeerId>) {
        let readers = self.inner.following.readers.clone();
        readers.send_modify(|readers| *readers += 1);
        let complete = self.inner.following.complete().clone();
        (StatusReader { readers }, complete)
    }

    /// Follows the statuses of the other members while they have a reader, until this peer ends.
    pub async fn follow_statuses(self) {
        let mut readers = self.inner.following.readers.subscribe();
        loop {
            if readers.wait_for(|readers| *readers > 0).await.is_err() {
                return;
            }
            let (mut followed, mut tasks) = (BTreeMap::new(), JoinSet::new());
            loop {
                let Ok(members) = self.members().await else {
                    return;
                };
                let others = members.peer_ids().filter(|peer| *peer != self.peer());
                self.adjust(
                    &mut followed,
                    &mut tasks,
                    others.take(PEERS_MAX).cloned().collect(),
                );
                let unread = readers.wait_for(|readers| *readers == 0);
                if timeout(MEMBERS_INTERVAL, unread).await.is_err() {
                    continue;
                }
                if timeout(LINGER, readers.wait_for(|readers| *readers > 0))
                    .await
                    .is_err()
                {
                    break;
                }
            }
            tasks.shutdown().await;
            self.adjust(&mut followed, &mut tasks, Vec::new());
        }
    }

    /// Starts to follow these members, and stops following all others.
    fn adjust(
        &self,
        followed: &mut BTreeMap<PeerId, AbortHandle>,
        tasks: &mut JoinSet<()>,
        members: Vec<PeerId>,
    ) {
        while tasks.try_join_next().is_some() {}
        followed.retain(|peer, task| {
            let remains = members.contains(peer);
            if !remains {
                task.abort();
            }
            remains
        });
        let complete = self.inner.following.complete().clone();
        for peer in complete.iter().filter(|peer| !followed.contains_key(*peer)) {
            self.set_incomplete(peer, "they have no reader, or the peer is not a member any more");
        }
        for peer in members {
            if let Entry::Vacant(vacant) = followed.entry(peer) {
                let following = self.clone().follow(vacant.key().clone());
                vacant.insert(tasks.spawn(following));
            }
        }
    }

    /// Notes that statuses of a peer may be missing from now on. Returns `false` if that was known.
    fn set_incomplete(&self, peer: &PeerId, why: &str) -> bool {
        let was_complete = self.inner.following.complete().remove(peer);
        if was_complete {
            self.append_lost(peer, why);
        }
        was_complete
    }

    fn append_lost(&self, peer: &PeerId, why: &str) {
        self.inner
            .events
            .append(now(), [Change::statuses_lost(peer.clone(), why)]);
    }

    /// Follows a member until it is aborted.
    async fn follow(self, peer: PeerId) {
        let (mut pause, mut is_told) = (PAUSE_MIN, false);
        loop {
            let ended = self.follow_call(&peer).await;
            let why = ended.err().map(|error| error.to_string()).unwrap_or_default();
            if self.set_incomplete(&peer, &why) {
                (pause, is_told) = (PAUSE_MIN, true);
            } else if !is_told {
                // Not even the first call was answered.
                self.append_lost(&peer, &why);
                is_told = true;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Appends the statuses of a member until the call ends, which is an error.
    async fn follow_call(&self, peer: &PeerId) -> Result<(), Error> {
        let mut call = rpc::call(&self.inner.net, peer, &Call::Statuses).await?;
        while let Some(answer) = rpc::next(&mut call, peer, self.inner.answer_timeout).await? {
            let Answer::Statuses(changes) = answer else {
                return Err(rpc::unexpected(peer));
            };
            if changes.len() > PAGE {
                return Err(rpc::unexpected(peer));
            }
            if self.inner.following.complete().insert(peer.clone()) {
                let followed = Change::StatusesFollowed { peer: peer.clone() };
                self.inner.events.append(now(), [followed]);
            }
            for change in changes {
                let at = change.at;
                let change = Change::status_at(peer.clone(), change.cid, &change.status, &change.error);
                self.inner.events.append(at, change);
            }
        }
        Err(Error::Peer(format!("peer {peer} ended its stream of statuses")))
    }

    /// Streams the changes of this peer's own statuses to another peer, until it closes the call.
    ///
    /// # Errors
    /// Too many peers follow this one, or the other one reads too slowly.
    pub(super) async fn answer_statuses(&self, incoming: &mut Incoming) -> Result<(), Error> {
        let Ok(_place) = self.inner.followers.try_acquire() else {
            return Err(Error::Peer(format!(
                "{FOLLOWERS_MAX} peers follow this one already"
            )));
        };
        let lost = |_| Error::Peer("statuses were read too slowly, and some are lost".to_owned());
        let mut reader = self.inner.events.read(None).map_err(lost)?;
        rpc::send(incoming, &Answer::Statuses(Vec::new())).await?;
        loop {
            let events = rpc::with_heartbeats(incoming, reader.next(PAGE))
                .await?
                .map_err(lost)?;
            if events.is_empty() {
                return Err(Error::Closed);
            }
            let own = events.iter().filter_map(|event| StatusChange::of(event));
            let own: Vec<StatusChange> = own.collect();
            if !own.is_empty() {
                rpc::send(incoming, &Answer::Statuses(own)).await?;
            }
        }
    }
}
