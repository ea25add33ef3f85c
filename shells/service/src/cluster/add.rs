//! Adding content: files become blocks once, here; the blocks go to every peer that will hold them while
//! they are made; then the root is pinned.

mod car;
mod keep;
mod spread;

use cid::Version;
use cluster_api::{AddFormat, AddLayout, AddParams, AddedOutput};
use cluster_core::{Cid, PeerId, PinOptions, Replicas, Reply, Request};
use cluster_ipfs::Block;
use cluster_ipfs::unixfs::{AddOptions, Added, Adder, Layout, Metadata};
use tokio::io::AsyncRead;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinHandle;

pub(super) use self::keep::Keep;
use self::spread::Spread;
use super::{Cluster, Error, convert, now};

/// Blocks that wait to be spread: at most 32 MiB, usually 4.
const BLOCKS_WAITING: usize = 16;

/// Why an upload ended without a pin. What it says is for the uploader.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The upload itself makes no sense.
    #[error("{0}")]
    Input(String),
    /// The cluster could not do it.
    #[error(transparent)]
    Cluster(#[from] Error),
}

impl From<cluster_ipfs::Error> for Failure {
    fn from(error: cluster_ipfs::Error) -> Self {
        Self::Input(error.to_string())
    }
}

/// An upload. Dropping it gives it up: nothing is pinned, and the peers forget what was under way.
#[derive(Debug)]
pub struct Adding {
    cluster: Cluster,
    pin: PinOptions,
    no_pin: bool,
    adder: Adder,
    blocks: mpsc::Sender<Block>,
    complete: oneshot::Sender<()>,
    spread: Abort<Result<Vec<PeerId>, Error>>,
    allocations: Vec<String>,
    car_roots: Vec<Added>,
    _permit: OwnedSemaphorePermit,
}

/// A task that ends with its owner.
#[derive(Debug)]
struct Abort<T>(JoinHandle<T>);

impl<T> Drop for Abort<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Cluster {
    /// Starts an upload: decides which peers will hold it.
    ///
    /// # Errors
    /// The parameters contradict each other or ask for what is not offered; no peers can be allocated.
    pub async fn add(&self, params: &AddParams) -> Result<Adding, Failure> {
        let options = add_options(params)?;
        let pin = convert::options(&params.pin, self.inner.config.default_replicas, now())?;
        let busy = |_| Error::Refused(cluster_core::Refusal::Busy);
        let permit = self.inner.uploads.clone().try_acquire_owned().map_err(busy)?;
        let (allocated, needed) = self.destinations(&pin, params.local).await?;
        let me = self.inner.config.peer.clone();
        let to = if params.local { vec![me] } else { allocated.clone() };
        let (blocks, incoming) = mpsc::channel(BLOCKS_WAITING);
        let (complete, completed) = oneshot::channel();
        let adder = Adder::new(options, blocks.clone())?;
        let made = params.format == AddFormat::Unixfs;
        let spread = Spread::start(self, to, if params.local { 1 } else { needed }, made);
        let spread = Abort(tokio::spawn(spread.run(incoming, completed)));
        let mut pin = pin;
        if pin.user_allocations.is_empty() && pin.replicas != Replicas::Everywhere {
            // The pin goes where the blocks are.
            pin.user_allocations.clone_from(&allocated);
        }
        Ok(Adding {
            cluster: self.clone(),
            pin,
            no_pin: params.no_pin,
            adder,
            blocks,
            complete,
            spread,
            allocations: allocated.iter().map(PeerId::to_string).collect(),
            car_roots: Vec::new(),
            _permit: permit,
        })
    }

    /// The peers that will hold an upload, and how many of them must have all blocks before it is pinned.
    async fn destinations(&self, pin: &PinOptions, local: bool) -> Result<(Vec<PeerId>, usize), Error> {
        let me = &self.inner.config.peer;
        let request = Request::Allocate {
            cid: Some(any_cid()?),
            // What stays here need not travel.
            near: Some(me.clone()),
            options: pin.clone(),
        };
        let mut allocated = match self.request(request).await? {
            Reply::Allocated(peers) => peers,
            Reply::Barrier(_)
            | Reply::PeerAdded
            | Reply::PeerRemoved
            | Reply::Pinned(_)
            | Reply::Recovered(_)
            | Reply::Synced(_)
            | Reply::Unpinned(_) => {
                return Err(Error::Closed);
            }
        };
        match pin.replicas {
            Replicas::Everywhere => {
                // Those that are away now get it from the others when they are back.
                let members = self.inner.world.core.members().await.ok_or(Error::Closed)?;
                let connected = self.inner.world.network.connected();
                let here = |peer: &&PeerId| *peer == me || connected.contains(peer);
                Ok((members.peer_ids().filter(here).cloned().collect(), 1))
            }
            Replicas::Range { min, .. } => {
                if local && pin.user_allocations.is_empty() && !allocated.contains(me) {
                    allocated.pop();
                    allocated.push(me.clone());
                }
                Ok((allocated, usize::try_from(min).unwrap_or(usize::MAX)))
            }
        }
    }
}

/// Stands for the CID that is not known yet, so that uploads are spread among the other peers.
fn any_cid() -> Result<Cid, Error> {
    const RAW: u64 = 0x55;
    const IDENTITY: u64 = 0;
    let hash = cid::multihash::Multihash::wrap(IDENTITY, &rand::random::<[u8; 16]>());
    let hash = hash.map_err(|error| Error::Invalid(error.to_string()))?;
    convert::core_cid(&cluster_ipfs::Cid::new_v1(RAW, hash))
}

/// How the blocks are made.
fn add_options(params: &AddParams) -> Result<AddOptions, Failure> {
    let refuse = |what: &str| Err(Failure::Cluster(Error::Unsupported(what.to_owned())));
    if params.shard {
        return refuse("adding with shard=true is not supported: leave it out, the content is stored whole");
    }
    if params.no_copy {
        return refuse("adding with nocopy=true is not supported: leave it out, the content is copied");
    }
    let cid_version = match params.cid_version {
        0 => Version::V0,
        1 => Version::V1,
        other => {
            return Err(Failure::Input(format!(
                "parameter cid-version invalid: {other} is not 0 or 1"
            )));
        }
    };
    let hash = params.hash.parse()?;
    let plain = cid_version == Version::V0 && params.hash == "sha2-256";
    Ok(AddOptions {
        cid_version: Some(if plain { cid_version } else { Version::V1 }),
        raw_leaves: Some(params.raw_leaves),
        chunker: params.chunker.parse()?,
        hash,
        layout: match params.layout {
            AddLayout::Balanced => Layout::Balanced,
            AddLayout::Trickle => Layout::Trickle,
        },
        wrap: params.wrap && params.format == AddFormat::Unixfs,
        ..AddOptions::default()
    })
}

impl Adding {
    /// Adds a file at a path; an empty path takes the CID as its name. `progress` is told the bytes read.
    pub async fn file(
        &mut self,
        path: &str,
        content: impl AsyncRead + Send + Unpin,
        progress: impl FnMut(u64) + Send,
    ) -> Result<AddedOutput, Failure> {
        match self
            .adder
            .file(path, Metadata::default(), content, progress)
            .await
        {
            Ok(added) => Ok(self.output(added)),
            Err(error) => Err(self.why(error).await),
        }
    }

    /// Adds a directory, which may stay empty.
    pub fn directory(&mut self, path: &str) -> Result<(), Failure> {
        Ok(self.adder.directory(path, Metadata::default())?)
    }

    /// Adds a symbolic link.
    pub async fn symlink(&mut self, path: &str, target: &str) -> Result<AddedOutput, Failure> {
        match self.adder.symlink(path, Metadata::default(), target).await {
            Ok(added) => Ok(self.output(added)),
            Err(error) => Err(self.why(error).await),
        }
    }

    /// Takes in the blocks of a CAR file, which must have exactly one root. `name` is what its line says.
    pub async fn car(&mut self, name: &str, content: impl AsyncRead + Send + Unpin) -> Result<(), Failure> {
        match car::read(content, &self.blocks).await {
            Ok((root, size)) => {
                let name = if name.is_empty() {
                    root.to_string()
                } else {
                    name.to_owned()
                };
                self.car_roots.push(Added {
                    name,
                    cid: root,
                    bytes: 0,
                    size,
                });
                Ok(())
            }
            Err(car::Error::Closed) => Err(self.why(cluster_ipfs::Error::Closed).await),
            Err(car::Error::Invalid(why)) => Err(Failure::Input(why)),
        }
    }

    /// Builds the directories, waits until enough peers have all blocks, and pins what was added. Returns
    /// the lines that remain to be told: those of the directories, or of the CAR's root.
    pub async fn finish(self) -> Result<Vec<AddedOutput>, Failure> {
        let Self {
            cluster,
            mut pin,
            no_pin,
            adder,
            blocks,
            complete,
            mut spread,
            allocations,
            car_roots,
            ..
        } = self;
        let finished = adder.finish().await;
        drop(blocks);
        let finished = match finished {
            Ok(finished) => finished,
            // Only the spreading ends the channel early, and then it says why.
            Err(cluster_ipfs::Error::Closed) => return Err(ended(&mut spread.0).await),
            Err(error) => return Err(error.into()),
        };
        let (roots, lines) = if car_roots.is_empty() {
            (finished.roots, finished.directories)
        } else {
            (car_roots.clone(), car_roots)
        };
        if roots.is_empty() {
            return Err(Failure::Input(
                "nothing to add: the request has no file".to_owned(),
            ));
        }
        let _ = complete.send(());
        let holders = (&mut spread.0).await.map_err(|_| Error::Closed)??;
        if !no_pin {
            // Peers that got everything come first.
            pin.user_allocations.sort_by_key(|peer| !holders.contains(peer));
            for root in &roots {
                let cid = convert::core_cid(&root.cid)?;
                pin_root(&cluster, cid, pin.clone()).await?;
            }
        }
        Ok(lines
            .into_iter()
            .map(|added| output(added, &allocations))
            .collect())
    }

    fn output(&self, added: Added) -> AddedOutput {
        output(added, &self.allocations)
    }

    /// Why the adder could not go on: when nobody takes its blocks, that is what is wrong.
    async fn why(&mut self, error: cluster_ipfs::Error) -> Failure {
        if matches!(error, cluster_ipfs::Error::Closed) {
            return ended(&mut self.spread.0).await;
        }
        error.into()
    }
}

async fn pin_root(cluster: &Cluster, cid: Cid, options: PinOptions) -> Result<(), Failure> {
    cluster.request_pin(Request::Pin { cid, options }).await?;
    Ok(())
}

async fn ended(spread: &mut JoinHandle<Result<Vec<PeerId>, Error>>) -> Failure {
    match spread.await {
        Ok(Err(error)) => error.into(),
        Ok(Ok(_)) | Err(_) => Error::Closed.into(),
    }
}

fn output(added: Added, allocations: &[String]) -> AddedOutput {
    AddedOutput {
        name: added.name,
        cid: added.cid.to_string(),
        bytes: 0,
        size: added.size,
        allocations: allocations.to_vec(),
    }
}
