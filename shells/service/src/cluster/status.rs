//! Where one CID stands.

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

/// A peer that must hold a CID has this long to say where it stands, as in the Go peer.
const ANSWER: Duration = Duration::from_secs(15);

/// When all that must hold it have answered, the others have this long: they rarely have anything to say.
const OTHERS: Duration = Duration::from_secs(1);

impl Cluster {
    /// Where a CID stands at every member. One that must hold it and does not answer in time shows as
    /// `cluster_error`, with the reason.
    pub async fn status(&self, cid: Cid) -> Result<GlobalPinInfo, Error> {
        self.ask_all(cid, |cid| Call::Status { cid }).await
    }

    /// Where a CID stands here.
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

    /// The pin as this peer has it, and where the CID stands here.
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

/// What stands for a peer that has not answered: only for those that are concerned it is an error.
fn unanswered(speaker: &Speaker, concerned: bool, why: &str) -> PinInfoShort {
    if concerned {
        info::silent(speaker, now(), why)
    } else {
        info::remote(speaker, now())
    }
}
