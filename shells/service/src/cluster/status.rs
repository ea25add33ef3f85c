//! Status of one CID.

use std::time::Duration;

use cluster_api::{GlobalPinInfo, PinInfoShort};
use cluster_core::{Cid, PeerId, Pin};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

use super::info::{self, Names};
use super::peers::Known;
use super::rpc::{self, Answer, Call, Speaker, State};
use super::{Cluster, Error, now};

/// Time for an allocated peer to answer, as in the Go peer.
const ANSWER: Duration = Duration::from_secs(15);

/// Time for the other peers once all allocated ones have answered: they rarely add anything.
const OTHERS: Duration = Duration::from_secs(1);

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
        let mut names = Names::default();
        let mut shown = info::global(&cid, pin.as_ref(), &mut names);
        let me = names.of(&self.inner.config.peer).to_owned();
        shown
            .peer_map
            .insert(me, info::short(&self.speaker().await, &state));
        Ok(shown)
    }

    /// Returns the pin of a CID, and its status at this peer.
    pub(super) async fn own_state(&self, cid: &Cid) -> Result<(Option<Pin>, State), Error> {
        let key = cid.clone();
        let (pin, local) = self
            .read(move |store| Ok((store.pin(&key)?, store.local(&key)?)))
            .await?;
        let running = self.inner.world.core.running().await.ok_or(Error::Closed)?;
        let running = running
            .into_iter()
            .find(|(running, _)| running == cid)
            .map(|(_, unpin)| unpin);
        let me = &self.inner.config.peer;
        let state = info::state(me, pin.as_ref(), local.as_ref(), running, now());
        Ok((pin, state))
    }

    /// Asks every member about one CID, this peer included.
    pub(super) async fn ask_all(&self, cid: Cid, call: fn(Cid) -> Call) -> Result<GlobalPinInfo, Error> {
        let Known { peers } = self.known_peers().await?;
        let me = &self.inner.config.peer;
        let own = self.answer_one(call(cid.clone())).await?;
        let (pin, _) = self.own_state(&cid).await?;
        let mut names = Names::default();
        let mut shown = info::global(&cid, pin.as_ref(), &mut names);
        shown
            .peer_map
            .insert(names.of(me).to_owned(), info::short(&own.0, &own.1));
        let concerned = |peer: &PeerId| pin.as_ref().is_none_or(|pin| pin.is_allocated_to(peer));
        let others = || peers.keys().filter(|peer| *peer != me);
        let mut open = others().filter(|peer| concerned(peer)).count();
        let mut asked: FuturesUnordered<_> = others()
            .map(|peer| {
                let call = call(cid.clone());
                async move { (peer, self.ask_one(peer, &call).await) }
            })
            .collect();
        let mut deadline = Instant::now() + if open == 0 { OTHERS } else { ANSWER };
        while let Ok(Some((peer, answer))) = timeout_at(deadline, asked.next()).await {
            let short = match answer {
                Ok((speaker, state)) => info::short(&speaker, &state),
                Err(error) => unanswered(&peers[peer], concerned(peer), &error.to_string()),
            };
            shown.peer_map.insert(names.of(peer).to_owned(), short);
            if concerned(peer) {
                open -= 1;
                if open == 0 {
                    deadline = deadline.min(Instant::now() + OTHERS);
                }
            }
        }
        for peer in others() {
            let why = format!("no answer from {peer} within {ANSWER:?}");
            let late = || unanswered(&peers[peer], concerned(peer), &why);
            shown
                .peer_map
                .entry(names.of(peer).to_owned())
                .or_insert_with(late);
        }
        Ok(shown)
    }

    async fn ask_one(&self, peer: &PeerId, call: &Call) -> Result<(Speaker, State), Error> {
        let network = self.inner.world.network.as_ref();
        let mut channel = rpc::call(network, peer, call).await?;
        let Some(Answer::Speaker(speaker)) = rpc::next(channel.as_mut(), peer, ANSWER).await? else {
            return Err(rpc::unexpected(peer));
        };
        let Some(Answer::State(state)) = rpc::next(channel.as_mut(), peer, ANSWER).await? else {
            return Err(rpc::unexpected(peer));
        };
        Ok((speaker, state))
    }
}

/// Returns the status of a peer that has not answered: an error only if it is allocated.
fn unanswered(speaker: &Speaker, concerned: bool, why: &str) -> PinInfoShort {
    if concerned {
        info::silent(speaker, now(), why)
    } else {
        info::remote(speaker, now())
    }
}
