//! Execution of `add`.

use crate::args::Add;
use crate::failure::Failure;
use crate::output::Output;
use crate::wait::{self, Goal};
use cluster_api::client::{Answer, Upload};
use cluster_api::{AddFormat, AddLayout, AddParams, AddedOutput, Client, PinOptions, TrackerStatus};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Arc;

/// Uploads files, prints the results, and waits with `--wait`.
pub(super) async fn add(client: &Client, output: &mut Output, arguments: &Add) -> Result<(), Failure> {
    let params = params(arguments)?;
    let mut upload = Upload::new(&arguments.paths, arguments.recursive, arguments.hidden)?;
    let bar = progress_bar(&upload);
    let counter = bar.clone();
    upload = upload.with_progress(Arc::new(move |bytes| {
        counter.inc(bytes);
        if counter.length() == Some(counter.position()) {
            counter.set_message("sent; waiting for the copies");
        }
    }));
    let result = receive(client, output, arguments, &params, upload, &bar).await;
    bar.finish_and_clear();
    let Some(last) = result? else {
        return Ok(());
    };
    if arguments.wait && !params.no_pin {
        // The stored pin, because 0 in the request means the cluster's default.
        let pin = client.allocation(&last.value.cid).await.ok();
        let limit = pin.map_or(params.pin.replication_factor_min, |pin| {
            pin.value.options.replication_factor_min
        });
        let timeout = arguments.wait_timeout.0;
        let goal = Goal {
            cid: last.value.cid,
            target: TrackerStatus::Pinned,
            limit: limit.into(),
            timeout,
        };
        wait::wait_for(client, &goal).await?;
    }
    Ok(())
}

/// Prints all lines and returns the last.
async fn receive(
    client: &Client,
    output: &mut Output,
    arguments: &Add,
    params: &AddParams,
    upload: Upload,
    bar: &ProgressBar,
) -> Result<Option<Answer<AddedOutput>>, Failure> {
    let mut added = client.add(upload, params).await?;
    let mut shown = Shown {
        output,
        arguments,
        kept: Vec::new(),
        last: None,
    };
    let result = loop {
        match added.next().await {
            // Lines without a CID only report progress.
            Ok(Some(line)) if line.value.cid.is_empty() => {}
            Ok(Some(line)) => bar.suspend(|| shown.take(line))?,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let last = bar.suspend(|| shown.finish())?;
    result?;
    Ok(last)
}

/// Printer of added files, according to the flags.
struct Shown<'a> {
    output: &'a mut Output,
    arguments: &'a Add,
    /// All lines, kept for the end with `--no-stream`.
    kept: Vec<Answer<AddedOutput>>,
    last: Option<Answer<AddedOutput>>,
}

impl Shown<'_> {
    fn take(&mut self, line: Answer<AddedOutput>) -> Result<(), Failure> {
        if self.arguments.no_stream {
            if !self.arguments.quieter {
                self.kept.push(line.clone());
            }
        } else if !self.arguments.quieter {
            self.show(&line)?;
        }
        self.last = Some(line);
        Ok(())
    }

    fn finish(mut self) -> Result<Option<Answer<AddedOutput>>, Failure> {
        let Some(last) = self.last.take() else {
            return Ok(None);
        };
        if self.arguments.quieter {
            self.kept = vec![last.clone()];
        }
        let kept = std::mem::take(&mut self.kept);
        if self.arguments.no_stream && self.output.is_json() {
            let texts: Vec<_> = kept.iter().map(|line| line.text.as_str()).collect();
            self.output.json(&format!("[{}]", texts.join(",")))?;
        } else {
            kept.iter().try_for_each(|line| self.show(line))?;
        }
        self.output.flush()?;
        Ok(Some(last))
    }

    fn show(&mut self, line: &Answer<AddedOutput>) -> Result<(), Failure> {
        let quiet = self.arguments.quiet || self.arguments.quieter;
        if quiet && !self.output.is_json() {
            return self.output.line(&line.value.cid);
        }
        self.output.show(line)
    }
}

fn params(arguments: &Add) -> Result<AddParams, Failure> {
    let default = AddParams::default();
    let local = |error: &str| Failure::local("adding", error);
    if arguments.paths.is_empty() {
        return Err(local("need at least one path"));
    }
    let wrap = arguments.wrap_with_directory || arguments.paths.len() > 1;
    let format = AddFormat::from_name(&arguments.format).ok_or_else(|| {
        local(&format!(
            "format {:?} is neither unixfs nor car",
            arguments.format
        ))
    })?;
    let layout = AddLayout::from_name(&arguments.layout).ok_or_else(|| {
        local(&format!(
            "layout {:?} is neither balanced nor trickle",
            arguments.layout
        ))
    })?;
    if wrap && format == AddFormat::Car {
        return Err(local(
            "only a single CAR file can be added and wrap-with-directory is not supported",
        ));
    }
    if arguments.nocopy
        && arguments
            .paths
            .iter()
            .any(|path| !path.as_encoded_bytes().starts_with(b"http"))
    {
        return Err(local("nocopy option is only valid for URLs"));
    }
    // As in the Go tool, which sets version 1 for an empty hash function too.
    let cid_version = if arguments.hash == default.hash {
        arguments.cid_version
    } else {
        1
    };
    let or_default = |given: &str, default: &str| match given {
        "" => default.to_owned(),
        given => given.to_owned(),
    };
    let pin = PinOptions {
        // Options that only `add` has.
        shard_size: default.pin.shard_size,
        ..arguments.pin.options()?
    };
    Ok(AddParams {
        pin,
        local: arguments.local,
        recursive: arguments.recursive,
        hidden: arguments.hidden,
        wrap,
        format,
        no_pin: arguments.no_pin,
        layout,
        chunker: or_default(&arguments.chunker, &default.chunker),
        raw_leaves: arguments.raw_leaves || cid_version > 0 || arguments.nocopy,
        cid_version,
        hash: or_default(&arguments.hash, &default.hash),
        no_copy: arguments.nocopy,
        ..default
    })
}

/// Creates a progress bar. Without a terminal it is hidden, and the files are not walked for their size.
fn progress_bar(upload: &Upload) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(upload.content_size());
    let template =
        "{bar:30} {decimal_bytes} of {decimal_total_bytes} ({decimal_bytes_per_sec}, {eta} left) {msg}";
    // The template is a valid constant; the fallback is never used.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style)
}
