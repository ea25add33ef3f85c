//! Uploads into the node's store.

use super::Node;
use crate::bitswap::Bitswap;
use crate::provider::Provider;
use crate::store::{Lease, Store};
use crate::unixfs::{AddOptions, Added, Adder, Metadata};
use crate::{Block, Error, Pin, PinMode};
use futures::stream::{FuturesUnordered, StreamExt};
use std::sync::Arc;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// Blocks queued between the adder and the store.
const BLOCKS: usize = 64;
/// Blocks written together: 4 MiB at the default chunk size.
const BATCH: usize = 16;
/// Concurrent writes: one is committed while the next is handed over.
const WRITES: usize = 3;

/// An upload into a node: an [`Adder`] whose blocks are stored, and protected from collections until it ends.
#[derive(Debug)]
pub struct Upload {
    adder: Adder,
    storing: AbortOnDropHandle<Result<(), Error>>,
    store: Store,
    provider: Arc<Provider>,
    _lease: Lease,
}

impl Node {
    /// Starts an upload into this node.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::Unsupported`] for invalid options; [`Error::Closed`].
    pub fn add(&self, options: AddOptions) -> Result<Upload, Error> {
        let (blocks, receiver) = mpsc::channel(BLOCKS);
        let adder = Adder::new(options, blocks)?;
        let store = self.inner.store.clone();
        let lease = store.protect().upload();
        let bitswap = self.inner.network.bitswap.clone();
        let storing = AbortOnDropHandle::new(tokio::spawn(store_all(store.clone(), bitswap, receiver)));
        Ok(Upload {
            adder,
            storing,
            store,
            provider: self.inner.provider.clone(),
            _lease: lease,
        })
    }
}

async fn store_all(store: Store, bitswap: Bitswap, mut receiver: mpsc::Receiver<Block>) -> Result<(), Error> {
    let mut writes = FuturesUnordered::new();
    loop {
        let mut blocks = Vec::with_capacity(BATCH);
        tokio::select! {
            received = receiver.recv_many(&mut blocks, BATCH), if writes.len() < WRITES => {
                if received == 0 {
                    break;
                }
                let (store, bitswap) = (&store, &bitswap);
                writes.push(async move {
                    store.put(blocks.clone()).await?;
                    bitswap.deliver_stored(&blocks);
                    Ok::<(), Error>(())
                });
            }
            Some(written) = writes.next() => written?,
        }
    }
    while let Some(written) = writes.next().await {
        written?;
    }
    Ok(())
}

impl Upload {
    /// See [`Adder::file`].
    ///
    /// # Errors
    /// As [`Adder::file`]; the store cannot be written.
    pub async fn file(
        &mut self,
        path: impl AsRef<[u8]>,
        meta: Metadata,
        content: impl AsyncRead + Send + Unpin,
        progress: impl FnMut(u64) + Send,
    ) -> Result<Added, Error> {
        let added = self.adder.file(path, meta, content, progress).await;
        self.explain_closed(added).await
    }

    /// See [`Adder::directory`].
    ///
    /// # Errors
    /// As [`Adder::directory`].
    pub fn directory(&mut self, path: impl AsRef<[u8]>, meta: Metadata) -> Result<(), Error> {
        self.adder.directory(path, meta)
    }

    /// See [`Adder::symlink`].
    ///
    /// # Errors
    /// As [`Adder::symlink`]; the store cannot be written.
    pub async fn symlink(
        &mut self,
        path: impl AsRef<[u8]>,
        meta: Metadata,
        target: impl AsRef<[u8]>,
    ) -> Result<Added, Error> {
        let added = self.adder.symlink(path, meta, target).await;
        self.explain_closed(added).await
    }

    /// See [`Adder::has_top`].
    pub fn has_top(&self, name: &[u8]) -> bool {
        self.adder.has_top(name)
    }

    /// See [`Adder::make_room`].
    ///
    /// # Errors
    /// As [`Adder::make_room`]; the store cannot be written.
    pub async fn make_room(
        &mut self,
        path: impl AsRef<[u8]>,
        built: mpsc::Sender<Added>,
    ) -> Result<(), Error> {
        let made = self.adder.make_room(path, built).await;
        self.explain_closed(made).await
    }

    /// Replaces the adder's [`Error::Closed`], which only says that its blocks are no longer accepted, by the
    /// error of the storing task.
    async fn explain_closed<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        if matches!(result, Err(Error::Closed)) && self.storing.is_finished() {
            (&mut self.storing).await.map_err(|_| Error::Closed)??;
        }
        result
    }

    /// Builds the directories, sending each to `built`, makes everything durable, and pins the roots
    /// recursively with the name `pin` (may be empty) if given. Returns the roots.
    ///
    /// # Errors
    /// As [`Adder::finish`]; the store cannot be written; [`Error::Pinned`] or [`Error::Invalid`] if a root
    /// cannot be pinned.
    pub async fn finish(self, pin: Option<String>, built: mpsc::Sender<Added>) -> Result<Vec<Added>, Error> {
        let Upload {
            adder,
            storing,
            store,
            provider,
            _lease,
        } = self;
        let finished = adder.finish(built).await;
        storing.await.map_err(|_| Error::Closed)??;
        let roots = finished?;
        match pin {
            Some(name) => {
                for root in &roots {
                    let name = name.clone();
                    store
                        .pin(&Pin {
                            cid: root.cid,
                            mode: PinMode::Recursive,
                            name,
                        })
                        .await?;
                    provider.pinned(root.cid);
                }
            }
            None => store.sync().await?,
        }
        Ok(roots)
    }
}
