//! Operations at the IPFS node start in order and when due, are cancelled when they make no progress and not
//! before, and are retried after a pause that doubles. A peer's records and reports of its copies are true.

mod comparisons;
mod records;
mod starts;

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_core::{
    Cid, Effect, Event, Instant, IpfsAction, Local, Message, Mode, OpId, Phase, StoreOp, Timestamp,
};

use self::comparisons::Comparison;
use super::received::Heard;
use super::{Findings, Step};
use crate::model::Model;
use crate::options::Options;
use crate::store::Store;

/// One operation of a process.
#[derive(Debug, Clone)]
struct Operation {
    cid: Cid,
    pin: Option<Mode>,
    moved: Instant,
    attempts: u32,
    cancelled: bool,
}

/// One process.
#[derive(Debug, Clone, Default)]
struct Process {
    running: BTreeMap<OpId, Operation>,
    /// Recorded failed attempts, their phase, and its time.
    attempts: BTreeMap<Cid, (u32, Phase, Timestamp)>,
    /// Failures that a client has asked to retry, and the number of timeouts within which they must be
    /// retried.
    recovering: Option<(BTreeMap<Cid, Local>, usize)>,
    comparing: BTreeMap<OpId, Comparison>,
    /// End of the pause after the last comparison of everything.
    rests: Option<Instant>,
    /// Start of the last periodic comparison of everything.
    began: Option<Instant>,
    applied: u64,
}

/// All processes, and their settings.
#[derive(Debug)]
pub(super) struct Operations {
    processes: Vec<Process>,
    pin_timeout: Duration,
    unpin_timeout: Duration,
    retry: [Duration; 2],
    compare: Duration,
    concurrent: usize,
    /// Number of local states that the core examines in one step.
    chunk: usize,
    forgets: bool,
}

impl Operations {
    pub(super) fn new(options: &Options, size: usize) -> Self {
        let millis = Duration::from_millis;
        Self {
            processes: vec![Process::default(); size],
            pin_timeout: millis(options.pin_timeout_ms),
            unpin_timeout: millis(options.pin_timeout_ms * 2),
            retry: [millis(options.retry_min_ms), millis(options.retry_max_ms)],
            compare: millis(options.compare_ms),
            concurrent: usize::try_from(options.concurrent_pins.max(1)).expect("a small number"),
            chunk: usize::try_from(256 / options.shrink.max(1))
                .expect("a small number")
                .max(2),
            forgets: options.loses_pins(),
        }
    }

    pub(super) fn booted(&mut self, me: usize, store: &Store) {
        let attempts = store
            .locals
            .iter()
            .map(|(cid, local)| (cid.clone(), (local.attempts, local.phase, local.since)));
        self.processes[me] = Process {
            attempts: attempts.collect(),
            applied: store.applied.index,
            ..Process::default()
        };
    }

    pub(super) fn after_step(
        &mut self,
        step: &Step<'_>,
        heard: &Heard,
        model: &Model,
        found: &mut Findings<'_>,
    ) {
        let mut process = std::mem::take(&mut self.processes[step.me]);
        let full = process.running.len() >= self.concurrent;
        for event in step.events {
            process.after_event(step, event);
        }
        for op in step.writes() {
            self.of_write(step, &mut process, op, found);
        }
        let compared = step
            .events
            .iter()
            .filter_map(|event| process.compared(step, event));
        let compared: Vec<Comparison> = compared.collect();
        for effect in step.effects {
            self.of_effect(step, &mut process, effect, full, model, found);
            if let Effect::Reply {
                ticket,
                reply: Ok(reply),
            } = effect
            {
                let request = heard.of(step.me).tickets.get(ticket);
                Self::of_reply(reply, request, &compared, found);
            }
        }
        if step.events.contains(&Event::TimedOut) {
            self.of_overdue(step, &process, found);
        }
        self.of_recovery(step, &mut process, found);
        process.applied = step.peer().disk.written.applied.index;
        self.processes[step.me] = process;
    }

    fn of_write(&self, step: &Step<'_>, process: &mut Process, op: &StoreOp, found: &mut Findings<'_>) {
        match op {
            StoreOp::PutLocal { cid, local } => {
                let known = process
                    .attempts
                    .insert(cid.clone(), (local.attempts, local.phase, local.since));
                let (before, phase, since) = known.unwrap_or((0, Phase::PinQueued, local.since));
                let continues =
                    phase == Phase::PinError && matches!(local.phase, Phase::PinError | Phase::PinQueued);
                found.require(!continues || local.attempts >= before, "retries", || {
                    format!("forgets {before} failed attempts at {cid}: {local:?}")
                });
                self.of_local(step, cid, local, before, found);
                if local.phase == Phase::Lost {
                    process.count_missing(step, cid, since);
                }
            }
            StoreOp::DeleteLocal { cid } => {
                process.attempts.remove(cid);
            }
            StoreOp::InstallSnapshot { .. } => {
                let will = step.peer().disk.written.reconciling;
                let does = step
                    .writes()
                    .any(|op| matches!(op, StoreOp::SetReconciling { .. }));
                found.require(will || does, "reconciliation", || {
                    "installs a snapshot, and forgets at a restart to look at its local states".to_owned()
                });
            }
            StoreOp::SetReconciling { reconciling: false } => self.of_reconciled(step, found),
            _ => {}
        }
    }

    fn of_effect(
        &self,
        step: &Step<'_>,
        process: &mut Process,
        effect: &Effect,
        full: bool,
        model: &Model,
        found: &mut Findings<'_>,
    ) {
        match effect {
            Effect::StartIpfs { op, action } => {
                self.of_start(step, process, action, found);
                let (IpfsAction::Pin { cid, .. } | IpfsAction::Unpin { cid }) = action;
                let pin = match action {
                    IpfsAction::Pin { mode, .. } => Some(*mode),
                    IpfsAction::Unpin { .. } => None,
                };
                let local = step.peer().disk.written.locals.get(cid);
                process.running.insert(
                    *op,
                    Operation {
                        cid: cid.clone(),
                        pin,
                        moved: step.now.mono,
                        attempts: local.map_or(0, |local| local.attempts),
                        cancelled: false,
                    },
                );
            }
            Effect::CancelIpfs { op } => self.of_cancel(step, process, *op, full, found),
            Effect::CompareIpfs { op, cid } => self.of_comparison(step, process, *op, cid.as_ref(), found),
            Effect::Send { envelope, .. } => {
                if let Message::HasCopies(copies) = &envelope.message {
                    copies
                        .iter()
                        .for_each(|copy| self.of_copy(step, copy, model, found));
                }
            }
            _ => {}
        }
    }
}

impl Process {
    fn after_event(&mut self, step: &Step<'_>, event: &Event) {
        match event {
            Event::IpfsFinished { op, .. } => {
                self.running.remove(op);
            }
            Event::IpfsProgressed { op } => {
                if let Some(running) = self.running.get_mut(op).filter(|running| running.pin.is_some()) {
                    running.moved = step.now.mono;
                }
                if let Some(comparison) = self.comparing.get_mut(op) {
                    comparison.moved = step.now.mono;
                }
            }
            Event::IpfsLacks { op, .. } => {
                if let Some(comparison) = self.comparing.get_mut(op) {
                    comparison.moved = step.now.mono;
                }
            }
            _ => {}
        }
    }
}
