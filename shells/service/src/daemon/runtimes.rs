//! Threads of a peer: consensus, the embedded IPFS node and the clients have separate runtimes, so that
//! load on one of them does not block the others.
//!
//! - The core runs on a thread of [`crate::driver::Driver`].
//! - The network of the cluster, on which heartbeats travel, runs on [`Runtimes::consensus`].
//! - The embedded node's network and its HTTP API run on [`Runtimes::node`]: their load is decided by
//!   strangers.
//! - Everything else, the REST API and the proxy among it, runs on the runtime that started the peer.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// Threads for the cluster's network. One would do for its messages; with two, the encryption of a snapshot
/// delays no heartbeat.
const CONSENSUS_THREADS: usize = 2;

/// A runtime that ends without waiting for its tasks when dropped, which is allowed in a task.
#[derive(Debug)]
struct Threads {
    runtime: Option<Runtime>,
    handle: Handle,
}

/// The runtimes of a peer. Their tasks end when this is dropped.
#[derive(Debug)]
pub(super) struct Runtimes {
    consensus: Threads,
    node: Threads,
}

impl Threads {
    fn start(builder: &mut Builder, name: &str) -> io::Result<Self> {
        let runtime = builder.thread_name(name).enable_all().build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Runtimes {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system allows no more threads.
    pub(super) fn start() -> io::Result<Self> {
        let mut consensus = Builder::new_multi_thread();
        consensus.worker_threads(CONSENSUS_THREADS);
        Ok(Self {
            consensus: Threads::start(&mut consensus, "consensus")?,
            node: Threads::start(&mut Builder::new_multi_thread(), "ipfs")?,
        })
    }

    pub(super) fn consensus(&self) -> &Handle {
        &self.consensus.handle
    }

    pub(super) fn node(&self) -> &Handle {
        &self.node.handle
    }
}
