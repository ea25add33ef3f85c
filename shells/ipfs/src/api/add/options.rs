//! Parses the options of `add` that determine the CID.

use std::str::FromStr;

use cid::Version;
use cluster_http::rpc::Failure;

use crate::api::request::Call;
use crate::unixfs::{AddOptions, Chunker, HashKind, Layout, Metadata, mode_from_go};

/// Parses the options that determine the CID; error texts are Kubo's.
pub(super) fn options(call: &Call) -> Result<AddOptions, Failure> {
    if call.flag("nocopy", false) {
        // Kubo's text when its filestore is off, the default.
        let message = "either the filestore or the urlstore must be enabled to use nocopy, see: \
                       https://github.com/ipfs/kubo/blob/master/docs/experimental-features.md#ipfs-filestore";
        return Err(Failure::failed(message));
    }
    let defaults = AddOptions::default();
    let size = |option: &str, default: usize| match call.number(option) {
        None => Ok(default),
        Some(number) => usize::try_from(number)
            .map_err(|_| Failure::failed(format!("option {option:?} cannot be negative: {number}"))),
    };
    let cid_version = match call.number("cid-version") {
        None => None,
        Some(0) => Some(Version::V0),
        Some(1) => Some(Version::V1),
        Some(other) => return Err(Failure::failed(format!("unknown CID version: {other}"))),
    };
    let inline_limit = size("inline-limit", 32)?;
    if inline_limit > 128 {
        let message = format!("inline-limit {inline_limit} exceeds maximum allowed size of 128 bytes");
        return Err(Failure::failed(message));
    }
    let hash = HashKind::from_str(call.text("hash").unwrap_or_default())?;
    if hash != HashKind::SHA2_256 && cid_version == Some(Version::V0) {
        return Err(Failure::failed("CIDv0 only supports sha2-256"));
    }
    let trickle = call.flag("trickle", false);
    Ok(AddOptions {
        cid_version,
        raw_leaves: call.maybe_flag("raw-leaves"),
        chunker: Chunker::from_str(call.text("chunker").unwrap_or_default())?,
        hash,
        layout: if trickle {
            Layout::Trickle
        } else {
            Layout::Balanced
        },
        inline: call.flag("inline", false).then_some(inline_limit),
        max_file_links: size("max-file-links", defaults.max_file_links)?,
        max_directory_links: size("max-directory-links", defaults.max_directory_links)?,
        hamt_fanout: size("max-hamt-fanout", defaults.hamt_fanout)?,
        hamt_threshold: call.node.hamt_threshold(),
        wrap: call.flag("wrap-with-directory", false),
        meta: requested_metadata(call)?,
        preserve: call.flag("preserve-mode", false) || call.flag("preserve-mtime", false),
        ..defaults
    })
}

fn requested_metadata(call: &Call) -> Result<Metadata, Failure> {
    let mode = call
        .number("mode")
        .filter(|mode| *mode != 0)
        .and_then(|mode| u32::try_from(mode).ok())
        .map(mode_from_go);
    let seconds = call.number("mtime").filter(|mtime| *mtime != 0);
    let nanos = call.number("mtime-nsecs").unwrap_or(0);
    if nanos != 0 && seconds.is_none() {
        let message = "option \"mtime-nsecs\" requires \"mtime\" to be provided as well";
        return Err(Failure::failed(message));
    }
    let nanos = u32::try_from(nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)
        .ok_or_else(|| Failure::failed("mtime-nsecs must be below 1000000000"))?;
    Ok(Metadata {
        mode,
        mtime: seconds.map(|seconds| (seconds, nanos)),
    })
}
