//! Reading blocks from the local store or from other peers, and streams of results.

use crate::Cid;
use crate::Error;
use crate::request_budget::RequestBudget;
use crate::retrieval::Session;
use crate::store::{IDENTITY, Store};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{BoxStream, unfold};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// Records read from the database at once by [`stream_in_batches`].
const BATCH: usize = 512;
/// Values that a producer may be ahead of its consumer.
const AHEAD: usize = 4;

/// Limit on waiting for a peer's copy of a block that is damaged locally. The repair continues after it.
const REPLACE_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads blocks from the local store, then, with a session, from other peers.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) store: Store,
    pub(crate) session: Option<Arc<Session>>,
    /// Memory budget of the request.
    pub(crate) budget: RequestBudget,
}

impl Reader {
    pub(crate) async fn get(&self, cid: Cid) -> Result<Bytes, Error> {
        let local = if cid.hash().code() == IDENTITY {
            self.store.get(&cid)?
        } else if let Some(data) = self.store.get_hot(&cid) {
            Some(data)
        } else {
            let store = self.store.clone();
            match (blocking(move || store.get_noted(&cid)).await, &self.session) {
                (Err(damaged @ Error::DamagedBlock { .. }), Some(session)) => {
                    // The content was promised to be stored here: report an error rather than wait
                    // indefinitely.
                    return match timeout(REPLACE_TIMEOUT, session.get(cid)).await {
                        Ok(replaced) => replaced,
                        Err(_) => Err(damaged),
                    };
                }
                (local, _) => local?,
            }
        };
        match (local, &self.session) {
            (Some(data), _) => Ok(data),
            (None, Some(session)) => session.get(cid).await,
            (None, None) => Err(Error::NotFound(cid)),
        }
    }
}

/// Runs work that reads the disk or computes for long, off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    // The only failures are a panic, already reported, and the end of the runtime.
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::Closed)?
}

/// Returns a stream of the values that a task sends; dropping the stream ends the task.
pub(crate) fn stream_from_task<T, F>(
    task: impl FnOnce(StreamSender<T>) -> F,
) -> BoxStream<'static, Result<T, Error>>
where
    T: Send + 'static,
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(AHEAD);
    let running = task(StreamSender(sender.clone()));
    let handle = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = running.await {
            // If the receiver is gone, the error is dropped.
            let _ = sender.send(Err(error)).await;
        }
    }));
    unfold((receiver, handle), |(mut receiver, handle)| async move {
        receiver.recv().await.map(|item| (item, (receiver, handle)))
    })
    .boxed()
}

/// Sending half of a stream made by [`stream_from_task`].
#[derive(Debug)]
pub(crate) struct StreamSender<T>(mpsc::Sender<Result<T, Error>>);

impl<T> StreamSender<T> {
    pub(crate) async fn send(&self, value: T) -> Result<(), Error> {
        self.0.send(Ok(value)).await.map_err(|_| Error::Closed)
    }

    /// Sends from a task that runs on its own thread.
    pub(crate) fn blocking_send(&self, value: T) -> Result<(), Error> {
        self.0.blocking_send(Ok(value)).map_err(|_| Error::Closed)
    }
}

/// Returns a stream of a listing of the database, read in batches off the async threads.
pub(crate) fn stream_in_batches<T, I>(listing: Result<I, Error>) -> BoxStream<'static, Result<T, Error>>
where
    T: Send + 'static,
    I: Iterator<Item = Result<T, Error>> + Send + 'static,
{
    let batches = unfold(Some(listing), |listing| async {
        let read = blocking(move || {
            let mut listing = match listing {
                None => return Ok(None),
                Some(listing) => listing?,
            };
            let batch: Vec<_> = listing.by_ref().take(BATCH).collect();
            let more = batch.len() == BATCH;
            Ok(Some((batch, more.then_some(Ok(listing)))))
        });
        match read.await {
            Ok(next) => next,
            Err(error) => Some((vec![Err(error)], None)),
        }
    });
    batches.flat_map(futures::stream::iter).boxed()
}
