//! The runtime of the embedded IPFS node: its network and its HTTP API run on threads of their own, because
//! strangers decide their load, which must delay no heartbeat.
//!
//! The cluster's network, the REST API and the proxy share the runtime that started the peer. With a third
//! runtime, each block of an upload and each proposal crossed threads more often: 13 % more CPU time per pin,
//! 17 % more per added file. The core runs on a thread of [`crate::driver::Driver`].

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// A runtime that ends without waiting for its tasks when dropped, which is allowed in a task.
#[derive(Debug)]
pub(super) struct NodeRuntime {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl NodeRuntime {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system allows no more threads.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .thread_name("ipfs")
            .enable_all()
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for NodeRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
