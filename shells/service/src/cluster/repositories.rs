//! The members' IPFS repositories as if they were one: their total size.

use cluster_core::PeerId;
use futures::StreamExt;

use super::peers::{KnownMembers, ask_each};
use super::rpc::{self, Answer, Call};
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
        let mut answers = ask_each(others, |peer| self.repository_of(peer, objects));
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
        match self.call_once(peer, &Call::RepoStat { objects }).await? {
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
}
