//! Garbage collection of the members' IPFS nodes.

use std::collections::BTreeMap;

use cluster_api as api;
use cluster_core::PeerId;
use cluster_ipfs::backend;
use futures::StreamExt;
use tokio::sync::mpsc;

use super::peers::{KnownMembers, ask_each};
use super::rpc::{self, Answer, Call};
use super::{Cluster, Error};
use crate::net;

pub use super::rpc::Collected;

/// Maximum number of removed keys listed for each peer. The Go peer lists all of them from memory; a
/// repository of 1 TB may have 4 million.
const KEYS_MAX: usize = 100_000;

/// Maximum number of steps in one answer.
const STEPS_AT_ONCE: usize = 512;

type Batches = mpsc::Sender<Vec<Collected>>;

impl Cluster {
    /// Runs garbage collection at all members' IPFS nodes at once. A failure is reported per peer.
    ///
    /// # Errors
    /// This peer is shutting down.
    pub async fn repo_gc(&self) -> Result<api::GlobalRepoGc, Error> {
        let KnownMembers { peers } = self.known_peers().await?;
        let mut shown = api::GlobalRepoGc::default();
        let mut collections = ask_each(peers.keys(), |peer| self.gc_of(peer, &peers[peer].peername));
        while let Some((_, collected)) = collections.next().await {
            shown.peer_map.insert(collected.peer.clone(), collected);
        }
        Ok(shown)
    }

    /// Runs garbage collection at this peer's IPFS node.
    pub async fn repo_gc_local(&self) -> api::GlobalRepoGc {
        let collected = self
            .gc_of(&self.inner.config.peer, &self.inner.config.peername)
            .await;
        api::GlobalRepoGc {
            peer_map: BTreeMap::from([(collected.peer.clone(), collected)]),
        }
    }

    async fn gc_of(&self, peer: &PeerId, peername: &str) -> api::RepoGc {
        let mut shown = api::RepoGc {
            peer: peer.to_string(),
            peername: peername.to_owned(),
            ..api::RepoGc::default()
        };
        let (out, mut batches) = mpsc::channel::<Vec<Collected>>(1);
        let note = async {
            while let Some(batch) = batches.recv().await {
                batch.into_iter().for_each(|step| add_step(&mut shown, step));
            }
        };
        let (done, ()) = tokio::join!(self.collect_at(peer, out), note);
        if let Err(error) = done {
            shown.error = error.to_string();
        }
        shown
    }

    /// Runs garbage collection at all members, and sends each step to `out`. Unreachable members are left
    /// out; other failures are failed steps.
    ///
    /// # Errors
    /// This peer is shutting down.
    pub async fn collect_everywhere(&self, out: mpsc::Sender<Vec<Collected>>) -> Result<(), Error> {
        let KnownMembers { peers } = self.known_peers().await?;
        let out = &out;
        let mut ends = ask_each(peers.keys(), |peer| async move {
            if *peer == self.inner.config.peer {
                return self.collect_garbage(out.clone()).await;
            }
            match rpc::call(&self.inner.net, peer, &Call::CollectGarbage).await {
                Ok(channel) => self.collect_there(peer, channel, out.clone()).await,
                Err(error) => {
                    tracing::warn!(%peer, %error, "garbage is not collected");
                    Ok(())
                }
            }
        });
        while let Some((peer, done)) = ends.next().await {
            if let Err(error) = done {
                let failed = Collected::Failed(format!("peer {peer}: {error}"));
                let _ = out.send(vec![failed]).await;
            }
        }
        Ok(())
    }

    async fn collect_at(&self, peer: &PeerId, out: Batches) -> Result<(), Error> {
        if *peer == self.inner.config.peer {
            return self.collect_garbage(out).await;
        }
        let channel = rpc::call(&self.inner.net, peer, &Call::CollectGarbage).await?;
        self.collect_there(peer, channel, out).await
    }

    async fn collect_there(&self, peer: &PeerId, mut channel: net::Call, out: Batches) -> Result<(), Error> {
        let mut first = rpc::next(&mut channel, peer, self.inner.answer_timeout).await;
        if first.is_err() {
            // A peer of the last release refuses this call, and has collected nothing.
            channel = rpc::call(&self.inner.net, peer, &Call::RepoGc).await?;
            first = rpc::next(&mut channel, peer, self.inner.answer_timeout).await;
        }
        let mut next = first?;
        while let Some(answer) = next {
            let Answer::Collected(batch) = answer else {
                return Err(rpc::unexpected(peer));
            };
            if out.send(batch).await.is_err() {
                return Ok(());
            }
            next = rpc::next(&mut channel, peer, self.inner.answer_timeout).await?;
        }
        Ok(())
    }

    /// Runs garbage collection at this peer's IPFS node; aborts it when `out` is closed.
    pub(super) async fn collect_garbage(&self, out: Batches) -> Result<(), Error> {
        let mut steps = self.inner.backend.repo_gc().ready_chunks(STEPS_AT_ONCE);
        while let Some(batch) = steps.next().await {
            let mut collected = Vec::with_capacity(batch.len());
            let mut failed = None;
            for step in batch {
                match step {
                    Ok(backend::Collected::Removed(cid)) => {
                        collected.push(Collected::Removed(cid.to_string()));
                    }
                    Ok(backend::Collected::Failed(why)) => collected.push(Collected::Failed(why)),
                    Ok(backend::Collected::Freed(bytes)) => collected.push(Collected::Freed(bytes)),
                    Err(error) => failed = Some(error),
                }
            }
            if out.send(collected).await.is_err() {
                return Ok(());
            }
            if let Some(error) = failed {
                return Err(error.into());
            }
        }
        Ok(())
    }
}

fn add_step(shown: &mut api::RepoGc, step: Collected) {
    let (key, error) = match step {
        Collected::Freed(bytes) => {
            shown.freed_bytes = Some(bytes);
            return;
        }
        Collected::Removed(_) | Collected::Failed(_) if shown.keys.len() > KEYS_MAX => return,
        Collected::Removed(_) | Collected::Failed(_) if shown.keys.len() == KEYS_MAX => {
            let more = format!("only the first {KEYS_MAX} keys are listed; the collection continued");
            (None, more)
        }
        Collected::Removed(cid) => (Some(cid), String::new()),
        Collected::Failed(error) => (None, error),
    };
    shown.keys.push(api::IpfsRepoGc { key, error });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_keys_are_limited_and_the_freed_space_is_not_lost() {
        let mut shown = api::RepoGc::default();
        for at in 0..KEYS_MAX + 2 {
            add_step(&mut shown, Collected::Removed(at.to_string()));
        }
        add_step(&mut shown, Collected::Freed(7));
        assert_eq!((shown.keys.len(), shown.freed_bytes), (KEYS_MAX + 1, Some(7)));
        let last = shown.keys.last().unwrap();
        assert!(
            last.key.is_none() && last.error.starts_with("only the first"),
            "{last:?}"
        );
    }
}
