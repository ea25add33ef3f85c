//! HTTP requests that cost little to send and, without limits, much to answer.

use std::io::{Read, Write};
use std::net::TcpStream;

use cluster_ipfs::Cid;
use tests::{Peer, cids, http};

use super::stranger::field;

/// Bytes to send of an endless request.
const ENDLESS: usize = 128 << 20;
/// Bytes to read of an endless response.
const READ_MAX: u64 = 32 << 20;
const BOUNDARY: &str = "a-boundary-that-no-test-adds";

fn post(port: u16, target: &str, kind: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(http::SILENCE)).ok()?;
    stream.set_write_timeout(Some(http::SILENCE)).ok()?;
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {kind}\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    Some(stream)
}

/// Sends a body until its end or until the server closes; reads the response.
fn upload(port: u16, target: &str, body: impl Iterator<Item = Vec<u8>>) {
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let Some(mut stream) = post(port, target, &kind) else {
        return;
    };
    for part in body {
        let chunk = [format!("{:x}\r\n", part.len()).as_bytes(), &part, b"\r\n"].concat();
        if stream.write_all(&chunk).is_err() {
            return;
        }
    }
    if stream.write_all(b"0\r\n\r\n").is_ok() {
        drain(stream);
    }
}

/// Reads a response up to [`READ_MAX`].
fn drain(stream: TcpStream) {
    drop(std::io::copy(&mut stream.take(READ_MAX), &mut std::io::sink()));
}

/// Sends a multipart body without a boundary.
pub(super) fn endless_preamble(port: u16, target: &str) {
    let piece = vec![b'-'; 1 << 20];
    upload(port, target, std::iter::repeat_n(piece, ENDLESS >> 20));
}

/// Sends a part whose headers never end.
pub(super) fn endless_header(port: u16, target: &str) {
    let start = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"");
    let piece = vec![b'n'; 1 << 20];
    let body = std::iter::repeat_n(piece, ENDLESS >> 20);
    upload(port, target, std::iter::once(start.into_bytes()).chain(body));
}

/// Sends 17 MB of empty directories with long names.
pub(super) fn directories(port: u16, target: &str) {
    upload_directories(port, target, 17 << 20, |number| format!("{number:0>255}"));
}

/// Sends 17 MB of empty directories, each nested in 120 otherwise empty ones.
pub(super) fn deep_directories(port: u16, target: &str) {
    // A directory per two bytes of a name: more would take an unoptimised build minutes.
    upload_directories(port, target, 1 << 20, |number| {
        format!("{number:0>15}{}", "%2Fd".repeat(120))
    });
}

fn upload_directories(port: u16, target: &str, bytes: usize, name: impl Fn(usize) -> String) {
    let part = |number: usize| {
        let name = name(number);
        format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/x-directory\r\n\r\n\r\n"
        )
        .into_bytes()
    };
    let count = bytes / part(0).len();
    let end = format!("--{BOUNDARY}--\r\n").into_bytes();
    upload(port, target, (0..count).map(part).chain([end]));
}

/// Sends 4 MB with a chunk size of one byte.
pub(super) fn one_byte_chunks(port: u16, target: &str) {
    let (_, body) = http::multipart(&[("file", &cids::bytes(1, 4 << 20))]);
    upload(port, target, body.chunks(1 << 16).map(<[u8]>::to_vec));
}

/// Stores a block and returns its CID.
pub(super) fn put(peer: &Peer, codec: &str, data: &[u8]) -> Option<Cid> {
    let (kind, body) = http::multipart(&[("block", data)]);
    let target = format!("/api/v0/block/put?cid-codec={codec}");
    let headers = [("Content-Type", kind.as_str())];
    let answer = http::request(peer.ipfs_port, "POST", &target, &headers, &body).ok()?;
    answer.json()["Key"].as_str()?.parse().ok()
}

/// Stores a sharded directory of a few blocks that claims 256^5 entries: all 256 links of a shard lead to the
/// same next shard.
fn repeating_shards(peer: &Peer) -> Option<Cid> {
    const DEPTH: usize = 5;
    // UnixFS: a shard with all of its 256 slots used, hashed with murmur3.
    let shard = [
        &[0x08, 5][..],
        &field(2, &[0xff; 32]),
        &[0x28, 0x22, 0x30, 0x80, 0x02],
    ]
    .concat();
    let mut child = put(peer, "raw", b"content")?;
    for depth in (0..DEPTH).rev() {
        let suffix = if depth == DEPTH - 1 { "file" } else { "" };
        let link = |slot: usize| {
            let name = format!("{slot:02X}{suffix}");
            field(
                2,
                &[
                    field(1, &child.to_bytes()),
                    field(2, name.as_bytes()),
                    vec![0x18, 1],
                ]
                .concat(),
            )
        };
        let links: Vec<u8> = (0..256).flat_map(link).collect();
        child = put(peer, "dag-pb", &[links, field(1, &shard)].concat())?;
    }
    Some(child)
}

/// Lists or gets a directory of repeating shards.
pub(super) fn read_repeating_shards(peer: &Peer, command: &str) {
    let root = repeating_shards(peer).expect("the node takes blocks");
    let target = format!("/api/v0/{command}?arg={root}");
    if let Some(mut stream) = post(peer.ipfs_port, &target, "text/plain")
        && stream.write_all(b"0\r\n\r\n").is_ok()
    {
        drain(stream);
    }
}

/// Sends bytes of no protocol.
pub(super) fn garbage(port: u16) {
    for (round, start) in [
        &b""[..],
        b"\x13/multistream/1.0.0\n\x07/noise\n",
        b"POST / HTTP/1.1\r\n",
    ]
    .iter()
    .enumerate()
    {
        for seed in 0..8 {
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
                return;
            };
            drop(stream.set_write_timeout(Some(http::SILENCE)));
            let noise = cids::bytes(seed + 100 * round as u64, 1 << 20);
            // The peer may close at any byte.
            drop(stream.write_all(&[start, &noise[..]].concat()));
        }
    }
}

/// Opens connections and sends nothing.
pub(super) fn silent(port: u16) -> Vec<TcpStream> {
    const SILENT: usize = 300;
    let connect = |_| TcpStream::connect(("127.0.0.1", port)).ok();
    (0..SILENT).filter_map(connect).collect()
}

/// Starts uploads that send the beginning of a file and then nothing.
pub(super) fn silent_uploads(port: u16, target: &str, count: usize) -> Vec<TcpStream> {
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let part = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nbeginning"
    );
    let chunk = format!("{:x}\r\n{part}\r\n", part.len());
    let start = |_| {
        let mut stream = post(port, target, &kind)?;
        stream.write_all(chunk.as_bytes()).ok()?;
        Some(stream)
    };
    (0..count).filter_map(start).collect()
}
