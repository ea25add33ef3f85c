//! Sends the trace contexts of requests to the other peers while tracing is on.
//!
//! Best effort: if a peer refuses a call, or handles it too late, only its spans are lost. Contexts that are
//! ready at the same time share a call.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_core::PeerId;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::task::JoinSet;

use super::{Cluster, Error, rpc};
use crate::trace::{self, RequestContext};

/// Maximum number of contexts in one call.
pub(super) const CONTEXTS_MAX: usize = 256;

/// Maximum number of open calls; the contexts for further ones are dropped.
const CALLS_MAX: usize = 128;

/// Time limit of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for which the list of members is used.
const MEMBERS_AGE: Duration = Duration::from_secs(5);

/// Continues the traces of requests to another peer.
///
/// # Errors
/// There are more than [`CONTEXTS_MAX`].
pub(super) fn continue_traces(contexts: &[RequestContext]) -> Result<(), Error> {
    if contexts.len() > CONTEXTS_MAX {
        let count = contexts.len();
        return Err(Error::Peer(format!(
            "{count} trace contexts, at most {CONTEXTS_MAX} are accepted"
        )));
    }
    trace::remember(contexts);
    Ok(())
}

impl Cluster {
    /// Sends the contexts of requests to this peer to the other members, until this peer ends. Returns at
    /// once while tracing is off.
    pub async fn share_contexts(self) {
        let Some(mut news) = trace::contexts() else {
            return;
        };
        let (mut members, mut known_since) = (BTreeSet::new(), None::<Instant>);
        let mut calls = JoinSet::new();
        loop {
            let first = match news.recv().await {
                Ok(first) => first,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            };
            let mut contexts = vec![first];
            while contexts.len() < CONTEXTS_MAX {
                match news.try_recv() {
                    Ok(context) => contexts.push(context),
                    Err(TryRecvError::Lagged(_)) => {}
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            if known_since.is_none_or(|since| since.elapsed() > MEMBERS_AGE) {
                let Ok(found) = self.members().await else {
                    return;
                };
                members = found
                    .peer_ids()
                    .filter(|peer| *peer != self.peer())
                    .cloned()
                    .collect();
                known_since = Some(Instant::now());
            }
            self.send_contexts(&members, contexts, &mut calls);
        }
    }

    /// Starts a call to each of the members with a connection.
    fn send_contexts(
        &self,
        members: &BTreeSet<PeerId>,
        contexts: Vec<RequestContext>,
        calls: &mut JoinSet<()>,
    ) {
        let call = Arc::new(rpc::Call::Trace { contexts });
        while calls.try_join_next().is_some() {}
        for peer in &self.inner.net.connected() & members {
            if calls.len() == CALLS_MAX {
                return;
            }
            let (net, call) = (self.inner.net.clone(), Arc::clone(&call));
            calls.spawn(async move {
                let sending = async {
                    let mut answer = rpc::call(&net, &peer, &call).await?;
                    rpc::next(&mut answer, &peer, CALL_TIMEOUT).await
                };
                if let Ok(Err(error)) = tokio::time::timeout(CALL_TIMEOUT, sending).await {
                    tracing::debug!(%peer, %error, "a peer did not accept a trace context");
                }
            });
        }
    }
}
