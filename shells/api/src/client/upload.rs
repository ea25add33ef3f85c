//! Body of `POST /add`: files and directories as multipart, as Kubo's client sends them.
//!
//! Each part is named by its percent-encoded path. A directory is a part of type `application/x-directory`
//! that precedes its entries; a symbolic link is a part of type `application/symlink` with the target as
//! content. A thread reads a few chunks ahead of the network, so memory use does not depend on the size.

use super::ClientError;
use super::connect::Body;
use crate::query::{escape, escape_bytes};
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use percent_encoding::percent_decode_str;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Bytes of one read: large enough for the full speed of a disk.
const CHUNK: usize = 256 * 1024;
/// Chunks read ahead of the network: 2 MiB.
const AHEAD: usize = 8;

/// Callback with the number of content bytes handed to the network since the last call.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// Error of producing the body.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct UploadError(String);

/// Error of the body's producer, shared with the request that waits for the response.
#[derive(Clone, Default)]
pub(super) struct Failure(Arc<Mutex<Option<ClientError>>>);

impl Failure {
    pub(super) fn take(&self) -> Option<ClientError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, error: ClientError) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// Source of one top-level entry.
#[derive(Debug, Clone)]
enum Source {
    /// Local file, directory or symbolic link.
    Path { name: OsString, path: PathBuf },
    /// URL to fetch.
    Url { name: Vec<u8>, url: String },
}

/// Files and directories to add.
#[derive(Clone)]
pub struct Upload {
    sources: Vec<Source>,
    hidden: bool,
    boundary: String,
    progress: Option<Progress>,
    failure: Failure,
}

impl Upload {
    /// Checks that all `paths` exist. Inside directories, names that begin with a dot are skipped unless
    /// `hidden`. Paths that begin with `http://` or `https://` are fetched. Names need not be UTF-8.
    ///
    /// # Errors
    /// [`ClientError::File`] for a path that does not exist, or is a directory without `recursive`.
    pub fn new<P: AsRef<OsStr>>(paths: &[P], recursive: bool, hidden: bool) -> Result<Self, ClientError> {
        let sources = paths
            .iter()
            .map(|path| source(path.as_ref(), recursive))
            .collect::<Result<_, _>>()?;
        let random = [random_word(), random_word()];
        let boundary = format!("{:016x}{:016x}", random[0], random[1]);
        Ok(Self {
            sources,
            hidden,
            boundary,
            progress: None,
            failure: Failure::default(),
        })
    }

    /// Sets the progress callback.
    #[must_use]
    pub fn with_progress(mut self, progress: Progress) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Sums up the sizes of all local files, skipping unreadable ones. Blocks while it walks the directories.
    pub fn content_size(&self) -> u64 {
        let size = |source: &Source| match source {
            Source::Path { path, .. } => size_of(path, self.hidden),
            Source::Url { .. } => 0,
        };
        self.sources.iter().map(size).sum()
    }

    pub(super) fn boundary(&self) -> &str {
        &self.boundary
    }

    pub(super) fn failure(&self) -> Failure {
        self.failure.clone()
    }

    /// Starts the reading thread and returns the body.
    pub(super) fn body(&self) -> Body {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let writer = Writer {
            upload: self.clone(),
            sender,
        };
        tokio::task::spawn_blocking(move || writer.run());
        let chunks = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|chunk| (chunk, receiver))
        });
        StreamBody::new(chunks.map(|chunk: Result<Bytes, UploadError>| chunk.map(Frame::data))).boxed_unsync()
    }
}

/// Returns a random word, so that content cannot be prepared to contain the boundary.
fn random_word() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

/// Returns the last part of a URL's unescaped path, as Go does; `None` if `path` is not a URL.
fn name_of_url(path: &str) -> Option<Vec<u8>> {
    let rest = path.strip_prefix("http://").or(path.strip_prefix("https://"))?;
    let after_host = rest.split(['?', '#']).next().unwrap_or_default();
    let below = after_host.split_once('/').map_or("", |(_, below)| below);
    let below: Vec<u8> = percent_decode_str(below).collect();
    let name = below.rsplit(|byte| *byte == b'/').find(|part| !part.is_empty());
    Some(name.unwrap_or(b"/").to_vec())
}

fn source(path: &OsStr, recursive: bool) -> Result<Source, ClientError> {
    let failed = |reason: String| ClientError::File {
        path: path.display().to_string(),
        reason,
    };
    let url = path.to_str();
    if let Some((url, name)) = url.and_then(|url| Some((url, name_of_url(url)?))) {
        let url = url.to_owned();
        return Ok(Source::Url { name, url });
    }
    let metadata = fs::symlink_metadata(path).map_err(|e| failed(reason(&e)))?;
    if metadata.is_dir() && !recursive {
        return Err(failed("is a directory: add it with --recursive (-r)".to_owned()));
    }
    let mut full = PathBuf::from(path);
    if full.file_name().is_none() {
        // `.`, `..` and `/` have no file name.
        full = full.canonicalize().map_err(|e| failed(reason(&e)))?;
    }
    let name = full
        .file_name()
        .map_or_else(|| OsString::from("/"), OsStr::to_owned);
    Ok(Source::Path { name, path: full })
}

fn reason(error: &io::Error) -> String {
    super::without_number(&error.to_string())
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_bytes().starts_with(b"."))
}

/// Returns the entries of a directory, sorted by name.
fn entries(directory: &Path, hidden: bool) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if hidden || !is_hidden(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn size_of(path: &Path, hidden: bool) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0;
    };
    if !metadata.is_dir() {
        return if metadata.is_file() { metadata.len() } else { 0 };
    }
    entries(path, hidden)
        .unwrap_or_default()
        .iter()
        .map(|entry| size_of(entry, hidden))
        .sum()
}

/// Reason to stop producing the body.
enum Stop {
    /// The receiver is gone: the response came first.
    Unread,
    /// A source could not be read.
    Failed(ClientError),
}

/// Producer of the body, on its own thread.
struct Writer {
    upload: Upload,
    sender: mpsc::Sender<Result<Bytes, UploadError>>,
}

impl Writer {
    fn run(self) {
        match self.write() {
            Ok(()) | Err(Stop::Unread) => {}
            Err(Stop::Failed(error)) => {
                let message = UploadError(error.to_string());
                self.upload.failure.put(error);
                // Fails only if the receiver is gone, which is no error.
                let _ = self.sender.blocking_send(Err(message));
            }
        }
    }

    fn write(&self) -> Result<(), Stop> {
        for source in &self.upload.sources {
            match source {
                Source::Path { name, path } => self.write_path(name.as_bytes(), path)?,
                Source::Url { name, url } => self.write_url(name, url)?,
            }
        }
        self.send(format!("--{}--\r\n", self.upload.boundary).into())
    }

    fn send(&self, chunk: Bytes) -> Result<(), Stop> {
        self.sender.blocking_send(Ok(chunk)).map_err(|_| Stop::Unread)
    }

    fn head(&self, name: &[u8], content_type: &str, more: &str) -> Result<(), Stop> {
        let (boundary, name) = (&self.upload.boundary, escape_bytes(name));
        self.send(Bytes::from(format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: {content_type}\r\n{more}\r\n"
        )))
    }

    fn content(&self, mut reader: impl Read, path: &str) -> Result<(), Stop> {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            let limited = (&mut reader).take(CHUNK as u64).read_to_end(&mut chunk);
            let length = limited.map_err(|e| failed(path, &e))?;
            if length == 0 {
                return self.send(Bytes::from_static(b"\r\n"));
            }
            self.send(chunk.into())?;
            if let Some(progress) = &self.upload.progress {
                progress(length as u64);
            }
        }
    }

    fn write_path(&self, name: &[u8], path: &Path) -> Result<(), Stop> {
        let shown = path.display().to_string();
        let metadata = fs::symlink_metadata(path).map_err(|e| failed(&shown, &e))?;
        if metadata.is_dir() {
            self.head(name, "application/x-directory", "")?;
            self.send(Bytes::from_static(b"\r\n"))?;
            for entry in entries(path, self.upload.hidden).map_err(|e| failed(&shown, &e))? {
                let last = entry.file_name().unwrap_or_default();
                let below = [name, b"/", last.as_bytes()].concat();
                self.write_path(&below, &entry)?;
            }
            return Ok(());
        }
        if metadata.is_symlink() {
            let target = fs::read_link(path).map_err(|e| failed(&shown, &e))?;
            self.head(name, "application/symlink", "")?;
            let content = [target.as_os_str().as_bytes(), b"\r\n"].concat();
            return self.send(content.into());
        }
        if !metadata.is_file() {
            let reason = "is neither a file, a directory nor a link".to_owned();
            return Err(Stop::Failed(ClientError::File { path: shown, reason }));
        }
        let file = File::open(path).map_err(|e| failed(&shown, &e))?;
        self.head(name, "application/octet-stream", "")?;
        self.content(file, &shown)
    }

    fn write_url(&self, name: &[u8], url: &str) -> Result<(), Stop> {
        let runtime = tokio::runtime::Handle::current();
        let broken = |reason: String| {
            Stop::Failed(ClientError::File {
                path: url.to_owned(),
                reason,
            })
        };
        let fetched = runtime.block_on(super::fetch::fetch(url, None));
        let mut response = fetched.map_err(|e| broken(e.to_string()))?.into_body();
        self.head(
            name,
            "application/octet-stream",
            &format!("abspath-encoded: {}\r\n", escape(url)),
        )?;
        while let Some(frame) = runtime.block_on(response.frame()) {
            let frame = frame.map_err(|e| broken(e.to_string()))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let length = data.len() as u64;
            self.send(data)?;
            if let Some(progress) = &self.upload.progress {
                progress(length);
            }
        }
        self.send(Bytes::from_static(b"\r\n"))
    }
}

fn failed(path: &str, error: &io::Error) -> Stop {
    Stop::Failed(ClientError::File {
        path: path.to_owned(),
        reason: reason(error),
    })
}
