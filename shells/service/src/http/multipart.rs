//! The parts of an upload, by the convention of the IPFS command line: each part is a file, a directory or a
//! symbolic link, and its file name is the escaped path within the upload.

use std::io;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use futures::TryStreamExt;
use percent_encoding::percent_decode_str;
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

/// What is left of an upload that failed is read for so long, as many clients look at the answer only when
/// they have sent everything.
const DRAIN: Duration = Duration::from_secs(5);

/// The target of a symbolic link is no longer than this, as on Linux.
const TARGET_MAX: usize = 4096;

/// An upload, part by part.
pub(super) struct Parts {
    parts: multer::Multipart<'static>,
}

/// One part.
pub(super) struct Part {
    /// Its path; empty when it has none.
    pub(super) path: String,
    /// What it is.
    pub(super) kind: Kind,
    field: multer::Field<'static>,
}

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
}

/// What separates the parts; an error, for people, when the request has none.
pub(super) fn boundary(headers: &HeaderMap) -> Result<String, String> {
    let given = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let not_multipart = "request Content-Type isn't multipart/form-data";
    if !given
        .trim_start()
        .to_ascii_lowercase()
        .starts_with("multipart/form-data")
    {
        return Err(not_multipart.to_owned());
    }
    multer::parse_boundary(given).map_err(|error| format!("{not_multipart} with a boundary: {error}"))
}

impl Parts {
    pub(super) fn new(body: Body, boundary: String) -> Self {
        let body: BodyDataStream = body.into_data_stream();
        Self {
            parts: multer::Multipart::new(body, boundary),
        }
    }

    /// The next part; the one before must be done with.
    pub(super) async fn next(&mut self) -> Result<Option<Part>, String> {
        let field = self.parts.next_field().await.map_err(|error| error.to_string())?;
        field.map(part).transpose()
    }

    /// Reads what is left, for a while.
    pub(super) async fn drain(mut self) {
        let rest = async { while let Ok(Some(_)) = self.parts.next_field().await {} };
        // A client that takes longer finds its connection closed.
        let _ = tokio::time::timeout(DRAIN, rest).await;
    }
}

fn part(field: multer::Field<'static>) -> Result<Part, String> {
    let escaped = field.file_name().unwrap_or_default();
    let path = unescape(escaped);
    let kind = field
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let kind = match kind.split(';').next().unwrap_or_default().trim() {
        "application/x-directory" => Kind::Directory,
        "application/symlink" => Kind::Symlink,
        nested if nested.starts_with("multipart/") => {
            return Err(format!(
                "part {path:?} is {nested}: send directories as application/x-directory parts"
            ));
        }
        _ => Kind::File,
    };
    let path = path.trim_matches('/').to_owned();
    if path.contains('\0') {
        return Err(format!("part {path:?} has a zero byte in its path"));
    }
    Ok(Part { path, kind, field })
}

/// The name behind its escapes. One that has broken ones is taken as it is, as the Go library does.
fn unescape(escaped: &str) -> String {
    let mut after = escaped.split('%').skip(1);
    let whole = after.all(|after| {
        let hex = after.as_bytes().get(..2);
        hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    });
    let spaced = escaped.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    match decoded {
        Ok(decoded) if whole => decoded.into_owned(),
        Ok(_) | Err(_) => escaped.to_owned(),
    }
}

impl Part {
    /// Its content.
    pub(super) fn content(self) -> impl AsyncRead + Send + Unpin {
        StreamReader::new(self.field.map_err(io::Error::other))
    }

    /// Its content, when it is the target of a symbolic link.
    pub(super) async fn target(mut self) -> Result<String, String> {
        let mut target = Vec::new();
        while let Some(chunk) = self.field.chunk().await.map_err(|error| error.to_string())? {
            target.extend_from_slice(&chunk);
            if target.len() > TARGET_MAX {
                return Err(format!(
                    "symbolic link {:?} has a target of over {TARGET_MAX} bytes",
                    self.path
                ));
            }
        }
        String::from_utf8(target)
            .map_err(|_| format!("symbolic link {:?} has a target that is no text", self.path))
    }
}
