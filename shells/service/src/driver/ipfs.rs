//! Operations at the IPFS node. Each runs as a task until it ends or is cancelled, and reports exactly
//! once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cluster_core::{Event, IpfsAction, IpfsError, Mode, OpId};
use cluster_ipfs::backend::{Cause, PinRequest};
use cluster_ipfs::{Backend, Cid, PinMode};
use tokio::sync::oneshot;

use super::Handle;
use super::compare::Comparison;
use super::failure_log::FailureLog;
use super::move_pace::MovePace;
use crate::metrics::{ipfs_operation, metrics};
use crate::store::Reader;
use crate::trace;

/// The running operations.
pub(super) struct Operations {
    backend: Backend,
    failures: FailureLog,
    handle: Handle,
    runtime: tokio::runtime::Handle,
    pace: MovePace,
    running: Arc<Mutex<BTreeMap<OpId, oneshot::Sender<()>>>>,
}

impl Operations {
    pub(super) fn new(backend: Backend, handle: Handle, runtime: tokio::runtime::Handle) -> Self {
        Self {
            failures: FailureLog::new(&backend),
            pace: MovePace::new(matches!(backend, Backend::Embedded(_))),
            backend,
            handle,
            runtime,
            running: Arc::default(),
        }
    }

    pub(super) fn start(&self, op: OpId, action: IpfsAction) {
        let (backend, handle) = (self.backend.clone(), self.handle.clone());
        let (failures, pace) = (self.failures.clone(), self.pace.clone());
        let work = async move {
            let (doing, cid) = match &action {
                IpfsAction::Pin { cid, .. } => ("pinning", cid.clone()),
                IpfsAction::Unpin { cid } => ("unpinning", cid.clone()),
            };
            let outcome = if matches!(action, IpfsAction::Pin { is_move: true, .. }) {
                let moving = Box::pin(perform(&backend, &handle, op, action, Some(&pace)));
                Box::pin(pace.run(&handle, op, moving)).await
            } else {
                perform(&backend, &handle, op, action, None).await
            };
            if let Err(IpfsError::Failed(why) | IpfsError::Full(why)) = &outcome {
                failures.report(&format!("{doing} {cid}"), why);
            }
            outcome
        };
        self.spawn(op, work, move |outcome| Event::IpfsFinished { op, outcome });
    }

    /// Starts a comparison of the local states that count as pinned, of one CID or of all, with the node's
    /// pins.
    pub(super) fn compare(&self, op: OpId, only: Option<cluster_core::Cid>, reader: Reader) {
        let comparison = Comparison {
            backend: self.backend.clone(),
            reader,
            handle: self.handle.clone(),
            op,
        };
        let work = async move { comparison.run(only).await };
        self.spawn(op, work, move |outcome| Event::IpfsCompared { op, outcome });
    }

    fn spawn(
        &self,
        op: OpId,
        work: impl Future<Output = Result<(), IpfsError>> + Send + 'static,
        report: impl FnOnce(Result<(), IpfsError>) -> Event + Send + 'static,
    ) {
        let (cancel, cancelled) = oneshot::channel();
        lock(&self.running).insert(op, cancel);
        let (handle, running) = (self.handle.clone(), self.running.clone());
        self.runtime.spawn(async move {
            let outcome = tokio::select! {
                outcome = work => outcome,
                Ok(()) = cancelled => Err(IpfsError::Cancelled),
            };
            lock(&running).remove(&op);
            handle.event(report(outcome));
        });
    }

    pub(super) fn cancel(&self, op: OpId) {
        if let Some(cancel) = lock(&self.running).remove(&op) {
            // It may be ending at this moment.
            let _ = cancel.send(());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this lock")
}

/// Carries out an operation. The bytes that a pin fetches count against `pace`.
async fn perform(
    backend: &Backend,
    handle: &Handle,
    op: OpId,
    action: IpfsAction,
    pace: Option<&MovePace>,
) -> Result<(), IpfsError> {
    let failed = |error: &dyn std::fmt::Display| IpfsError::Failed(error.to_string());
    let parse = |cid: &cluster_core::Cid| Cid::try_from(cid.as_bytes()).map_err(|error| failed(&error));
    match action {
        IpfsAction::Pin {
            cid,
            mode,
            name,
            origins,
            update_from,
            is_move: _,
        } => {
            let request = PinRequest {
                cid: parse(&cid)?,
                mode: match mode {
                    Mode::Direct => PinMode::Direct,
                    Mode::Recursive => PinMode::Recursive,
                },
                name,
                origins: origins.iter().filter_map(|origin| origin.parse().ok()).collect(),
                update_from: update_from.as_ref().map(parse).transpose()?,
            };
            let transfer = handle.transfers.begin(cid.clone(), handle.clock);
            let meter = pace.map(MovePace::meter);
            let progress = |progress| {
                if let Some(meter) = &meter {
                    meter.progressed(progress);
                }
                if transfer.progressed(progress) {
                    handle.event(Event::IpfsProgressed { op });
                }
            };
            metrics().pins_pin_add.inc();
            let pinning = Box::pin(backend.pin(&request, &progress));
            let pinned = ipfs_operation("pin", trace::ipfs_operation("ipfs.pin", &cid, pinning)).await;
            pinned.map_err(|error| {
                metrics().pins_pin_add_errors.inc();
                if error.cause() == Cause::StorageFull {
                    return IpfsError::Full(error.to_string());
                }
                failed(&error)
            })
        }
        IpfsAction::Unpin { cid } => {
            let parsed = parse(&cid)?;
            let unpinning = Box::pin(backend.unpin(&parsed));
            let unpinned =
                ipfs_operation("unpin", trace::ipfs_operation("ipfs.unpin", &cid, unpinning)).await;
            unpinned.map_err(|error| failed(&error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the size of the future that an async function with four parameters returns.
    fn future_size<A, B, C, D, F: Future>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn future_of_an_operation_is_small() {
        async fn operation(backend: Backend, handle: Handle, op: OpId, action: IpfsAction) {
            let _ = perform(&backend, &handle, op, action, None).await;
        }
        // Each pin spawns one, and a large one costs more to move than the pin's other work.
        let size = future_size(operation);
        assert!(size <= 2048, "{size} bytes");
    }
}
