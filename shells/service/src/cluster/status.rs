//! Status of one CID.

use std::time::{Duration, UNIX_EPOCH};

use cluster_api::{GlobalPinInfo, PinInfoShort, TrackerStatus};
use cluster_core::{Cid, Lane, PeerId, Pin, Timestamp};
use cluster_ipfs::Backend;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

use super::info::{self, PeerIdTexts};
use super::peers::KnownMembers;
use super::rpc::{self, Activity, Answer, Call, CidStatus, OneStatus, PeerDetails, Transfer};
use super::{Cluster, Error, now};

/// Time for an allocated peer to answer, as in the Go peer.
const ALLOCATED_TIMEOUT: Duration = Duration::from_secs(15);

/// Time for the last part of an answer, which follows the others at once.
const ACTIVITY_TIMEOUT: Duration = Duration::from_secs(1);

/// Time for the other peers once all allocated ones have answered: they rarely add anything.
const OTHERS_TIMEOUT: Duration = Duration::from_secs(1);

/// Error of a pin whose blocks the IPFS node has found damaged or missing.
const BROKEN: &str = "blocks are damaged or missing at the IPFS node, which looks for copies";

/// The owner that acts does not hold a pin.
#[derive(Debug)]
pub(super) struct NotOwned;

impl Cluster {
    /// Returns the status of a CID at every member. An allocated member that does not answer in time is
    /// `cluster_error`, with the reason.
    ///
    /// # Errors
    /// The database cannot be read, or this peer is shutting down.
    pub async fn status(&self, cid: Cid) -> Result<GlobalPinInfo, Error> {
        self.ask_all(cid, |cid| Call::Status { cid }).await
    }

    /// Returns the status of a CID at this peer.
    ///
    /// # Errors
    /// The database cannot be read, or this peer is shutting down.
    pub async fn status_local(&self, cid: Cid) -> Result<GlobalPinInfo, Error> {
        let (pin, state) = self.own_state(&cid).await?;
        let Ok(pin) = self.seen(pin) else {
            return self.status_of_absent(&cid, true).await;
        };
        let mut names = PeerIdTexts::default();
        let mut shown = info::without_statuses(&cid, pin.as_ref(), &mut names);
        let me = names.of(&self.inner.config.peer).to_owned();
        let status = OneStatus {
            details: self.own_details().await,
            state,
            activity: self.own_activity(&cid).await?,
        };
        shown.peer_map.insert(me, info::detailed_info(&status));
        Ok(shown)
    }

    /// Returns the details of a CID at this peer that only the status of a single CID has.
    pub(super) async fn own_activity(&self, cid: &Cid) -> Result<Activity, Error> {
        let key = cid.clone();
        let local = self.read(move |store| store.local(&key)).await?;
        let retry = local
            .and_then(|local| local.queued)
            .filter(|key| key.lane == Lane::Retry);
        let transfer = self.inner.handle.transfer(cid).map(|transfer| Transfer {
            blocks: transfer.progress.blocks,
            bytes: transfer.progress.bytes,
            total_bytes: transfer.progress.total,
            updated: transfer.updated,
        });
        Ok(Activity {
            announced: self.own_announcement(cid).await,
            // Of a running attempt it is past.
            retry_at: retry.map(|key| Timestamp(key.at)).filter(|at| *at > now()),
            transfer,
        })
    }

    /// Returns the time at which this peer's embedded IPFS node last announced a CID to the DHT, if known.
    async fn own_announcement(&self, cid: &Cid) -> Option<Timestamp> {
        let Backend::Embedded(node) = &self.inner.backend else {
            return None;
        };
        let (node, cid) = (node.clone(), cid.to_string().parse().ok()?);
        let read = tokio::task::spawn_blocking(move || node.announced_at(&cid));
        let since = read.await.ok()??.duration_since(UNIX_EPOCH).ok()?;
        u64::try_from(since.as_nanos()).ok().map(Timestamp)
    }

    /// Returns the pin of a CID, and its status at this peer.
    pub(super) async fn own_state(&self, cid: &Cid) -> Result<(Option<Pin>, CidStatus), Error> {
        let key = cid.clone();
        let (pin, local) = self
            .read(move |store| Ok((store.pin(&key)?, store.local(&key)?)))
            .await?;
        let running = self.running().await?.get(cid).copied();
        let me = &self.inner.config.peer;
        let mut state = info::state(me, pin.as_ref(), local.as_ref(), running, now());
        if state.status != TrackerStatus::Pinned && self.inner.backend.is_broken(cid.as_bytes()) {
            state.error = match state.error.as_str() {
                "" => BROKEN.to_owned(),
                error => format!("{BROKEN}: {error}"),
            };
        }
        Ok((pin, state))
    }

    /// Returns the pin of a CID as it is shown.
    ///
    /// # Errors
    /// An owner acts, and it does not hold the pin.
    pub(super) fn seen(&self, pin: Option<Pin>) -> Result<Option<Pin>, NotOwned> {
        match (pin, self.owner()) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(NotOwned),
            (Some(pin), _) => self.shown_pin(pin).map(Some).ok_or(NotOwned),
        }
    }

    /// Asks every member about one CID, this peer included.
    pub(super) async fn ask_all(&self, cid: Cid, call: fn(Cid) -> Call) -> Result<GlobalPinInfo, Error> {
        if !self.is_visible(&cid).await? {
            return self.status_of_absent(&cid, false).await;
        }
        let KnownMembers { peers } = self.known_peers().await?;
        let me = &self.inner.config.peer;
        let own = self.answer_one(call(cid.clone())).await?;
        let (pin, _) = self.own_state(&cid).await?;
        let Ok(pin) = self.seen(pin) else {
            return self.status_of_absent(&cid, false).await;
        };
        let mut names = PeerIdTexts::default();
        let mut shown = info::without_statuses(&cid, pin.as_ref(), &mut names);
        shown
            .peer_map
            .insert(names.of(me).to_owned(), info::detailed_info(&own));
        let concerned = |peer: &PeerId| pin.as_ref().is_none_or(|pin| pin.is_allocated_to(peer));
        let others = || peers.keys().filter(|peer| *peer != me);
        let mut open = others().filter(|peer| concerned(peer)).count();
        let mut asked: FuturesUnordered<_> = others()
            .map(|peer| {
                let call = call(cid.clone());
                async move { (peer, self.ask_one(peer, &call).await) }
            })
            .collect();
        let mut deadline = Instant::now()
            + if open == 0 {
                OTHERS_TIMEOUT
            } else {
                ALLOCATED_TIMEOUT
            };
        while let Ok(Some((peer, answer))) = timeout_at(deadline, asked.next()).await {
            let short = match answer {
                Ok(status) => info::detailed_info(&status),
                Err(error) => status_without_answer(&peers[peer], concerned(peer), &error.to_string()),
            };
            shown.peer_map.insert(names.of(peer).to_owned(), short);
            if concerned(peer) {
                open -= 1;
                if open == 0 {
                    deadline = deadline.min(Instant::now() + OTHERS_TIMEOUT);
                }
            }
        }
        for peer in others() {
            let why = format!("no answer from {peer} within {ALLOCATED_TIMEOUT:?}");
            let late = || status_without_answer(&peers[peer], concerned(peer), &why);
            shown
                .peer_map
                .entry(names.of(peer).to_owned())
                .or_insert_with(late);
        }
        Ok(shown)
    }

    async fn ask_one(&self, peer: &PeerId, call: &Call) -> Result<OneStatus, Error> {
        let mut channel = rpc::call(&self.inner.net, peer, call).await?;
        let Some(Answer::Details(details)) = rpc::next(&mut channel, peer, ALLOCATED_TIMEOUT).await? else {
            return Err(rpc::unexpected(peer));
        };
        let Some(Answer::Status(state)) = rpc::next(&mut channel, peer, ALLOCATED_TIMEOUT).await? else {
            return Err(rpc::unexpected(peer));
        };
        // A status without it is complete.
        let activity = match rpc::next(&mut channel, peer, ACTIVITY_TIMEOUT).await {
            Ok(Some(Answer::Activity(activity))) => activity,
            Ok(_) | Err(_) => Activity::default(),
        };
        Ok(OneStatus {
            details,
            state,
            activity,
        })
    }
}

/// Returns the status of a peer that has not answered: an error only if it is allocated.
fn status_without_answer(details: &PeerDetails, concerned: bool, why: &str) -> PinInfoShort {
    if concerned {
        info::unreachable(details, now(), why)
    } else {
        info::remote(details, now())
    }
}
