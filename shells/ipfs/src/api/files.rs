//! The commands `cat`, `get` and `ls`.

use cluster_http::rpc::Failure;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use serde::Serialize;

use super::reply::Reply;
use super::request::Call;
use crate::unixfs::{DirEntry, Kind, Metadata, Stat, mode_to_go};

/// Handles `cat`: concatenates files.
pub(super) async fn cat(call: Call) -> Result<Reply, Failure> {
    let not_negative = |option: &str| match call.number(option) {
        Some(number) => match u64::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Failure::failed(format!("cannot specify negative {option}"))),
        },
        None => Ok(None),
    };
    let mut skip = not_negative("offset")?.unwrap_or(0);
    let mut left = not_negative("length")?;
    let mut total = 0;
    let mut parts = Vec::with_capacity(call.args.len());
    for arg in &call.args {
        if left == Some(0) {
            break;
        }
        let cid = call.resolve(arg).await?;
        let stat = call.node.file_stat(cid).await?;
        match stat.kind {
            Kind::Directory => return Err(crate::Error::IsDirectory.into()),
            Kind::Symlink => return Err(Failure::failed("this dag node is a symlink")),
            Kind::File => {}
        }
        // Files claim their sizes; the sum may be anything.
        let Some(rest) = stat.bytes.checked_sub(skip) else {
            skip -= stat.bytes;
            continue;
        };
        let length = left.map_or(rest, |left| left.min(rest));
        parts.push((cid, skip, length));
        total = length.saturating_add(total);
        left = left.map(|left| left - length);
        skip = 0;
    }
    let node = call.node.clone();
    let pieces = stream::iter(parts)
        .then(move |(cid, offset, length)| {
            let node = node.clone();
            // Opened one at a time: an open file holds blocks.
            async move {
                match node.cat(cid, offset, Some(length)).await {
                    Ok(pieces) => pieces.map_err(Failure::from).boxed(),
                    Err(error) => failing(error.into()),
                }
            }
        })
        .flatten()
        .boxed();
    Ok(Reply::Content {
        kind: "text/plain",
        length: Some(total),
        pieces,
    })
}

fn failing<T: Send + 'static>(failure: Failure) -> BoxStream<'static, Result<T, Failure>> {
    stream::once(std::future::ready(Err(failure))).boxed()
}

/// Returns the requested level of compression.
fn compression(call: &Call) -> Result<Option<u32>, Failure> {
    let wrong = || Failure::failed("compression level must be between 1 and 9");
    match call.number("compression-level") {
        _ if !call.flag("compress", false) => Ok(None),
        None | Some(-1) => Ok(Some(super::gzip::DEFAULT_LEVEL)),
        Some(level) => u32::try_from(level)
            .ok()
            .filter(|level| (1..=9).contains(level))
            .map(Some)
            .ok_or_else(wrong),
    }
}

/// Handles `get`: returns a tar archive, or with compression a file or an archive.
pub(super) async fn get(call: Call) -> Result<Reply, Failure> {
    let level = compression(&call)?;
    let path = call.dag_path(&call.arg(0)).await?;
    let cid = call.node.resolve(&path).await?.cid;
    let stat = call.node.file_stat(cid).await?;
    let name = path
        .segments
        .last()
        .cloned()
        .unwrap_or_else(|| path.root.to_string().into());
    let is_file = stat.kind == Kind::File;
    // With compression a file's content is sent as it is, unless an archive is asked for.
    let pieces = if level.is_some() && !call.flag("archive", false) {
        if !is_file {
            return Err(Failure::failed("file is not regular"));
        }
        call.node.cat(cid, 0, None).await?
    } else {
        call.node.tar(cid, name)
    };
    let pieces = match level {
        Some(level) => super::gzip::compressed(pieces, level)
            .map_err(Failure::from)
            .boxed(),
        None => pieces.map_err(Failure::from).boxed(),
    };
    let kind = if level.is_some() {
        "application/gzip"
    } else {
        "application/x-tar"
    };
    // The length of a directory is unknown until it is walked; it only feeds a progress bar.
    let length = match stat.kind {
        Kind::File => Some(stat.bytes),
        Kind::Directory | Kind::Symlink => None,
    };
    Ok(Reply::Content { kind, length, pieces })
}

#[derive(Serialize)]
struct Objects {
    #[serde(rename = "Objects")]
    objects: Vec<Object>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Object {
    hash: String,
    links: Vec<Entry>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    name: String,
    hash: String,
    size: u64,
    #[serde(rename = "Type")]
    kind: u8,
    target: String,
    mode: u32,
    mod_time: String,
}

impl Entry {
    /// Returns the bytes that an entry occupies in memory and as JSON.
    fn weight(&self) -> usize {
        let texts = self.name.len() + self.hash.len() + self.target.len() + self.mod_time.len();
        size_of::<Entry>() + 2 * texts + 100
    }
}

fn entry(call: &Call, entry: DirEntry) -> Entry {
    let target = entry.target.unwrap_or(Stat {
        kind: Kind::File,
        bytes: entry.size,
        meta: Metadata::default(),
        link_target: None,
    });
    let kind = match target.kind {
        Kind::Directory => 1,
        Kind::File => 2,
        Kind::Symlink => 4,
    };
    /// Bits of Go's `os.FileMode` for directories and links.
    const GO_DIRECTORY: u32 = 1 << 31;
    const GO_SYMLINK: u32 = 1 << 27;
    let type_bit = match target.kind {
        Kind::Directory => GO_DIRECTORY,
        Kind::File => 0,
        Kind::Symlink => GO_SYMLINK,
    };
    Entry {
        name: entry.name.to_string(),
        hash: call.format_cid(&entry.cid),
        size: target.bytes,
        kind,
        target: target.link_target.unwrap_or_default().to_string(),
        mode: target
            .meta
            .mode
            .filter(|mode| *mode != 0)
            .map_or(0, |mode| mode_to_go(mode) | type_bit),
        mod_time: rfc3339(target.meta.mtime),
    }
}

/// Handles `ls`. Without `stream` the answer is one object with sorted links.
pub(super) async fn ls(call: Call) -> Result<Reply, Failure> {
    let resolve = call.flag("resolve-type", true) || call.flag("size", true);
    if !call.flag("stream", false) {
        let mut held = call.node.budget().holding();
        let mut objects = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            let cid = call.resolve(arg).await?;
            let mut entries = call.node.ls(cid, resolve).await?;
            let mut links = Vec::new();
            while let Some(entry) = entries.try_next().await? {
                let entry = to_entry(&call, entry, resolve);
                held.grow(entry.weight())?;
                links.push(entry);
            }
            links.sort_by(|a, b| a.name.cmp(&b.name));
            objects.push(Object {
                hash: arg.to_string(),
                links,
            });
        }
        return Reply::once(&Objects { objects });
    }
    let mut listings = Vec::with_capacity(call.args.len());
    for arg in &call.args {
        let cid = call.resolve(arg).await?;
        let entries = call.node.ls(cid, resolve).await?.map_err(Failure::from);
        let arg = arg.to_string();
        listings.push(entries.map_ok(move |entry| (arg.clone(), entry)).boxed());
    }
    Reply::objects(
        stream::iter(listings)
            .flatten()
            .map_ok(move |(hash, entry)| Objects {
                objects: vec![Object {
                    hash,
                    links: vec![to_entry(&call, entry, resolve)],
                }],
            }),
    )
}

fn to_entry(call: &Call, found: DirEntry, resolve: bool) -> Entry {
    let shown = entry(call, found);
    // 0 means unknown: the entry was not fetched.
    if resolve {
        shown
    } else {
        Entry { kind: 0, ..shown }
    }
}

/// Formats a time like Go; `None` as Go's zero time.
fn rfc3339(time: Option<(i64, u32)>) -> String {
    let Some((seconds, nanos)) = time else {
        return "0001-01-01T00:00:00Z".to_owned();
    };
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let fraction = match nanos {
        0 => String::new(),
        nanos => format!(".{nanos:09}").trim_end_matches('0').to_owned(),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Converts days since 1970-01-01 to a date (year, month, day) of the proleptic Gregorian calendar. Years are
/// counted from March, so that the leap day is the last of its year, in cycles of 400 years.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days.saturating_add(719_468);
    let cycle = shifted.div_euclid(146_097);
    let of_cycle = shifted.rem_euclid(146_097);
    let year_of_cycle = (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_cycle + cycle * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_as_go_prints_them() {
        assert_eq!(rfc3339(None), "0001-01-01T00:00:00Z");
        assert_eq!(rfc3339(Some((0, 0))), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(Some((1_604_320_482, 0))), "2020-11-02T12:34:42Z");
        assert_eq!(
            rfc3339(Some((951_782_400, 55_000))),
            "2000-02-29T00:00:00.000055Z"
        );
        assert_eq!(rfc3339(Some((-1, 0))), "1969-12-31T23:59:59Z");
    }
}
