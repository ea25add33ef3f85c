//! The parts of an upload, by the convention of the IPFS command line: each part is a file, a directory or a
//! symbolic link, and its file name is the escaped path within the upload.

use std::io;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use cluster_ipfs::api::multipart::{self, Multipart, PartHead};
use futures::{StreamExt, TryStreamExt};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

/// The target of a symbolic link is no longer than this, as on Linux.
const TARGET_MAX: usize = 4096;

/// An upload, part by part.
pub(super) struct Parts {
    parts: Multipart,
}

/// The boundary between the parts; an error, for people, when the request has none.
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

    /// The next part; what is left of the one before is skipped.
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

    /// The content of the current part.
    pub(super) fn content(&mut self) -> impl AsyncRead + Send + Unpin {
        StreamReader::new(self.parts.content().map_err(io::Error::other))
    }

    /// The content of the current part, when it is the target of a symbolic link.
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

/// The name of a part in lines about it.
pub(super) fn shown(path: &[u8]) -> String {
    cluster_ipfs::unixfs::Name::from(path).to_string()
}
