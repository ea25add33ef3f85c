//! What the caller of `add` is told: a line for each entry, and how far a file has come.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Target;
use super::names::Carried;
use crate::api::multipart::Multipart;
use crate::api::reply::{Failure, Sink};
use crate::api::request::Call;
use crate::unixfs::{Added, Metadata};

/// How much of a file is read between two news about it.
const PROGRESS_STEP: u64 = 262_144;

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

/// What the caller is told, and how.
pub(super) struct Told {
    pub(super) call: Call,
    pub(super) sink: Sink,
    pub(super) progress: bool,
    pub(super) silent: bool,
    pub(super) keep_mode: bool,
    pub(super) keep_mtime: bool,
    /// What the top-level parts carried in their names; it is repeated in every line below them.
    pub(super) metas: BTreeMap<String, Carried>,
}

impl Told {
    /// The metadata to record: only what the caller asked to be kept.
    pub(super) fn meta(&self, carried: &Carried) -> Metadata {
        let mode = u32::from_str_radix(&carried.mode, 8)
            .ok()
            .map(|mode| mode & 0o777);
        Metadata {
            mode: mode.filter(|_| self.keep_mode),
            mtime: carried.mtime.filter(|_| self.keep_mtime),
        }
    }

    /// A line about `name` with what its top-level part carried.
    fn event(&self, name: &str) -> Event {
        let top = name.split('/').next().unwrap_or_default();
        let carried = self.metas.get(top).cloned().unwrap_or_default();
        let (mtime, mtime_nsecs) = carried
            .mtime
            .map_or((None, 0), |(seconds, nanos)| (Some(seconds), nanos));
        Event {
            name: name.to_owned(),
            mode: carried.mode,
            mtime,
            mtime_nsecs,
            ..Event::default()
        }
    }

    pub(super) async fn file(
        &self,
        target: &mut Target,
        path: &str,
        meta: Metadata,
        parts: &mut Multipart,
    ) -> Result<Added, Failure> {
        let mut last = 0;
        let tell = |bytes: u64| {
            if self.progress && bytes >= last + PROGRESS_STEP {
                last = bytes;
                self.sink.offer(&Event {
                    bytes,
                    ..self.event(path)
                });
            }
        };
        let added = target.file(path, meta, parts, tell).await?;
        if self.progress {
            // The last news is never dropped: progress bars end with it.
            self.sink
                .send(&Event {
                    bytes: added.bytes,
                    ..self.event(path)
                })
                .await?;
        }
        Ok(added)
    }

    pub(super) async fn finished(&self, target: Target, pin: Option<String>) -> Result<(), Failure> {
        for added in &target.finish(pin).await?.directories {
            self.line(added).await?;
        }
        Ok(())
    }

    pub(super) async fn added(&self, added: &Added) -> Result<(), Failure> {
        if self.silent {
            Ok(())
        } else {
            self.line(added).await
        }
    }

    async fn line(&self, added: &Added) -> Result<(), Failure> {
        let (hash, size) = (self.call.show(&added.cid), added.size.to_string());
        self.sink
            .send(&Event {
                hash,
                size,
                ..self.event(&added.name)
            })
            .await
    }
}
