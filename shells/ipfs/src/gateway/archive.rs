//! Tar archives of files and directories.

use hyper::Response;
use hyper::header;

use super::block::disposition;
use super::failure::Refusal;
use super::format::Format;
use super::handler::{Asked, Target};
use super::reply::{Body, CHECKED, empty, started, streamed};
use super::unixfs::is_unixfs;
use super::{Gateway, headers};

/// Sends an archive whose entries are below the CID.
pub(super) async fn answer(
    gateway: &Gateway,
    asked: &Asked<'_>,
    target: &Target,
) -> Result<Response<Body>, Refusal> {
    if !is_unixfs(&target.cid) {
        let why = format!("{} is neither a file nor a directory", target.cid);
        return Err(Refusal::new(hyper::StatusCode::NOT_ACCEPTABLE, why));
    }
    let name = target.cid.to_string();
    let mut response = Response::new(empty());
    let headers = response.headers_mut();
    target.add_headers(headers, &headers::etag(&target.cid, Some(Format::Tar.name())));
    headers::set(headers, header::CONTENT_TYPE, Format::Tar.media_type());
    let file = format!("{name}.tar");
    headers::set(
        headers,
        header::CONTENT_DISPOSITION,
        &disposition(asked, "attachment", &file),
    );
    // A name that would leave the archive is usually found in its beginning.
    let archive = started(gateway.node.tar(target.cid, name.into()), CHECKED).await?;
    if !asked.head {
        *response.body_mut() = streamed(archive);
    }
    Ok(response)
}
