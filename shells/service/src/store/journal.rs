//! Checks and syncs of fjall's journal files.
//!
//! This module fills two gaps of fjall. fjall syncs under the lock that writers need, so a slow disk would
//! block the loop: [`ActiveJournal`] syncs the same file without it. And fjall mistakes damage for the torn
//! end of the last write, and accepts a changed sequence number: [`check`] reads the journals strictly
//! before fjall opens (and truncates) them. Both know the layout of format 3 as release 3.1.13 writes it,
//! which the manifest pins.

use std::fs::{self, File, OpenOptions};
use std::hash::Hasher;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::keys;
use super::record::{self, Head};

/// The journal that fjall writes to at the moment.
pub(super) struct ActiveJournal {
    folder: PathBuf,
    open: Option<(u64, File)>,
}

impl ActiveJournal {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, open: None }
    }

    /// Makes everything that fjall has handed to the operating system survive power loss. fjall syncs a
    /// journal before it begins the next, so syncing the newest one is enough.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let mut id = match &self.open {
            Some((id, _)) => *id,
            None => journals(&self.folder)?.pop().unwrap_or_default(),
        };
        while path(&self.folder, id + 1).try_exists()? {
            id += 1;
        }
        if self.open.as_ref().is_none_or(|(open, _)| *open != id) {
            let file = OpenOptions::new().write(true).open(path(&self.folder, id))?;
            self.open = Some((id, file));
        }
        match &self.open {
            Some((_, file)) => file.sync_data(),
            None => Ok(()),
        }
    }
}

fn path(folder: &Path, id: u64) -> PathBuf {
    folder.join(format!("{id}.jnl"))
}

/// Lists the ids of all journals, oldest first.
fn journals(folder: &Path) -> io::Result<Vec<u64>> {
    let mut ids = Vec::new();
    for file in fs::read_dir(folder)? {
        let name = file?.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(".jnl"));
        ids.extend(id.and_then(|id| id.parse::<u64>().ok()));
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Failure of [`check`].
pub(super) enum CheckError {
    /// A journal is damaged; the text says how.
    Damaged(String),
    /// A journal cannot be read.
    Io(io::Error),
}

impl From<io::Error> for CheckError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Maximum gap between sequence numbers of neighbouring batches. They are assigned consecutively, but not all
/// go to the journal.
const JUMP_MAX: u64 = 1 << 32;

/// An invalid end of the newest journal, which fjall refuses to open. It may be a write torn by a power
/// cut, since pages reach the disk in any order.
pub(super) struct BadEnd {
    file: PathBuf,
    /// Length of the valid part, in bytes.
    good: u64,
    /// Description of the damage after it.
    pub(super) what: String,
    /// Number of the store's last batch in the valid part; `None` when it holds none.
    pub(super) seq: Option<u64>,
}

impl BadEnd {
    /// Cuts off the invalid end, none of which may ever have been durable.
    pub(super) fn cut(&self) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(&self.file)?;
        file.set_len(self.good)?;
        file.sync_all()
    }
}

/// Reads all journals in a database's folder. Every batch must be complete, with increasing numbers; only
/// the newest journal may have an invalid end, which is returned.
pub(super) fn check(folder: &Path) -> Result<Option<BadEnd>, CheckError> {
    if !folder.try_exists()? {
        return Ok(None);
    }
    let ids = journals(folder)?;
    let mut progress = Progress::default();
    for id in &ids {
        let file = path(folder, *id);
        let mut reader = BufReader::with_capacity(1 << 18, File::open(&file)?);
        let newest = Some(id) == ids.last();
        let Some((good, what)) = check_journal(&mut reader, newest, &mut progress)? else {
            continue;
        };
        let what = format!("journal {id}.jnl: {what}");
        if !newest {
            return Err(CheckError::Damaged(what));
        }
        let seq = progress.seq;
        return Ok(Some(BadEnd {
            file,
            good,
            what,
            seq,
        }));
    }
    Ok(None)
}

/// Position of [`check`].
#[derive(Default)]
struct Progress {
    /// fjall's sequence number of the last batch.
    seqno: Option<u64>,
    /// The store's number of its last batch.
    seq: Option<u64>,
}

/// Returns the length of the valid part of a bad journal, and a description of the damage.
fn check_journal(
    reader: &mut impl Read,
    newest: bool,
    progress: &mut Progress,
) -> io::Result<Option<(u64, &'static str)>> {
    let mut good = 0;
    loop {
        match read_batch(reader)? {
            Found::Batch { seqno, seq, len } => {
                let before = progress.seqno;
                if !before.is_none_or(|before| seqno > before && seqno - before < JUMP_MAX) {
                    return Ok(Some((good, "its batches are out of order")));
                }
                progress.seqno = Some(seqno);
                progress.seq = seq.or(progress.seq);
                good += len;
            }
            Found::BadSum => return Ok(Some((good, "a batch does not match its checksum"))),
            // A write that was in progress, or one that was lost: the sync marker decides, later.
            Found::Other(_) | Found::End if newest => return Ok(None),
            Found::End => return Ok(None),
            Found::Other(0) if only_zeros(reader)? => return Ok(None),
            Found::Other(_) => return Ok(Some((good, "it is cut short"))),
        }
    }
}

enum Found {
    /// A complete batch: fjall's number, the store's if it is one of its batches, and length in bytes.
    Batch { seqno: u64, seq: Option<u64>, len: u64 },
    /// A complete batch whose checksum does not match.
    BadSum,
    /// The end of the file, at a batch boundary.
    End,
    /// An unexpected byte, or the end of the file inside a batch (reported as 255).
    Other(u8),
}

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// Bytes of kind, value type, compression, keyspace, lengths of key, value, and value as written.
const ITEM_HEAD: usize = 1 + 1 + 1 + 8 + 2 + 4 + 4;
/// Bytes of kind, number of items, number.
const START_LEN: u64 = 1 + 4 + 8;
/// Bytes of kind, checksum, trailer.
const END_LEN: u64 = 1 + 8 + 4;
/// Bytes after the checksum.
const TRAILER: [u8; 4] = *b"FJL\x03";
const CLEAR_LEN: usize = 1 + 8;

fn read_batch(reader: &mut impl Read) -> io::Result<Found> {
    match try_read_batch(reader) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Found::Other(u8::MAX)),
        other => other,
    }
}

fn try_read_batch(reader: &mut impl Read) -> io::Result<Found> {
    let mut kind = [0];
    if reader.read(&mut kind)? == 0 {
        return Ok(Found::End);
    }
    if kind[0] != START {
        return Ok(Found::Other(kind[0]));
    }
    let count = u32::from_le_bytes(read(reader)?);
    let seqno = u64::from_le_bytes(read(reader)?);
    let (mut sum, mut seq) = (Xxh3::new(), None);
    let (mut body, mut len) = (Vec::new(), START_LEN);
    for _ in 0..count {
        let [kind] = read(reader)?;
        body.clear();
        body.push(kind);
        match kind {
            ITEM => {
                let head: [u8; ITEM_HEAD - 1] = read(reader)?;
                body.extend_from_slice(&head);
                let lengths = &head[ITEM_HEAD - 11..];
                let key = u16::from_le_bytes([lengths[0], lengths[1]]);
                let value = u32::from_le_bytes([lengths[6], lengths[7], lengths[8], lengths[9]]);
                // `take` grows with the bytes that arrive, independently of the claimed length.
                let rest = u64::from(key) + u64::from(value);
                if reader.by_ref().take(rest).read_to_end(&mut body)? as u64 != rest {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let (key, value) = body[ITEM_HEAD..].split_at(usize::from(key));
                if key == keys::HEAD {
                    seq = record::unseal::<Head>(key, value).ok().map(|head| head.seq);
                }
            }
            CLEAR => body.extend_from_slice(&read::<{ CLEAR_LEN - 1 }>(reader)?),
            other => return Ok(Found::Other(other)),
        }
        sum.update(&body);
        len += body.len() as u64;
    }
    let [kind] = read(reader)?;
    if kind != END {
        return Ok(Found::Other(kind));
    }
    let expected = u64::from_le_bytes(read(reader)?);
    let trailer: [u8; TRAILER.len()] = read(reader)?;
    let whole = sum.finish() == expected && trailer == TRAILER;
    len += END_LEN;
    Ok(if whole {
        Found::Batch { seqno, seq, len }
    } else {
        Found::BadSum
    })
}

fn read<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn only_zeros(reader: &mut impl Read) -> io::Result<bool> {
    let mut bytes = vec![0; 1 << 16];
    loop {
        match reader.read(&mut bytes)? {
            0 => return Ok(true),
            len if bytes[..len].iter().any(|byte| *byte != 0) => return Ok(false),
            _ => {}
        }
    }
}
