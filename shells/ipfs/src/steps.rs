//! Steps of an operation of the embedded node, for the spans of a trace.
//!
//! A caller that traces an operation puts [`Steps`] into its OpenTelemetry context. The node finds them there
//! and notes lookups, dials and, for each source, the blocks received. A number of blocks is an attribute: no
//! block has a step of its own. Without [`Steps`] nothing is noted.
//!
//! | step | time |
//! |---|---|
//! | `dag.fetch` | the traversal of a DAG: `ipfs.blocks` stored locally by its end, `ipfs.bytes` fetched |
//! | `routing.search` | a search of providers of `ipfs.block`, with dials; `ipfs.waited_ms` for its turn |
//! | `routing.dht` | lookup of providers in the DHTs: `ipfs.providers` found |
//! | `routing.delegated` | the same at the router `server.address` |
//! | `routing.peer` | lookup of the addresses of the provider `ipfs.peer` |
//! | `swarm.dial` | dial of the provider or origin `ipfs.peer` |
//! | `bitswap.fetch` | blocks that `ipfs.peer` sent, from the want of the first to the arrival of the last |
//! | `http.fetch` | requests to the gateway `url.full`, from the first to the end of the last |
//! | `store.pin` | the write of the pin, until it and its blocks are synced |
//!
//! Steps are plain data rather than spans: their caller makes the spans at the end of the operation, because
//! a trace that begins at another peer may arrive after the operation has started.

use crate::store::lock;
use opentelemetry::{Context, KeyValue, Value};
use std::fmt::Display;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// Limit on steps of one operation that are no sources, at which only the first of a name is noted: 12
/// searches with 3 lookups and a few dials each.
const STEPS_MAX: usize = 64;
/// Limit on sources of one operation: a session prefers 16 peers and asks 8 gateways.
const SOURCES_MAX: usize = 32;

/// A step of an operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Name of its span.
    pub name: &'static str,
    /// Time of its start.
    pub start: SystemTime,
    /// Time of its end; `None` if it did not end before the operation.
    pub end: Option<SystemTime>,
    /// Attributes of its span.
    pub attributes: Vec<KeyValue>,
    /// Reason of its failure.
    pub error: Option<String>,
}

/// Steps of one operation. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Steps(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    steps: Vec<Step>,
    sources: Vec<Source>,
    left_out: usize,
    is_closed: bool,
}

/// A source of blocks.
#[derive(Debug)]
struct Source {
    name: &'static str,
    label: KeyValue,
    start: SystemTime,
    end: SystemTime,
    received: Transfer,
}

/// Outcome of a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Transfer {
    /// Number of blocks.
    pub(crate) blocks: u64,
    /// Bytes of these blocks.
    pub(crate) bytes: u64,
    /// Number of requests; 0 if the source is not asked by requests.
    pub(crate) requests: u64,
    /// Number of failed requests.
    pub(crate) failures: u64,
}

impl Steps {
    /// Takes the steps so far, in the order of their start, and the number of those left out because there
    /// were too many. Later ones are not noted.
    pub fn take(&self) -> (Vec<Step>, usize) {
        let mut noted = lock(&self.0);
        noted.is_closed = true;
        let mut steps = std::mem::take(&mut noted.steps);
        let sources = std::mem::take(&mut noted.sources);
        let left_out = noted.left_out;
        drop(noted);
        steps.extend(sources.into_iter().map(Source::into_step));
        steps.sort_by_key(|step| step.start);
        (steps, left_out)
    }
}

impl Source {
    fn into_step(self) -> Step {
        let Transfer {
            blocks,
            bytes,
            requests,
            failures,
        } = self.received;
        let mut attributes = vec![
            self.label,
            KeyValue::new("ipfs.blocks", integer(blocks)),
            KeyValue::new("ipfs.bytes", integer(bytes)),
        ];
        if requests > 0 {
            attributes.push(KeyValue::new("ipfs.requests", integer(requests)));
            attributes.push(KeyValue::new("ipfs.failures", integer(failures)));
        }
        Step {
            name: self.name,
            start: self.start,
            end: Some(self.end),
            attributes,
            error: None,
        }
    }
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Notes steps, if its operation is traced.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorder(Option<Steps>);

impl Recorder {
    /// Returns the recorder of the operation that the calling code is a part of.
    pub(crate) fn current() -> Recorder {
        Recorder(Context::map_current(|context| context.get::<Steps>().cloned()))
    }

    /// Returns the time for [`Recorder::received`]; `None` if nothing is noted.
    pub(crate) fn now(&self) -> Option<SystemTime> {
        self.0.as_ref().map(|_| SystemTime::now())
    }

    /// Begins a step, which ends when the returned value is dropped.
    pub(crate) fn begin(&self, name: &'static str) -> OpenStep {
        let Some(steps) = &self.0 else {
            return OpenStep::default();
        };
        let mut noted = lock(&steps.0);
        if noted.is_closed {
            return OpenStep::default();
        }
        if noted.steps.len() >= STEPS_MAX && noted.steps.iter().any(|step| step.name == name) {
            noted.left_out += 1;
            return OpenStep::default();
        }
        noted.steps.push(Step {
            name,
            start: SystemTime::now(),
            end: None,
            attributes: Vec::new(),
            error: None,
        });
        OpenStep(Some((steps.clone(), noted.steps.len() - 1)))
    }

    /// Adds to what a source did, from the time of [`Recorder::now`]. The label of the source is its name in
    /// the trace.
    pub(crate) fn received(
        &self,
        name: &'static str,
        since: Option<SystemTime>,
        label: impl FnOnce() -> KeyValue,
        received: Transfer,
    ) {
        let (Some(steps), Some(since)) = (&self.0, since) else {
            return;
        };
        let (label, now) = (label(), SystemTime::now());
        let mut noted = lock(&steps.0);
        if noted.is_closed {
            return;
        }
        let sources = &mut noted.sources;
        let known = sources
            .iter_mut()
            .find(|known| known.name == name && known.label == label);
        if let Some(known) = known {
            known.start = known.start.min(since);
            known.end = now;
            known.received.blocks += received.blocks;
            known.received.bytes += received.bytes;
            known.received.requests += received.requests;
            known.received.failures += received.failures;
        } else if sources.len() < SOURCES_MAX {
            sources.push(Source {
                name,
                label,
                start: since,
                end: now,
                received,
            });
        } else {
            noted.left_out += 1;
        }
    }
}

/// A step that has begun.
#[derive(Debug, Default)]
pub(crate) struct OpenStep(Option<(Steps, usize)>);

impl OpenStep {
    fn change(&self, change: impl FnOnce(&mut Step)) {
        if let Some((steps, at)) = &self.0 {
            // It is gone if the operation has ended before.
            if let Some(step) = lock(&steps.0).steps.get_mut(*at) {
                change(step);
            }
        }
    }

    /// Sets an attribute.
    pub(crate) fn set(&self, key: &'static str, value: impl FnOnce() -> Value) {
        self.change(|step| {
            let value = value();
            match step.attributes.iter_mut().find(|known| known.key.as_str() == key) {
                Some(known) => known.value = value,
                None => step.attributes.push(KeyValue::new(key, value)),
            }
        });
    }

    /// Sets an attribute to a number.
    pub(crate) fn set_number(&self, key: &'static str, number: u64) {
        self.set(key, || Value::I64(integer(number)));
    }

    /// Sets an attribute to a text.
    pub(crate) fn set_text(&self, key: &'static str, text: &dyn Display) {
        self.set(key, || Value::from(text.to_string()));
    }

    /// Notes why the step failed.
    pub(crate) fn fail(&self, error: &dyn Display) {
        self.change(|step| step.error = Some(error.to_string()));
    }

    /// Ends the step, as failed if the result is an error, and returns the result.
    pub(crate) fn end_with<T, E: Display>(self, result: Result<T, E>) -> Result<T, E> {
        if let Err(error) = &result {
            self.fail(error);
        }
        result
    }
}

impl Drop for OpenStep {
    fn drop(&mut self) {
        self.change(|step| step.end = Some(SystemTime::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::context::FutureExt;

    fn recorder() -> (Recorder, Steps) {
        let steps = Steps::default();
        (Recorder(Some(steps.clone())), steps)
    }

    fn from(peer: &'static str, bytes: u64) -> (impl FnOnce() -> KeyValue, Transfer) {
        let transfer = Transfer {
            blocks: 1,
            bytes,
            ..Transfer::default()
        };
        (move || KeyValue::new("ipfs.peer", peer), transfer)
    }

    #[tokio::test]
    async fn steps_are_noted_only_where_the_context_has_them() {
        assert!(Recorder::current().0.is_none());
        assert_eq!(Recorder::current().now(), None);
        let steps = Steps::default();
        let work = async { drop(Recorder::current().begin("swarm.dial")) };
        let context = Context::new().with_value(steps.clone());
        work.with_context(context).await;
        let (taken, left_out) = steps.take();
        assert_eq!((taken.len(), left_out), (1, 0));
        assert_eq!(taken[0].name, "swarm.dial");
        assert!(taken[0].end.is_some_and(|end| end >= taken[0].start));
    }

    #[test]
    fn step_has_its_last_attributes_and_its_error() {
        let (recorder, steps) = recorder();
        let open = recorder.begin("routing.dht");
        open.set_number("ipfs.providers", 1);
        open.set_number("ipfs.providers", 2);
        open.end_with(Err::<(), _>("too many lookups run")).unwrap_err();
        let running = recorder.begin("swarm.dial");
        running.set_text("ipfs.peer", &"a");
        let (taken, _) = steps.take();
        let providers = KeyValue::new("ipfs.providers", 2);
        assert_eq!(taken[0].attributes, [providers]);
        assert_eq!(taken[0].error.as_deref(), Some("too many lookups run"));
        assert_eq!((taken[1].name, taken[1].end), ("swarm.dial", None));
        // The operation has ended.
        drop(running);
        drop(recorder.begin("swarm.dial"));
        let (label, transfer) = from("a", 1);
        recorder.received("bitswap.fetch", recorder.now(), label, transfer);
        assert_eq!(steps.take().0, []);
    }

    #[test]
    fn blocks_of_a_source_are_one_step() {
        let (recorder, steps) = recorder();
        let first = recorder.now();
        for (peer, bytes) in [("a", 10), ("b", 100), ("a", 1)] {
            let (label, transfer) = from(peer, bytes);
            recorder.received("bitswap.fetch", recorder.now(), label, transfer);
        }
        let (label, transfer) = from("a", 1000);
        recorder.received("bitswap.fetch", first, label, transfer);
        let (taken, _) = steps.take();
        let found: Vec<_> = taken.iter().map(|step| step.attributes.clone()).collect();
        let expected = [("a", 3, 1011), ("b", 1, 100)].map(|(peer, blocks, bytes)| {
            let numbers = [("ipfs.blocks", blocks), ("ipfs.bytes", bytes)];
            let numbers = numbers.map(|(key, number)| KeyValue::new(key, number));
            [vec![KeyValue::new("ipfs.peer", peer)], numbers.to_vec()].concat()
        });
        assert_eq!(found, expected);
        assert_eq!(Some(taken[0].start), first);
    }

    #[test]
    fn number_of_steps_is_bounded_and_the_rest_is_counted() {
        let (recorder, steps) = recorder();
        for _ in 0..STEPS_MAX + 3 {
            drop(recorder.begin("routing.dht"));
        }
        drop(recorder.begin("store.pin"));
        for number in 0..SOURCES_MAX + 2 {
            let label = || KeyValue::new("ipfs.peer", number.to_string());
            recorder.received("bitswap.fetch", recorder.now(), label, Transfer::default());
        }
        let (taken, left_out) = steps.take();
        assert_eq!((taken.len(), left_out), (STEPS_MAX + 1 + SOURCES_MAX, 5));
    }
}
