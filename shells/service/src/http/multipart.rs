//! Multipart uploads of `POST /add`, in the convention of the IPFS command line: each part is a file, a
//! directory or a symbolic link, and its file name is the escaped path within the upload.

use std::io;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use cluster_http::multipart::{self, Multipart, PartHead};
use futures::{StreamExt, TryStreamExt};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

/// Maximum length of a symbolic link's target in bytes, as on Linux.
const TARGET_MAX: usize = 4096;

/// The parts of an upload.
pub(super) struct Parts {
    parts: Multipart,
}

/// Returns the boundary between the parts, or a message if the request has none.
pub(super) fn boundary(headers: &HeaderMap) -> Result<String, String> {
    let given = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if let Some(boundary) = multipart::boundary(given) {
        return Ok(boundary);
    }
    let not_multipart = "request Content-Type isn't multipart/form-data";
    let kind = given.trim_start().to_ascii_lowercase();
    if kind.starts_with("multipart/form-data") {
        return Err(format!("{not_multipart} with a boundary"));
    }
    Err(not_multipart.to_owned())
}

impl Parts {
    pub(super) fn new(body: Body, boundary: &str) -> Self {
        Self {
            parts: Multipart::new(body.into_data_stream(), boundary),
        }
    }

    /// Returns the head of the next part; the rest of the part before is skipped.
    pub(super) async fn next(&mut self) -> Result<Option<PartHead>, String> {
        let head = self.parts.next_part().await.map_err(|error| error.to_string())?;
        if let Some(head) = &head
            && head.path().contains(&0)
        {
            let path = String::from_utf8_lossy(&head.path()).into_owned();
            return Err(format!("part {path:?} has a zero byte in its path"));
        }
        Ok(head)
    }

    /// Returns the content of the current part.
    pub(super) fn content(&mut self) -> impl AsyncRead + Send + Unpin {
        StreamReader::new(self.parts.content().map_err(io::Error::other))
    }

    /// Reads the content of the current part as the target of a symbolic link.
    pub(super) async fn target(&mut self) -> Result<Vec<u8>, String> {
        let mut target = Vec::new();
        let mut content = self.parts.content();
        while let Some(chunk) = content.next().await {
            target.extend_from_slice(&chunk.map_err(|error| error.to_string())?);
            if target.len() > TARGET_MAX {
                return Err(format!("a symbolic link has a target of over {TARGET_MAX} bytes"));
            }
        }
        Ok(target)
    }
}

/// Returns the name of a part for output lines.
pub(super) fn display_path(path: &[u8]) -> String {
    cluster_ipfs::unixfs::Name::from(path).to_string()
}
