//! Opening a folder. All of the log and of Raft's state is checked before anything is used.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use cluster_core::{LogEntry, Members, Policy, Recovered, Term, Window};
use fjall::Database;
use serde::de::DeserializeOwned;

use super::error::{OpenError, StoreError};
use super::folder::Folder;
use super::journal::{self, CheckError};
use super::keys;
use super::reader::Reader;
use super::record::{self, Founding, Head};
use super::reindex;
use super::search_index::SearchMarker;
use super::shared::Shared;
use super::spaces::{self, Fixed, Generation, OpenFailure};
use super::staging::Stager;
use super::sync_marker::{self, SyncMarker};
use super::view::{Floors, StoreView};

/// Callback for a fatal failure, called before the process ends.
pub type OnFatal = Arc<dyn Fn(&StoreError) + Send + Sync>;

/// Options of [`Store::open`].
#[derive(Clone)]
pub struct OpenOptions {
    /// Size of the block cache, in bytes.
    pub cache: u64,
    /// Called before the process ends, for fatal failures where no error can be returned, in a
    /// [`StoreView`].
    pub on_fatal: Option<OnFatal>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            cache: spaces::CACHE,
            on_fatal: None,
        }
    }
}

impl fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenOptions")
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

/// The open store, with exclusive write access. Syncs on drop.
pub struct Store {
    pub(super) shared: Arc<Shared>,
    /// As of the last batch; `None` before the founding.
    pub(super) head: Option<Head>,
    pub(super) generation: Arc<Generation>,
    /// Term and checksum of each entry of the log, to append after it.
    pub(super) links: VecDeque<Link>,
    pub(super) floors: Mutex<Floors>,
    /// Contents found when opening, until [`Store::recovered`].
    found: Option<Recovered>,
}

/// Values of a log entry that the next one follows.
#[derive(Clone, Copy)]
pub(super) struct Link {
    /// The entry's chained checksum.
    pub(super) chain: u64,
    /// The entry's term.
    pub(super) term: Term,
}

impl Store {
    /// Opens a folder, or creates one, and locks it. All of the log and of Raft's state is read and
    /// checked; pins are checked as they are read.
    ///
    /// # Errors
    /// [`OpenError`] when the folder is locked, foreign, damaged or from a later release, or cannot be
    /// read.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self, OpenError> {
        let folder = Folder::open(path.as_ref())?;
        let (marker, noted) = SyncMarker::open(&folder.path).map_err(|error| folder.io(error))?;
        check_journals(&folder, noted)?;
        let db = spaces::open_database(&folder.database(), options.cache)
            .map_err(|failure| open_error(&folder, failure))?;
        let content = load(&db, noted, &folder)?;
        Self::assemble(db, content, (marker, noted), folder, options)
    }

    fn assemble(
        db: Database,
        content: Option<Content>,
        (mut marker, noted): (SyncMarker, Option<u64>),
        folder: Folder,
        options: &OpenOptions,
    ) -> Result<Self, OpenError> {
        if noted.is_none() {
            marker
                .note(0)
                .and_then(|()| marker.sync())
                .map_err(|error| folder.io(error))?;
        }
        let number = content.as_ref().map_or(0, |content| content.head.generation);
        let seq = content.as_ref().map_or(0, |content| content.head.seq);
        let internal = |error: fjall::Error| open_error(&folder, spaces::failure(error));
        let fixed = spaces::fixed(&db).map_err(internal)?;
        spaces::skip_numbers(&db, &fixed).map_err(internal)?;
        // An index that is not complete is left to be deleted, with its number.
        let complete = content.as_ref().map_or(Some(number), |content| content.search);
        let search_number = complete.unwrap_or_else(|| spaces::unused_number(&db, number + 1));
        let current = spaces::generation(&db, number, search_number).map_err(internal)?;
        let leftovers = spaces::leftovers(&db, &current).map_err(internal)?;
        let on_fatal = options.on_fatal.clone();
        let policy = content.as_ref().map(|content| content.policy.clone());
        let policy = policy.unwrap_or_default();
        let shared = Shared::new(db, fixed, current, policy, (marker, seq), folder, on_fatal);
        let shared = Arc::new(shared);
        let failed = |error: StoreError| {
            if let StoreError::Damaged(what) = error {
                shared.folder.damaged(what)
            } else {
                shared.folder.io(std::io::Error::other(error))
            }
        };
        let leftovers: Vec<_> = leftovers.iter().collect();
        shared.delete_keyspaces(&leftovers).map_err(failed)?;
        if let (None, Some(content)) = (complete, &content) {
            reindex::rebuild(&shared, &shared.current(), &content.head).map_err(failed)?;
        }
        let (head, links, found) = match content {
            Some(content) => (Some(content.head), content.links, Some(content.recovered)),
            None => (None, VecDeque::new(), None),
        };
        Ok(Self {
            generation: shared.current(),
            shared,
            head,
            links,
            floors: Mutex::default(),
            found,
        })
    }

    /// Returns the state that was durable when the folder was opened; its `boot` counts this process, and
    /// that count is synced. `None` for a folder without a founding, and on a second call. To be called
    /// before the first write.
    ///
    /// # Errors
    /// [`StoreError`] when the count cannot be written.
    pub fn recovered(&mut self) -> Result<Option<Recovered>, StoreError> {
        let Some(mut recovered) = self.found.take() else {
            return Ok(None);
        };
        recovered.boot += 1;
        let mut batch = self.shared.db.batch();
        let boot = record::seal(keys::BOOT, &recovered.boot);
        batch.insert(&self.shared.fixed.meta, keys::BOOT, boot);
        batch.commit().map_err(StoreError::Write)?;
        self.shared.sync_all()?;
        Ok(Some(recovered))
    }

    /// Returns whether the folder has a founding.
    pub fn is_founded(&self) -> bool {
        self.head.is_some()
    }

    /// Writes the initial state of a fresh folder, and syncs it. `recovered` must have no log.
    ///
    /// # Errors
    /// [`StoreError::Contract`] for a founded folder or a state with a log; another one when the disk
    /// fails.
    pub fn initialise(&mut self, recovered: &Recovered) -> Result<(), StoreError> {
        if self.is_founded() || !recovered.log.is_empty() {
            let why = "a store is founded once, and without a log";
            return Err(StoreError::Contract(why.to_owned()));
        }
        let head = self.head_of(recovered, self.generation.number);
        if let Some(why) = head.contradiction() {
            return Err(StoreError::Contract(why));
        }
        let founding = Founding {
            incarnation: recovered.incarnation,
        };
        let meta = &self.shared.fixed.meta;
        let mut batch = self.shared.db.batch();
        batch.insert(meta, keys::FOUNDING, record::seal(keys::FOUNDING, &founding));
        batch.insert(meta, keys::BOOT, record::seal(keys::BOOT, &recovered.boot));
        batch.insert(meta, keys::MEMBERS, record::seal_members(&recovered.members));
        batch.insert(meta, keys::HEAD, record::seal(keys::HEAD, &head));
        if let Some(marker) = self.shared.search_marker(&self.generation, &head) {
            batch.insert(meta, keys::SEARCH, marker);
        }
        for window in &recovered.windows {
            let key = keys::window(window.origin);
            batch.insert(meta, key.as_slice(), record::seal(&key, window));
        }
        batch.commit().map_err(StoreError::Write)?;
        self.shared.note_written(head.seq);
        self.head = Some(head);
        self.shared.sync_all()
    }

    /// The core's view: everything written so far.
    pub fn view(&self) -> StoreView<'_> {
        StoreView::new(self)
    }

    /// A handle for listings and look-ups on other threads.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    /// A handle for receiving snapshots.
    pub fn stager(&self) -> Stager {
        Stager::new(Arc::clone(&self.shared))
    }

    /// Makes everything written so far survive power loss. Blocks; a [`Syncer`](super::Syncer) does it in
    /// its own thread.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.shared.sync()
    }

    /// Syncs everything and closes the folder, once readers and stagings are dropped too.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails.
    pub fn close(self) -> Result<(), StoreError> {
        self.shared.sync_all()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.shared.sync_all() {
            tracing::error!(%error, "the store was not synced while closing");
        }
    }
}

/// Refuses damaged journals, and cuts off a write torn by a power cut: the last journal may have an invalid
/// end if everything durable is before it. If no batch is before it in any journal, the tables may hold them
/// all, and [`load`] decides.
fn check_journals(folder: &Folder, noted: Option<u64>) -> Result<(), OpenError> {
    let bad_end = journal::check(&folder.database()).map_err(|error| match error {
        CheckError::Damaged(what) => folder.damaged(what),
        CheckError::Io(error) => folder.io(error),
    })?;
    let Some(bad_end) = bad_end else {
        return Ok(());
    };
    if noted.is_none() || bad_end.seq.is_some_and(|seq| Some(seq) < noted) {
        return Err(folder.damaged(bad_end.what));
    }
    tracing::warn!(
        what = bad_end.what,
        "the last write before a crash is incomplete and is dropped"
    );
    bad_end.cut().map_err(|error| folder.io(error))
}

/// Contents of a founded database.
struct Content {
    head: Head,
    /// Number of the search index, if it is complete.
    search: Option<u64>,
    recovered: Recovered,
    policy: Policy,
    links: VecDeque<Link>,
}

/// Reads and checks everything but pins, local state and queues; `None` without a founding.
fn load(db: &Database, noted: Option<u64>, folder: &Folder) -> Result<Option<Content>, OpenError> {
    let missing = spaces::missing_fixed(db);
    if noted.unwrap_or(0) == 0 && missing.is_some() {
        return Ok(None);
    }
    if let Some(name) = missing {
        return Err(folder.damaged(format!("keyspace {name:?} is gone")));
    }
    let fixed = spaces::fixed(db).map_err(|error| open_error(folder, spaces::failure(error)))?;
    let Some(head) = read::<Head>(&fixed, keys::HEAD, folder)? else {
        return match noted {
            Some(0) => Ok(None),
            _ => Err(folder.damaged("all that was written is gone")),
        };
    };
    let name = sync_marker::NAME;
    let noted = noted.ok_or_else(|| folder.damaged(format!("the file {name:?} is damaged or gone")))?;
    if head.seq < noted {
        let lost = noted - head.seq;
        return Err(folder.damaged(format!("the last {lost} batches, which were durable, are gone")));
    }
    if let Some(why) = head.contradiction() {
        return Err(folder.damaged(why));
    }
    if !spaces::has_generation(db, head.generation) {
        return Err(folder.damaged("the pinset is gone"));
    }
    let search = read::<SearchMarker>(&fixed, keys::SEARCH, folder)?
        .filter(|marker| marker.is_current(&head) && spaces::has_search(db, marker.number));
    let (log, links) = read_log(&fixed, &head, folder)?;
    let founding: Founding = read_present(&fixed, keys::FOUNDING, folder)?;
    let recovered = Recovered {
        incarnation: founding.incarnation,
        boot: read_present(&fixed, keys::BOOT, folder)?,
        hard_state: head.hard_state,
        compacted: head.compacted,
        log,
        applied: head.applied,
        members: read_present::<Members>(&fixed, keys::MEMBERS, folder)?,
        windows: read_windows(&fixed, folder)?,
        reconciling: head.reconciling,
    };
    let policy = read(&fixed, keys::POLICY, folder)?.unwrap_or_default();
    Ok(Some(Content {
        head,
        search: search.map(|marker| marker.number),
        recovered,
        policy,
        links,
    }))
}

fn read_log(
    fixed: &Fixed,
    head: &Head,
    folder: &Folder,
) -> Result<(Vec<LogEntry>, VecDeque<Link>), OpenError> {
    let mut chain = head.compacted_chain;
    let (mut log, mut links) = (Vec::new(), VecDeque::new());
    let mut term = head.compacted.1;
    let mut stored = fixed
        .log
        .range(keys::log(head.compacted.0 + 1)..=keys::log(head.last));
    for index in head.compacted.0 + 1..=head.last {
        let bad = |what: &str| folder.damaged(format!("log entry {index}: {what}"));
        let next = stored.next().ok_or_else(|| bad("it is gone"))?;
        let (key, value) = next.into_inner().map_err(|error| bad(&error.to_string()))?;
        if *key != keys::log(index) {
            return Err(bad("it is gone"));
        }
        let (entry, sum) = record::unchain_entry(&value, chain).map_err(|what| bad(&what))?;
        if entry.index != index || entry.term < term {
            return Err(bad("it does not follow the one before"));
        }
        (chain, term) = (sum, entry.term);
        links.push_back(Link { chain, term });
        log.push(entry);
    }
    if chain != head.chain {
        return Err(folder.damaged("the log ends in another entry than was written"));
    }
    Ok((log, links))
}

fn read_windows(fixed: &Fixed, folder: &Folder) -> Result<Vec<Window>, OpenError> {
    let windows = fixed.meta.prefix(keys::WINDOWS);
    windows
        .map(|guard| {
            let (key, value) = guard.into_inner().map_err(|error| error.to_string())?;
            record::unseal(&key, &value)
        })
        .collect::<Result<_, _>>()
        .map_err(|what| folder.damaged(format!("a record of applied proposals: {what}")))
}

fn read<T: DeserializeOwned>(fixed: &Fixed, key: &[u8], folder: &Folder) -> Result<Option<T>, OpenError> {
    let bad = |what: String| folder.damaged(format!("record {:?}: {what}", String::from_utf8_lossy(key)));
    let Some(value) = fixed.meta.get(key).map_err(|error| bad(error.to_string()))? else {
        return Ok(None);
    };
    if let Some(version) = value
        .first()
        .filter(|version| **version > cluster_core::READABLE_VERSION)
    {
        return Err(folder.newer(u32::from(*version)));
    }
    record::unseal(key, &value).map(Some).map_err(bad)
}

fn read_present<T: DeserializeOwned>(fixed: &Fixed, key: &[u8], folder: &Folder) -> Result<T, OpenError> {
    let name = String::from_utf8_lossy(key);
    read(fixed, key, folder)?.ok_or_else(|| folder.damaged(format!("record {name:?} is gone")))
}

fn open_error(folder: &Folder, failure: OpenFailure) -> OpenError {
    match failure {
        OpenFailure::Damaged(what) => folder.damaged(what),
        OpenFailure::Io(error) => io_or_damage(folder, error),
    }
}

/// Missing, short or contradictory files are damage; other errors are the operating system's.
fn io_or_damage(folder: &Folder, error: std::io::Error) -> OpenError {
    use std::io::ErrorKind::{InvalidData, InvalidInput, NotFound, Other, UnexpectedEof};
    let damage = matches!(
        error.kind(),
        InvalidData | InvalidInput | NotFound | Other | UnexpectedEof
    );
    if damage {
        folder.damaged(error.to_string())
    } else {
        folder.io(error)
    }
}
