//! Uploads: turns files into blocks, streams the blocks to the peers that will hold them, then pins the
//! root.

mod car;
mod gc_hold;
mod transfers;

use cid::Version;
use cluster_api::{AddFormat, AddLayout, AddParams, AddedOutput};
use cluster_core::{Cid, PeerId, PinOptions, Replicas, Reply, Request, bytes_key};
use cluster_ipfs::Block;
use cluster_ipfs::unixfs::{AddOptions, Added, Adder, HashKind, Layout, Metadata, Name};
use tokio::io::AsyncRead;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinHandle;

pub(super) use self::gc_hold::GcHold;
use self::transfers::Transfers;
use super::quota::{Budget, Metered};
use super::{Cluster, Error, convert, now};

/// Capacity of the channel of blocks to send: at most 32 MiB, usually 4.
const BLOCKS_WAITING: usize = 16;

/// Capacity of the channel of output lines about directories.
const LINES_WAITING: usize = 16;

/// Error of an upload, after which nothing is pinned. The text is for the client.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The upload or its parameters are invalid.
    #[error("{0}")]
    Input(String),
    /// The cluster failed to store or pin it.
    #[error(transparent)]
    Cluster(#[from] Error),
}

impl From<cluster_ipfs::Error> for Failure {
    fn from(error: cluster_ipfs::Error) -> Self {
        Self::Input(error.to_string())
    }
}

/// A running upload. Dropping it cancels the upload: nothing is pinned, and the peers discard it.
#[derive(Debug)]
pub struct Upload {
    cluster: Cluster,
    pin: PinOptions,
    no_pin: bool,
    adder: Adder,
    blocks: mpsc::Sender<Block>,
    complete: oneshot::Sender<()>,
    transfers: AbortOnDrop<Result<Vec<PeerId>, Error>>,
    allocations: Vec<String>,
    car_roots: Vec<Added>,
    no_copy: bool,
    /// Bytes that the upload may bring; `None` for any number.
    budget: Option<Budget>,
    _permit: OwnedSemaphorePermit,
}

/// A task that is aborted on drop.
#[derive(Debug)]
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Cluster {
    /// Starts an upload: allocates it to peers and connects to them.
    ///
    /// # Errors
    /// The parameters are invalid or unsupported, too many uploads are running, or no peers can be
    /// allocated.
    pub async fn add(&self, params: &AddParams) -> Result<Upload, Failure> {
        let options = add_options(params)?;
        let pin = convert::options(&params.pin, self.inner.config.default_replicas, now())?;
        let busy = |_| Error::Refused(cluster_core::Refusal::Busy);
        let permit = self.inner.uploads.clone().try_acquire_owned().map_err(busy)?;
        // Content that is not pinned is not counted later.
        let budget = self.budget(&[]).await?;
        let (allocated, needed) = self.destinations(&pin, params.local).await?;
        let me = self.inner.config.peer.clone();
        let to = if params.local { vec![me] } else { allocated.clone() };
        let (blocks, incoming) = mpsc::channel(BLOCKS_WAITING);
        let (complete, completed) = oneshot::channel();
        let adder = Adder::new(options, blocks.clone())?;
        let is_verified = params.format == AddFormat::Unixfs;
        let transfers = Transfers::start(self, to, if params.local { 1 } else { needed }, is_verified);
        let transfers = AbortOnDrop(tokio::spawn(transfers.run(incoming, completed)));
        let mut pin = pin;
        if pin.user_allocations.is_empty() && pin.replicas != Replicas::Everywhere {
            // The pin is allocated to the peers that get the blocks.
            pin.user_allocations.clone_from(&allocated);
        }
        Ok(Upload {
            cluster: self.clone(),
            pin,
            no_pin: params.no_pin,
            adder,
            blocks,
            complete,
            transfers,
            allocations: allocated.iter().map(PeerId::to_string).collect(),
            car_roots: Vec::new(),
            no_copy: params.no_copy,
            budget,
            _permit: permit,
        })
    }

    /// Returns the peers to send the blocks to, and how many of them must store all blocks before the root
    /// is pinned.
    async fn destinations(&self, pin: &PinOptions, local: bool) -> Result<(Vec<PeerId>, usize), Error> {
        let me = &self.inner.config.peer;
        let request = Request::Allocate {
            cid: Some(random_cid()?),
            // Blocks that are stored here need not be sent.
            near: Some(me.clone()),
            options: pin.clone(),
        };
        let Reply::Allocated(mut allocated) = self.request(request).await? else {
            return Err(Error::Closed);
        };
        match pin.replicas {
            Replicas::Everywhere => {
                // Peers that are away now fetch the content from the others later.
                let members = self.members().await?;
                let connected = self.inner.net.connected();
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

/// Returns a random CID in place of the unknown one, so that uploads are spread among the other peers.
fn random_cid() -> Result<Cid, Error> {
    const RAW: u64 = 0x55;
    const IDENTITY: u64 = 0;
    let hash = cid::multihash::Multihash::wrap(IDENTITY, &rand::random::<[u8; 16]>());
    let hash = hash.map_err(|error| Error::Invalid(error.to_string()))?;
    convert::core_cid(&cluster_ipfs::Cid::new_v1(RAW, hash))
}

/// Translates the parameters to options of the adder.
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
        // Like the Go peer, stores the content of URLs, with the raw leaves that references to it would
        // have.
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

impl Upload {
    /// Adds a file at `path`; an empty path becomes the CID. `progress` is called with the bytes read.
    ///
    /// # Errors
    /// The file cannot be read or stored.
    pub async fn file(
        &mut self,
        path: &[u8],
        content: impl AsyncRead + Send + Unpin,
        progress: impl FnMut(u64) + Send,
    ) -> Result<AddedOutput, Failure> {
        let content = self.metered(content);
        match self
            .adder
            .file(path, Metadata::default(), content, progress)
            .await
        {
            Ok(added) => Ok(self.output(added)),
            Err(error) => Err(self.failure(error).await),
        }
    }

    /// Adds a directory, which may stay empty.
    ///
    /// # Errors
    /// The path is invalid.
    pub fn directory(&mut self, path: &[u8]) -> Result<(), Failure> {
        Ok(self.adder.directory(path, Metadata::default())?)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// The path is invalid, or the link cannot be stored.
    pub async fn symlink(&mut self, path: &[u8], target: &[u8]) -> Result<AddedOutput, Failure> {
        match self.adder.symlink(path, Metadata::default(), target).await {
            Ok(added) => Ok(self.output(added)),
            Err(error) => Err(self.failure(error).await),
        }
    }

    /// Adds the blocks of a CAR file. Its output line has the name `file`, or else that of the pin, or else
    /// the CID.
    ///
    /// # Errors
    /// The CAR file is invalid or has not exactly one root, or the blocks cannot be stored.
    pub async fn car(&mut self, file: &[u8], content: impl AsyncRead + Send + Unpin) -> Result<(), Failure> {
        match car::read(self.metered(content), &self.blocks).await {
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
            Err(car::Error::Closed) => Err(self.failure(cluster_ipfs::Error::Closed).await),
            Err(car::Error::Invalid(why)) => Err(self.over_budget().unwrap_or(Failure::Input(why))),
        }
    }

    /// Checks the source of a file that is added with `nocopy`.
    ///
    /// # Errors
    /// The source is not a URL.
    pub fn check_source(&self, source: Option<&[u8]>) -> Result<(), Failure> {
        let is_url = source.is_some_and(|source| source.starts_with(b"http"));
        if self.no_copy && !is_url {
            return Err(Failure::Input("nocopy option is only valid for URLs".to_owned()));
        }
        Ok(())
    }

    /// Prepares for a part at `path`; call it before each part (see [`Adder::make_room`]). The output lines
    /// of directories that are complete go to `lines`.
    ///
    /// # Errors
    /// The path is invalid, or a directory cannot be stored.
    pub async fn make_room(&mut self, path: &[u8], lines: mpsc::Sender<AddedOutput>) -> Result<(), Failure> {
        let (built, directories) = mpsc::channel(LINES_WAITING);
        let allocations = self.allocations.clone();
        let (made, last) = tokio::join!(
            self.adder.make_room(path, built),
            forward_directories(directories, &lines, &allocations)
        );
        if let Err(error) = made {
            return Err(self.failure(error).await);
        }
        if let Some(last) = last {
            let _ = lines.send(last).await;
        }
        Ok(())
    }

    /// Completes the upload: builds the directories, waits until enough peers have all blocks, and pins the
    /// roots. The remaining output lines, of directories and of the CAR's root, go to `lines`, the last one
    /// after all is pinned.
    ///
    /// # Errors
    /// Nothing was added, too few peers stored the blocks, or the root cannot be pinned.
    pub async fn finish(self, lines: mpsc::Sender<AddedOutput>) -> Result<(), Failure> {
        let Self {
            cluster,
            mut pin,
            no_pin,
            adder,
            blocks,
            complete,
            mut transfers,
            allocations,
            car_roots,
            ..
        } = self;
        let (built, directories) = mpsc::channel(LINES_WAITING);
        let (finished, last) = tokio::join!(
            adder.finish(built),
            forward_directories(directories, &lines, &allocations)
        );
        drop(blocks);
        let roots = match finished {
            Ok(roots) => roots,
            // The channel is closed early only by [`Transfers::run`], which returns the reason.
            Err(cluster_ipfs::Error::Closed) => return Err(transfer_error(&mut transfers.0).await),
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
        let holders = (&mut transfers.0).await.map_err(|_| Error::Closed)??;
        if !no_pin {
            // Prefers peers that have all blocks.
            pin.user_allocations.sort_by_key(|peer| !holders.contains(peer));
            pin_roots(&cluster, &roots, &pin).await?;
        }
        let cars = car_roots.into_iter().map(|added| AddedOutput {
            bytes: added.bytes,
            ..output(added, &allocations)
        });
        for line in last.into_iter().chain(cars) {
            let _ = lines.send(line).await;
        }
        Ok(())
    }

    fn output(&self, added: Added) -> AddedOutput {
        output(added, &self.allocations)
    }

    /// Returns the error of a failed addition: that of [`Transfers::run`] if it has closed the channel of
    /// blocks.
    async fn failure(&mut self, error: cluster_ipfs::Error) -> Failure {
        if matches!(error, cluster_ipfs::Error::Closed) {
            return transfer_error(&mut self.transfers.0).await;
        }
        self.over_budget().unwrap_or(error.into())
    }

    fn metered<R>(&self, content: R) -> Metered<R> {
        let budget = self.budget.clone();
        Metered { content, budget }
    }

    /// Returns the error of an upload that has exceeded its budget.
    fn over_budget(&self) -> Option<Failure> {
        let budget = self.budget.as_ref().filter(|budget| budget.is_exceeded());
        budget.map(|budget| budget.exceeded().into())
    }
}

/// Forwards the output lines of directories as they are built, except the last, which is returned. If `lines`
/// is closed, the rest is dropped: the handler of the upload detects that.
async fn forward_directories(
    mut directories: mpsc::Receiver<Added>,
    lines: &mpsc::Sender<AddedOutput>,
    allocations: &[String],
) -> Option<AddedOutput> {
    let mut last: Option<AddedOutput> = None;
    while let Some(added) = directories.recv().await {
        if let Some(line) = last.replace(output(added, allocations)) {
            let _ = lines.send(line).await;
        }
    }
    last
}

/// Pins the roots of an upload, for an owner with their sizes.
async fn pin_roots(cluster: &Cluster, roots: &[Added], pin: &PinOptions) -> Result<(), Failure> {
    let sized = roots
        .iter()
        .map(|root| Ok((convert::core_cid(&root.cid)?, root.size)));
    let sized: Vec<(Cid, u64)> = sized.collect::<Result<_, Error>>()?;
    let cids: Vec<&Cid> = sized.iter().map(|(cid, _)| cid).collect();
    let _turn = cluster.turn_to_pin(&cids).await?;
    cluster.check_bytes(&sized).await?;
    for (cid, size) in sized {
        let (owner, mut options) = (cluster.new_owner(), pin.clone());
        if let Some(owner) = &owner {
            options.metadata.insert(bytes_key(owner), size.to_string());
        }
        cluster.request_pin(Request::Pin { cid, options, owner }).await?;
    }
    Ok(())
}

async fn transfer_error(transfers: &mut JoinHandle<Result<Vec<PeerId>, Error>>) -> Failure {
    match transfers.await {
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
