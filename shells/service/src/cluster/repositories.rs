//! The members' IPFS repositories as if they were one: total size, garbage collection.

use cluster_api as api;
use cluster_core::PeerId;
use futures::StreamExt;
use tokio::sync::mpsc;

use super::peers::{KnownMembers, concurrently};
use super::rpc::{self, Answer, Call, Collected};
use super::{Cluster, Error};

/// Size of one or more repositories.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repositories {
    /// Used space in bytes.
    pub size: u64,
    /// Maximum space in bytes.
    pub storage_max: u64,
    /// Number of blocks; 0 if they were not counted.
    pub objects: u64,
}

impl Cluster {
    /// Sums up the repositories of all other members that answer. `objects` makes them count their blocks,
    /// which may take long.
    ///
    /// # Errors
    /// This peer is shutting down.
    pub async fn other_repositories(&self, objects: bool) -> Result<Repositories, Error> {
        let KnownMembers { peers } = self.known_peers().await?;
        let others = peers.keys().filter(|peer| **peer != self.inner.config.peer);
        let mut answers = std::pin::pin!(concurrently(
            others.map(|peer| async move { (peer, self.repository_of(peer, objects).await) })
        ));
        let mut sum = Repositories::default();
        while let Some((peer, answer)) = answers.next().await {
            match answer {
                Ok(one) => {
                    sum.size = sum.size.saturating_add(one.size);
                    sum.storage_max = sum.storage_max.saturating_add(one.storage_max);
                    sum.objects = sum.objects.saturating_add(one.objects);
                }
                Err(error) => tracing::warn!(%peer, %error, "a repository is not counted"),
            }
        }
        Ok(sum)
    }

    async fn repository_of(&self, peer: &PeerId, objects: bool) -> Result<Repositories, Error> {
        let call = Call::RepoStat { objects };
        let mut channel = rpc::call(&self.inner.net, peer, &call).await?;
        match rpc::next(&mut channel, peer, self.inner.answer_timeout).await? {
            Some(Answer::RepoStat {
                size,
                storage_max,
                objects,
            }) => Ok(Repositories {
                size,
                storage_max,
                objects,
            }),
            Some(_) | None => Err(rpc::unexpected(peer)),
        }
    }

    /// Returns the size of this peer's repository.
    pub(super) async fn own_repository(&self, objects: bool) -> Result<Repositories, Error> {
        let stat = self.inner.backend.repo_stat().await?;
        let objects = if objects {
            self.inner.backend.repo_objects().await?
        } else {
            0
        };
        Ok(Repositories {
            size: stat.size,
            storage_max: stat.storage_max,
            objects,
        })
    }

    /// Runs garbage collection at all members, and sends each step to `out`. Unreachable members are left
    /// out; other failures are steps with an error.
    ///
    /// # Errors
    /// This peer is shutting down.
    pub async fn collect_everywhere(&self, out: mpsc::Sender<api::IpfsRepoGc>) -> Result<(), Error> {
        let KnownMembers { peers } = self.known_peers().await?;
        let out = &out;
        let mut ends = std::pin::pin!(concurrently(peers.keys().map(|peer| async move {
            let done = if *peer == self.inner.config.peer {
                self.collect_here(out).await
            } else {
                self.collect_there(peer, out).await
            };
            (peer, done)
        })));
        while let Some((peer, done)) = ends.next().await {
            if let Err(error) = done {
                let error = format!("peer {peer}: {error}");
                let _ = out.send(api::IpfsRepoGc { key: None, error }).await;
            }
        }
        Ok(())
    }

    async fn collect_here(&self, out: &mpsc::Sender<api::IpfsRepoGc>) -> Result<(), Error> {
        let (batches, mut received) = mpsc::channel(1);
        let pass = async {
            while let Some(batch) = received.recv().await {
                if !send_steps(out, batch).await {
                    return;
                }
            }
        };
        let (done, ()) = tokio::join!(self.collect_garbage(batches), pass);
        done
    }

    async fn collect_there(&self, peer: &PeerId, out: &mpsc::Sender<api::IpfsRepoGc>) -> Result<(), Error> {
        let mut channel = match rpc::call(&self.inner.net, peer, &Call::RepoGc).await {
            Ok(channel) => channel,
            Err(error) => {
                tracing::warn!(%peer, %error, "garbage is not collected");
                return Ok(());
            }
        };
        while let Some(answer) = rpc::next(&mut channel, peer, self.inner.answer_timeout).await? {
            let Answer::Collected(batch) = answer else {
                return Err(rpc::unexpected(peer));
            };
            if !send_steps(out, batch).await {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Sends the steps; returns false if `out` is closed.
async fn send_steps(out: &mpsc::Sender<api::IpfsRepoGc>, batch: Vec<Collected>) -> bool {
    for step in batch {
        let step = match step {
            Collected::Removed(cid) => api::IpfsRepoGc {
                key: Some(cid),
                error: String::new(),
            },
            Collected::Failed(error) => api::IpfsRepoGc { key: None, error },
        };
        if out.send(step).await.is_err() {
            return false;
        }
    }
    true
}
