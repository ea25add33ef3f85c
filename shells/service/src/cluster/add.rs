//! Adding content: files become blocks once, here; the blocks go to every peer that will hold them while
//! they are made; then the root is pinned.

mod car;
mod keep;
mod spread;

use cid::Version;
use cluster_api::{AddFormat, AddLayout, AddParams, AddedOutput};
use cluster_core::{Cid, PeerId, PinOptions, Replicas, Reply, Request};
use cluster_ipfs::Block;
use cluster_ipfs::unixfs::{AddOptions, Added, Adder, HashKind, Layout, Metadata, Name};
use tokio::io::AsyncRead;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinHandle;

pub(super) use self::keep::Keep;
use self::spread::Spread;
use super::{Cluster, Error, convert, now};

/// Blocks that wait to be spread: at most 32 MiB, usually 4.
const BLOCKS_WAITING: usize = 16;

/// Lines of directories that wait to be told.
const LINES_WAITING: usize = 16;

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
    no_copy: bool,
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
            no_copy: params.no_copy,
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
    let cid_version = match params.cid_version {
        0 => Version::V0,
        1 => Version::V1,
        other => {
            return Err(Failure::Input(format!(
                "parameter cid-version invalid: {other} is not 0 or 1"
            )));
        }
    };
    let hash: HashKind = params.hash.parse()?;
    let plain = cid_version == Version::V0 && hash == HashKind::SHA2_256;
    Ok(AddOptions {
        cid_version: Some(if plain { cid_version } else { Version::V1 }),
        // As with the Go peer, the content of URLs is stored, in the form that refers to them.
        raw_leaves: Some(params.raw_leaves || params.no_copy),
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
        path: &[u8],
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
    pub fn directory(&mut self, path: &[u8]) -> Result<(), Failure> {
        Ok(self.adder.directory(path, Metadata::default())?)
    }

    /// Adds a symbolic link.
    pub async fn symlink(&mut self, path: &[u8], target: &[u8]) -> Result<AddedOutput, Failure> {
        match self.adder.symlink(path, Metadata::default(), target).await {
            Ok(added) => Ok(self.output(added)),
            Err(error) => Err(self.why(error).await),
        }
    }

    /// Takes in the blocks of a CAR file, which must have exactly one root. `file` is its name, which its
    /// line
    /// has; without one, that of the pin, or the CID.
    pub async fn car(&mut self, file: &[u8], content: impl AsyncRead + Send + Unpin) -> Result<(), Failure> {
        match car::read(content, &self.blocks).await {
            Ok((root, size)) => {
                let name = match (file.is_empty(), self.pin.name.is_empty()) {
                    (false, _) => Name::from(file),
                    (true, false) => Name::from(self.pin.name.as_str()),
                    (true, true) => Name::from(root.to_string()),
                };
                self.car_roots.push(Added {
                    name,
                    cid: root,
                    bytes: size,
                    size,
                });
                Ok(())
            }
            Err(car::Error::Closed) => Err(self.why(cluster_ipfs::Error::Closed).await),
            Err(car::Error::Invalid(why)) => Err(Failure::Input(why)),
        }
    }

    /// Refuses a file that is not content of a URL, where the caller says that it is.
    pub fn check_source(&self, source: Option<&[u8]>) -> Result<(), Failure> {
        let is_url = source.is_some_and(|source| source.starts_with(b"http"));
        if self.no_copy && !is_url {
            return Err(Failure::Input("nocopy option is only valid for URLs".to_owned()));
        }
        Ok(())
    }

    /// To be called before each part, whose path is given: see [`Adder::make_room`]. `told` gets the lines of
    /// directories that are built.
    pub async fn make_room(&mut self, path: &[u8], told: mpsc::Sender<AddedOutput>) -> Result<(), Failure> {
        let (built, directories) = mpsc::channel(LINES_WAITING);
        let allocations = self.allocations.clone();
        let (made, last) = tokio::join!(
            self.adder.make_room(path, built),
            tell(directories, &told, &allocations)
        );
        if let Err(error) = made {
            return Err(self.why(error).await);
        }
        if let Some(last) = last {
            let _ = told.send(last).await;
        }
        Ok(())
    }

    /// Builds the directories, waits until enough peers have all blocks, and pins what was added. `told` gets
    /// the lines that remain: those of the directories, or of the CAR's root. The last comes when all is
    /// pinned.
    pub async fn finish(self, told: mpsc::Sender<AddedOutput>) -> Result<(), Failure> {
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
        let (built, directories) = mpsc::channel(LINES_WAITING);
        let (finished, last) = tokio::join!(adder.finish(built), tell(directories, &told, &allocations));
        drop(blocks);
        let roots = match finished {
            Ok(roots) => roots,
            // Only the spreading ends the channel early, and then it says why.
            Err(cluster_ipfs::Error::Closed) => return Err(ended(&mut spread.0).await),
            Err(error) => return Err(error.into()),
        };
        let roots = if car_roots.is_empty() {
            roots
        } else {
            car_roots.clone()
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
        let cars = car_roots.into_iter().map(|added| AddedOutput {
            bytes: added.bytes,
            ..output(added, &allocations)
        });
        for line in last.into_iter().chain(cars) {
            let _ = told.send(line).await;
        }
        Ok(())
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

/// Passes on the lines of directories while they are built, but for the last, which is returned. When nobody
/// wants them any more, the rest is dropped: whoever runs the upload notices.
async fn tell(
    mut directories: mpsc::Receiver<Added>,
    told: &mpsc::Sender<AddedOutput>,
    allocations: &[String],
) -> Option<AddedOutput> {
    let mut last: Option<AddedOutput> = None;
    while let Some(added) = directories.recv().await {
        if let Some(line) = last.replace(output(added, allocations)) {
            let _ = told.send(line).await;
        }
    }
    last
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
        name: added.name.to_string(),
        cid: added.cid.to_string(),
        bytes: 0,
        size: added.size,
        allocations: allocations.to_vec(),
    }
}
