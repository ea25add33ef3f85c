//! Files, directories and symbolic links, as browsers show them.

use std::ops::Range;

use bytes::Bytes;
use futures::stream::StreamExt;
use hyper::header::{self, HeaderMap};
use hyper::{Response, StatusCode};

use super::failure::Refusal;
use super::handler::{Asked, Target, redirect};
use super::reply::{Body, CHECKED, empty, started, streamed, whole};
use super::{Gateway, block, headers, media_type, pages, ranges};
use crate::unixfs::{Kind, Stat};
use crate::{Cid, DagPath, Error, codec};

/// Answers with the content at the end of the path.
pub(super) async fn answer(
    gateway: &Gateway,
    asked: &Asked<'_>,
    target: &Target,
) -> Result<Response<Body>, Refusal> {
    if block::is_document(&target.cid) {
        return block::node(gateway, asked, target).await;
    }
    let (stat, root) = gateway.node.file_root(target.cid).await?;
    match stat.kind {
        Kind::Directory => directory(gateway, asked, target).await,
        Kind::File => {
            let file = File::new(target.cid, &stat, root);
            file.answer(gateway, asked, target, StatusCode::OK).await
        }
        Kind::Symlink => Ok(symlink(asked, target, &stat)),
    }
}

/// A file to send.
pub(super) struct File {
    cid: Cid,
    /// Its first block.
    root: Bytes,
    size: u64,
    modified: Option<std::time::SystemTime>,
    /// Media type, if it does not depend on name and content.
    media_type: Option<&'static str>,
}

impl File {
    pub(super) fn new(cid: Cid, stat: &Stat, root: Bytes) -> File {
        File {
            cid,
            root,
            size: stat.bytes,
            modified: headers::modified(stat.meta.mtime),
            media_type: None,
        }
    }

    /// Returns a page of the content itself: `index.html`, or one that `_redirects` names.
    pub(super) fn page(cid: Cid, stat: &Stat, root: Bytes) -> File {
        File {
            media_type: Some("text/html"),
            ..File::new(cid, stat, root)
        }
    }

    /// Sends the file, or the requested range, with the validator of `target`.
    pub(super) async fn answer(
        &self,
        gateway: &Gateway,
        asked: &Asked<'_>,
        target: &Target,
        status: StatusCode,
    ) -> Result<Response<Body>, Refusal> {
        let etag = headers::etag(&target.cid, asked.format.format.map(super::format::Format::name));
        if status == StatusCode::OK && headers::unchanged_since(asked.headers, self.modified) {
            let cache_control = headers::cache_control(target.mutable, target.ttl);
            return Ok(super::handler::not_modified(&etag, cache_control.as_deref()));
        }
        let range = match status {
            StatusCode::OK => ranges::requested(asked.headers, self.size, &etag)?,
            _ => None,
        };
        let mut response = Response::new(empty());
        target.add_headers(response.headers_mut(), &etag);
        let kind = self.media_type(gateway, asked).await?;
        headers::set(response.headers_mut(), header::CONTENT_TYPE, &kind);
        add_file_name(response.headers_mut(), asked);
        if let Some(modified) = self.modified {
            let modified = httpdate::fmt_http_date(modified);
            headers::set(response.headers_mut(), header::LAST_MODIFIED, &modified);
        }
        *response.status_mut() = status;
        add_range(&mut response, range.as_ref(), self.size);
        if !asked.head {
            *response.body_mut() = self.content(gateway, range).await?;
        }
        Ok(response)
    }

    async fn content(&self, gateway: &Gateway, range: Option<Range<u64>>) -> Result<Body, Refusal> {
        let Range { start, end } = range.unwrap_or(0..self.size);
        let length = Some(end - start);
        let content = gateway
            .node
            .cat_below(self.cid, self.root.clone(), start, length)?;
        // A first block that cannot be found is an error with a status, not a broken answer.
        Ok(streamed(started(content, CHECKED).await?))
    }

    async fn media_type(&self, gateway: &Gateway, asked: &Asked<'_>) -> Result<String, Refusal> {
        if let Some(known) = self.media_type {
            return Ok(known.to_owned());
        }
        let name = asked.query.get("filename").map(str::to_owned);
        let name = name.or_else(|| asked.path.file_name());
        if let Some(known) = name.as_deref().and_then(media_type::by_name) {
            return Ok(known);
        }
        if !ranges::starts_at_zero(asked.headers) {
            return Ok("application/octet-stream".to_owned());
        }
        if let Some(known) = gateway.sniffed.get(&self.cid) {
            return Ok(known.to_owned());
        }
        let sniffed = Some(media_type::SNIFFED);
        let mut content = gateway.node.cat_below(self.cid, self.root.clone(), 0, sniffed)?;
        let mut start = Vec::new();
        while let Some(piece) = content.next().await.transpose()? {
            start.extend_from_slice(&piece);
        }
        let is_whole = start.len() as u64 >= self.size;
        let kind = media_type::by_content(&start, is_whole);
        gateway.sniffed.set(self.cid, kind);
        Ok(kind.to_owned())
    }
}

/// Sets the headers and status of an answer with all of the content or a range of it.
pub(super) fn add_range(response: &mut Response<Body>, range: Option<&Range<u64>>, size: u64) {
    let mut length = size;
    if let Some(range) = range {
        length = range.end - range.start;
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let value = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        headers::set(response.headers_mut(), header::CONTENT_RANGE, &value);
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers::set(headers, header::ACCEPT_RANGES, "bytes");
}

/// Sets the name under which browsers save the content, if the request has one.
fn add_file_name(headers: &mut HeaderMap, asked: &Asked<'_>) {
    if let Some(name) = asked.query.get("filename") {
        let download = asked.query.get("download") == Some("true");
        let kind = if download { "attachment" } else { "inline" };
        headers::set(
            headers,
            header::CONTENT_DISPOSITION,
            &headers::disposition(kind, name),
        );
    }
}

/// Sends the target of a symbolic link; following it could lead out of what the client asked for.
fn symlink(asked: &Asked<'_>, target: &Target, stat: &Stat) -> Response<Body> {
    let link = stat.link_target.clone().unwrap_or_default();
    let link = link.as_bytes().to_vec();
    let mut response = Response::new(empty());
    target.add_headers(response.headers_mut(), &headers::etag(&target.cid, None));
    headers::set(response.headers_mut(), header::CONTENT_TYPE, "inode/symlink");
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, link.len().into());
    if !asked.head {
        *response.body_mut() = whole(link);
    }
    response
}

/// Sends the page of a directory: its `index.html`, otherwise a listing.
async fn directory(gateway: &Gateway, asked: &Asked<'_>, target: &Target) -> Result<Response<Body>, Refusal> {
    // Relative links in the page need the slash.
    if !asked.url_path.ends_with('/') && asked.query.get("go-get") != Some("1") {
        let location = format!("{}/{}", single_slash(&asked.url_path), asked.query.suffix());
        return Ok(redirect(StatusCode::MOVED_PERMANENTLY, &location));
    }
    let index = DagPath {
        root: target.cid,
        segments: vec!["index.html".into()],
    };
    match gateway.node.resolve(&index).await {
        Ok(index) => {
            let (stat, root) = gateway.node.file_root(index.cid).await?;
            if stat.kind != Kind::File {
                let why = "index.html is not a file";
                return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, why));
            }
            let page = File::page(index.cid, &stat, root);
            page.answer(gateway, asked, target, StatusCode::OK).await
        }
        Err(Error::NoLink { .. }) => listing(gateway, asked, target).await,
        Err(error) => Err(error.into()),
    }
}

/// Returns a path with one slash at its start: two would name another host.
fn single_slash(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/'))
}

async fn listing(gateway: &Gateway, asked: &Asked<'_>, target: &Target) -> Result<Response<Body>, Refusal> {
    let mut response = Response::new(empty());
    let headers = response.headers_mut();
    target.add_headers(headers, &headers::listing_etag(&target.cid));
    headers.remove(header::CACHE_CONTROL);
    if let Some(value) = headers::page_cache_control(target.mutable, target.ttl) {
        headers::set(headers, header::CACHE_CONTROL, &value);
    }
    pages::add_headers(headers);
    if !asked.head {
        let entries = gateway.node.ls(target.cid, false).await?;
        let page = pages::directory(asked, &target.cid, entries);
        *response.body_mut() = streamed(started(page, CHECKED).await?);
    }
    Ok(response)
}

/// Returns whether blocks of this CID are files or parts of them.
pub(super) fn is_unixfs(cid: &Cid) -> bool {
    matches!(cid.codec(), codec::RAW | codec::DAG_PB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_on_the_host() {
        assert_eq!(single_slash("//example.com/x"), "/example.com/x");
        assert_eq!(single_slash("/ipfs/x"), "/ipfs/x");
    }
}
