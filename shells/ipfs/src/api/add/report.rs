//! Reports to the caller of `add`: a line for each entry, and the progress of files.

use cluster_http::multipart::Multipart;
use cluster_http::rpc::{Failure, LineSender};
use serde::Serialize;
use tokio::sync::mpsc;

use super::Target;
use super::part_metadata::PartMetadata;
use crate::api::request::Call;
use crate::unixfs::{Added, Metadata, Name};

/// Bytes of a file between two progress lines.
const PROGRESS_STEP: u64 = 262_144;

/// Directories that are built and not yet reported.
const DIRECTORIES: usize = 16;

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    hash: String,
    #[serde(skip_serializing_if = "is_zero")]
    bytes: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    size: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mode: String,
    #[serde(skip_serializing_if = "is_none_or_zero")]
    mtime: Option<i64>,
    #[serde(skip_serializing_if = "is_zero_nanos")]
    mtime_nsecs: u32,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_none_or_zero(number: &Option<i64>) -> bool {
    number.is_none_or(|number| number == 0)
}

fn is_zero_nanos(number: &u32) -> bool {
    *number == 0
}

/// Sends the lines of one `add` call to its caller.
pub(super) struct Reporter {
    pub(super) call: Call,
    pub(super) sink: LineSender,
    pub(super) progress: bool,
    pub(super) silent: bool,
    pub(super) keep_mode: bool,
    pub(super) keep_mtime: bool,
    /// Place of the roots in the file system: a path, and whether it is a directory.
    pub(super) to_files: Option<(Vec<Name>, bool)>,
    /// Metadata of the top-level entry, repeated in every line about entries below it.
    pub(super) top: PartMetadata,
}

impl Reporter {
    /// Returns the metadata to record: the part that the caller asked to preserve.
    pub(super) fn recorded_metadata(&self, sent: PartMetadata) -> Metadata {
        let Metadata { mode, mtime } = sent.metadata();
        Metadata {
            mode: mode.filter(|_| self.keep_mode),
            mtime: mtime.filter(|_| self.keep_mtime),
        }
    }

    /// Returns a line about an entry, with the metadata of its top-level entry.
    fn event(&self, name: &Name) -> Event {
        let (mtime, mtime_nsecs) = self
            .top
            .mtime
            .map_or((None, 0), |(seconds, nanos)| (Some(seconds), nanos));
        let mode = match self.top.mode {
            0 => String::new(),
            mode => format!("0{mode:o}"),
        };
        Event {
            name: name.to_string(),
            mode,
            mtime,
            mtime_nsecs,
            ..Event::default()
        }
    }

    pub(super) async fn file(
        &self,
        target: &mut Target,
        path: &[u8],
        meta: Metadata,
        parts: &mut Multipart,
    ) -> Result<Added, Failure> {
        let mut last = 0;
        let name = Name::from(path);
        let report_progress = |bytes: u64| {
            if self.progress && bytes >= last + PROGRESS_STEP {
                last = bytes;
                self.sink.try_send(&Event {
                    bytes,
                    ..self.event(&name)
                });
            }
        };
        let added = target.file(path, meta, parts, report_progress).await?;
        if self.progress {
            // The last progress line is never dropped: progress bars need it.
            self.sink
                .send(&Event {
                    bytes: added.bytes,
                    ..self.event(&name)
                })
                .await?;
        }
        Ok(added)
    }

    /// Finishes an upload, reporting its directories as they are built.
    pub(super) async fn finish(&self, target: Target, pin: Option<String>) -> Result<(), Failure> {
        let (built, directories) = mpsc::channel(DIRECTORIES);
        let finished = target.finish(pin, built);
        let roots = self.report_while(finished, directories).await?;
        let Some((path, into)) = &self.to_files else {
            return Ok(());
        };
        for root in roots {
            let mut path = path.clone();
            if *into {
                path.push(root.name);
            }
            let put = self
                .call
                .node
                .files_put(&path, root.cid, false, false, true)
                .await;
            put.map_err(|error| Failure::from(error).with_prefix("to-files: cannot put node in path: "))?;
        }
        Ok(())
    }

    /// Builds directories early if their names need much memory, and reports them.
    pub(super) async fn make_room(&self, target: &mut Target, path: &[u8]) -> Result<(), Failure> {
        let (built, directories) = mpsc::channel(DIRECTORIES);
        let made = target.make_room(path, built);
        self.report_while(made, directories).await
    }

    async fn report_while<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
        mut directories: mpsc::Receiver<Added>,
    ) -> Result<T, Failure> {
        let report = async move {
            while let Some(added) = directories.recv().await {
                self.send_line(&added).await?;
            }
            Ok(())
        };
        let (worked, reported): (_, Result<(), Failure>) = tokio::join!(work, report);
        let worked = worked?;
        reported.map(|()| worked)
    }

    pub(super) async fn report(&self, added: &Added) -> Result<(), Failure> {
        if self.silent {
            Ok(())
        } else {
            self.send_line(added).await
        }
    }

    async fn send_line(&self, added: &Added) -> Result<(), Failure> {
        let (hash, size) = (self.call.format_cid(&added.cid), added.size.to_string());
        self.sink
            .send(&Event {
                hash,
                size,
                ..self.event(&added.name)
            })
            .await
    }
}
