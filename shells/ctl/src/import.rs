//! Execution of `pin import`: reads pins from a source, and sends them in batches.

mod line;
mod record;
mod service;
mod source;

use crate::args::PinImport;
use crate::failure::{Failure, print_stderr};
use crate::output::Output;
use cluster_api::{Client, ClientError, Pin, PinOptions, Time};
use futures::stream::{FuturesUnordered, StreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use record::Record;
use serde::Serialize;
use source::{Item, Source};
use std::time::Duration;

/// Pins of one request. The peer accepts eight times as many.
const BATCH: usize = 512;
/// Bytes after which a request is full; the peer accepts eight times as many.
const BATCH_BYTES: usize = 1 << 20;
/// Concurrent requests: one is prepared while others are committed.
const AT_ONCE: usize = 4;

/// Result of an import.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Imported {
    /// Pins that the cluster has agreed on, those that it had before included.
    imported: u64,
    /// Pins that an earlier run had imported.
    skipped: u64,
    /// Lines that are no pin, and pins that were refused.
    failed: u64,
}

/// Runs `pin import`.
pub(crate) async fn run(client: &Client, output: &mut Output, arguments: &PinImport) -> Result<(), Failure> {
    let options = arguments.pin.options()?;
    let mut import = Import {
        client,
        options,
        record: Record::open(arguments.resume.as_deref())?,
        bar: progress_bar(),
        done: Imported::default(),
    };
    let mut source = Source::open(arguments).await?;
    let result = import.run(&mut source).await;
    import.bar.finish_and_clear();
    import.record.flush()?;
    let done = import.done;
    if let Err(failure) = result {
        print_stderr(format_args!(
            "{} pins were imported before the failure; repeat the command for the rest",
            done.imported
        ));
        return Err(failure);
    }
    let Imported {
        imported,
        skipped,
        failed,
    } = done;
    match output.is_json() {
        true => {
            let text = serde_json::to_string(&done).map_err(|e| Failure::local("writing the result", e))?;
            output.json(&text)?;
        }
        false => output.line(&format!(
            "imported {imported}, skipped {skipped}, failed {failed}"
        ))?,
    }
    output.flush()?;
    match failed {
        0 => Ok(()),
        failed => Err(Failure::Incomplete(failed)),
    }
}

/// Shows numbers and speed on a terminal, and nothing elsewhere.
fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {human_pos} pins, {per_sec}, {elapsed} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A running import.
struct Import<'a> {
    client: &'a Client,
    /// Options of the command line, for every pin.
    options: PinOptions,
    record: Record,
    bar: ProgressBar,
    done: Imported,
}

/// Pins that are sent together.
type Batch = Vec<Pin>;

/// Pins of a batch, each with the reason why it was refused.
type Outcome = Vec<(String, Option<String>)>;

impl Import<'_> {
    async fn run(&mut self, source: &mut Source) -> Result<(), Failure> {
        let client = self.client;
        let mut sending = FuturesUnordered::new();
        let mut open = true;
        let mut failure = None;
        while open || !sending.is_empty() {
            if open && sending.len() < AT_ONCE {
                match self.batch(source).await {
                    Ok(batch) if batch.is_empty() => open = false,
                    Ok(batch) => sending.push(send(client, batch)),
                    Err(error) => (open, failure) = (false, Some(error)),
                }
                continue;
            }
            match sending.next().await {
                Some(Ok(outcome)) => self.take(outcome)?,
                // Requests in flight may still be counted.
                Some(Err(error)) => (open, failure) = (false, failure.or(Some(error.into()))),
                None => {}
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Reads the pins of the next request; none at the end of the source.
    async fn batch(&mut self, source: &mut Source) -> Result<Batch, Failure> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            match source.next().await? {
                None => break,
                Some(Item::Bad { place, why }) => {
                    self.bar.suspend(|| print_stderr(format_args!("{place}: {why}")));
                    self.done.failed += 1;
                }
                Some(Item::Pin(pin)) if self.record.has(&pin.cid) => {
                    self.done.skipped += 1;
                    self.bar.inc(1);
                }
                Some(Item::Pin(pin)) => {
                    let pin = self.adapted(*pin);
                    bytes += pin.cid.len() + pin.options.name.len() + 400;
                    let metadata = pin.options.metadata.iter();
                    bytes += metadata
                        .map(|(key, value)| key.len() + value.len())
                        .sum::<usize>();
                    batch.push(pin);
                }
            }
        }
        Ok(batch)
    }

    /// Applies the options of the command line.
    fn adapted(&self, mut pin: Pin) -> Pin {
        let given = &self.options;
        let options = &mut pin.options;
        if !given.name.is_empty() {
            options.name.clone_from(&given.name);
        }
        if given.replication_factor_min != 0 {
            options.replication_factor_min = given.replication_factor_min;
        }
        if given.replication_factor_max != 0 {
            options.replication_factor_max = given.replication_factor_max;
        }
        if !given.expire_at.is_zero() {
            options.expire_at = given.expire_at;
        }
        options.metadata.extend(given.metadata.clone());
        if !given.user_allocations.is_empty() {
            pin.allocations.clone_from(&given.user_allocations);
        }
        if pin.timestamp.is_zero() {
            pin.timestamp = Time::now();
        }
        pin
    }

    fn take(&mut self, outcome: Outcome) -> Result<(), Failure> {
        for (cid, refused) in outcome {
            self.bar.inc(1);
            match refused {
                None => {
                    self.done.imported += 1;
                    self.record.add(&cid)?;
                }
                Some(why) => {
                    self.done.failed += 1;
                    self.bar.suspend(|| print_stderr(format_args!("{cid}: {why}")));
                }
            }
        }
        Ok(())
    }
}

/// Sends a batch. If the peer refuses it because of a pin, halves are sent, down to the pin.
async fn send(client: &Client, batch: Batch) -> Result<Outcome, ClientError> {
    let mut outcome = Vec::with_capacity(batch.len());
    let mut open = vec![batch];
    while let Some(mut batch) = open.pop() {
        let refused = match post(client, &batch).await {
            Ok(()) => None,
            Err(ClientError::Api(error)) if matches!(error.code, 400 | 409 | 413) => Some(error.message),
            Err(error) => return Err(error),
        };
        if refused.is_some() && batch.len() > 1 {
            let second = batch.split_off(batch.len() / 2);
            open.extend([second, batch]);
            continue;
        }
        outcome.extend(batch.into_iter().map(|pin| (pin.cid, refused.clone())));
    }
    Ok(outcome)
}

async fn post(client: &Client, batch: &[Pin]) -> Result<(), ClientError> {
    let mut lines = Vec::new();
    for pin in batch {
        // A pin is made of texts and numbers.
        serde_json::to_writer(&mut lines, pin).unwrap_or_default();
        lines.push(b'\n');
    }
    client.import(lines.into()).await
}
