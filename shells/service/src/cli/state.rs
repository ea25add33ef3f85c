//! `state`: export, import, cleanup, upgrade and rescue of a peer's state.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use cluster_core::PeerId;
use ipfs_cluster_service::config::{self, Folder};
use ipfs_cluster_service::state::{self, ImportOptions, backups, cleanup, running};
use ipfs_cluster_service::store::{self, OpenOptions, Store};

use super::lock::Lock;
use super::{Doing, Failure, Global, List, elements, note, path_or_empty, print_output, prompt};

/// Bytes read at once from a file or the standard input.
const BUFFER: usize = 256 << 10;

const LONG: &str = "\
Exports, imports or removes this peer's state: the pinset, and what the peer remembers of the cluster's log.

While the daemon runs, export and import go through its REST API.";

const EXPORT_LONG: &str = "\
Writes the pinset, one pin a line, as JSON. The Go peer's `state import` and this one's read it. A file \
appears whole or not at all.

Without the daemon it is what this peer knew last; with it, what the cluster has now.";

const IMPORT_LONG: &str = "\
Reads an exported pinset and replaces this peer's by it. Exports of Go peers of all versions are read, and \
the backups that peers make. All of it is checked before anything is replaced; what is replaced is saved in \
backups/ first. Without a file, the standard input is read.

A pin that cannot be read is named by its line and the reason, and nothing is imported. With --skip-bad the \
others are, and each bad one is named.

A cluster of several peers needs the same state on all: run the same import on each before any is started. \
Or start them, and import once, at one of them, while it runs: then the pins are added to the cluster's, \
with all that the file says of them, and none is removed.";

const CLEANUP_LONG: &str = "\
Removes everything that this peer has stored of the cluster. Its next start is like the first: it gets the \
state from the other peers. The configuration, the identity and the IPFS node's data stay. What is removed \
is kept as raft.old.0, the one before as raft.old.1, and so on (consensus.raft.backups_rotate).";

const UPGRADE_LONG: &str = "\
Brings what an earlier version left in the configuration folder into the current format: the state of \
Go ipfs-cluster 0.0.12, from its backups/ folder. The daemon reads all later formats itself.";

/// The subcommand.
#[derive(Debug, Args)]
#[command(long_about = LONG)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Save the pinset as JSON
    Export(Export),
    /// Load the pinset from a file produced by `export`
    Import(Import),
    /// Remove the peer's state
    Cleanup(Cleanup),
    /// Show the version of the state's format
    Version,
    /// Bring the state of an earlier version into the current format
    Upgrade(Upgrade),
    /// Make a new cluster of the survivors when the majority is lost permanently
    Rescue(super::rescue::Options),
    /// Accepted for the Go peer's sake: there is no crdt here
    #[command(hide = true)]
    Crdt {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
}

#[derive(Debug, Args)]
#[command(long_about = EXPORT_LONG)]
struct Export {
    /// Write to this file instead of the standard output
    #[arg(long, short, value_name = "FILE", value_parser = path_or_empty())]
    file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(long_about = IMPORT_LONG)]
struct Import {
    /// The file to read [default: the standard input]
    #[arg(value_parser = path_or_empty())]
    file: Option<PathBuf>,
    /// Do not ask
    #[arg(long, short)]
    force: bool,
    /// Set the minimum of copies of all pins
    #[arg(
        long,
        visible_alias = "rmin",
        value_name = "COUNT",
        default_value_t = 0,
        allow_hyphen_values = true
    )]
    replication_min: i32,
    /// Set the maximum of copies of all pins
    #[arg(
        long,
        visible_alias = "rmax",
        value_name = "COUNT",
        default_value_t = 0,
        allow_hyphen_values = true
    )]
    replication_max: i32,
    /// Allocate all pins to these peers (ids)
    #[arg(long, visible_alias = "allocs", value_name = "PEERS")]
    allocations: Vec<List<PeerId>>,
    /// Leave out invalid pins, naming each, instead of importing nothing
    #[arg(long)]
    skip_bad: bool,
}

#[derive(Debug, Args)]
#[command(long_about = CLEANUP_LONG)]
struct Cleanup {
    /// Do not ask
    #[arg(long, short)]
    force: bool,
}

#[derive(Debug, Args)]
#[command(long_about = UPGRADE_LONG)]
struct Upgrade {
    /// Do not ask
    #[arg(long, short)]
    force: bool,
}

pub(super) fn run(global: &Global, options: Options) -> Result<(), Failure> {
    if let Command::Crdt { .. } = options.command {
        let why = "crdt subcommands can only be run on peers initialized with crdt consensus";
        return Err(anyhow::anyhow!(why)).doing("using the state");
    }
    let folder = open(global).doing("loading configurations")?;
    match options.command {
        Command::Export(options) => export(&folder, &options).doing("exporting state"),
        Command::Import(mut options) => {
            options.force |= global.force;
            import(&folder, &options).doing("importing state")
        }
        Command::Cleanup(options) => clean(&folder, options.force || global.force).doing("cleaning state"),
        Command::Rescue(options) => {
            super::rescue::run(&folder, &options, global.force).doing("rescuing the state")
        }
        Command::Version => version(&folder).doing("reading the state's version"),
        Command::Upgrade(options) => upgrade(&folder, options.force || global.force).doing("upgrading state"),
        Command::Crdt { .. } => Ok(()),
    }
}

/// Returns the path in an option: an empty one counts as absent.
fn named(file: &Option<PathBuf>) -> Option<&PathBuf> {
    file.as_ref().filter(|path| !path.as_os_str().is_empty())
}

fn open(global: &Global) -> anyhow::Result<Folder> {
    let folder = global.folder().map_err(|failure| failure.error)?;
    if !folder.is_dir() {
        bail!(
            "{} does not exist: `ipfs-cluster-service init` makes it",
            folder.display()
        );
    }
    let folder = Folder::open(&folder, &config::environment()?)?;
    folder
        .warnings
        .iter()
        .for_each(|warning| tracing::warn!("{warning}"));
    Ok(folder)
}

/// Locks the folder; `None` when another process, the daemon, has it.
fn lock(folder: &Folder) -> anyhow::Result<Option<Lock>> {
    Lock::try_take(&folder.path)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Runtime::new().context("starting")
}

fn export(folder: &Folder, options: &Export) -> anyhow::Result<()> {
    let exported = match named(&options.file) {
        Some(path) => state::to_file(path, |file| export_to(folder, file)),
        None => export_to(folder, io::stdout().lock()),
    }?;
    tracing::info!("state successfully exported: {} pins", exported.pins);
    Ok(())
}

fn export_to(folder: &Folder, out: impl io::Write) -> anyhow::Result<state::Exported> {
    let Some(_lock) = lock(folder)? else {
        note("A peer is running on this folder: its state is exported through its REST API.");
        return runtime()?.block_on(running::export(folder, out));
    };
    let data = folder.config.data_folder(&folder.path);
    if !data.exists() {
        note(format_args!(
            "{} does not exist: there is no state yet",
            data.display()
        ));
        return Ok(state::Exported { pins: 0 });
    }
    let store = Store::open(&data, &OpenOptions::default())?;
    let listing = store.reader().listing();
    let exported = state::export(&listing, out, None);
    drop(listing);
    store.close()?;
    exported
}

fn import(folder: &Folder, options: &Import) -> anyhow::Result<()> {
    let lock = lock(folder)?;
    if named(&options.file).is_none() && !options.force && !io::stdin().is_terminal() {
        bail!(
            "no question can be asked while the state comes from the standard input: --force imports without \
             asking"
        );
    }
    let question = match &lock {
        Some(_) => "The pinset (state) of this peer will be replaced. Continue?",
        None => {
            "A peer is running on this folder: the pins will be added to its cluster's, and none \
             removed. Continue?"
        }
    };
    if !options.force && !prompt::confirm(question)? {
        note("Nothing was changed.");
        return Ok(());
    }
    let over = ImportOptions {
        replication_min: options.replication_min,
        replication_max: options.replication_max,
        allocations: elements(&options.allocations),
        skip_bad: options.skip_bad,
    };
    let source: Box<dyn BufRead> = match named(&options.file) {
        Some(path) => {
            let file = File::open(path).with_context(|| path.display().to_string())?;
            Box::new(BufReader::with_capacity(BUFFER, file))
        }
        None => {
            note("reading from stdin, Ctrl-D to finish");
            Box::new(BufReader::with_capacity(BUFFER, io::stdin().lock()))
        }
    };
    match lock {
        Some(_lock) => import_here(folder, source, &over),
        None => import_running(folder, source, &over),
    }
}

fn import_here(folder: &Folder, source: impl BufRead, options: &ImportOptions) -> anyhow::Result<()> {
    let imported = state::import(folder, source, options)?;
    warn_of_skipped(imported.skipped);
    if imported.repeated > 0 {
        tracing::warn!(
            "{} CIDs occur more than once: the last pin of each was used",
            imported.repeated
        );
    }
    if imported.strangers > 0 {
        tracing::warn!(
            "{} peers that are no members of this cluster hold pins by that file: their pins will move \
             to members",
            imported.strangers
        );
    }
    if let Some(saved) = &imported.saved {
        tracing::info!("the state as it was is in {}", saved.display());
    }
    tracing::info!("state successfully imported: {} pins", imported.pins);
    if imported.members.len() > 1 {
        let names: Vec<String> = imported.members.iter().map(ToString::to_string).collect();
        tracing::warn!(
            "all {} peers of the cluster must have this state: import the same file on each of {} before any \
             is started",
            names.len(),
            names.join(", ")
        );
    }
    Ok(())
}

fn warn_of_skipped(count: u64) {
    if count > 0 {
        tracing::warn!("{count} bad pins were skipped: each is named above");
    }
}

fn import_running(folder: &Folder, source: impl BufRead, options: &ImportOptions) -> anyhow::Result<()> {
    let added = runtime()?.block_on(running::import(folder, source, options))?;
    warn_of_skipped(added.skipped);
    if added.expired > 0 {
        tracing::warn!("{} pins have expired and were left out", added.expired);
    }
    tracing::info!(
        "state successfully imported: {} pins are in the cluster",
        added.pins
    );
    Ok(())
}

fn clean(folder: &Folder, force: bool) -> anyhow::Result<()> {
    let _lock = Lock::take(&folder.path)?;
    let question = "The peer state will be removed.  Existing pins may be lost. Continue?";
    if !force && !prompt::confirm(question)? {
        note("Nothing was changed.");
        return Ok(());
    }
    let data = folder.config.data_folder(&folder.path);
    let keep = folder.config.consensus.raft.backups_rotate;
    match cleanup::move_away(&data, keep)? {
        Some(now) => tracing::info!("data correctly cleaned up: it is in {} now", now.display()),
        None => tracing::info!("nothing to clean up: {} does not exist", data.display()),
    }
    Ok(())
}

fn version(folder: &Folder) -> anyhow::Result<()> {
    print_output(store::FORMAT);
    let data = folder.config.data_folder(&folder.path);
    match store::format_of(&data)? {
        Some(found) if found > store::FORMAT => bail!(
            "the state in {} has format {found}: a later release wrote it, start that one",
            data.display()
        ),
        Some(found) => note(format_args!("the state in {} has format {found}", data.display())),
        None => note(format_args!("there is no state in {} yet", data.display())),
    }
    Ok(())
}

fn upgrade(folder: &Folder, force: bool) -> anyhow::Result<()> {
    let lock = Lock::take(&folder.path)?;
    let data = folder.config.data_folder(&folder.path);
    if data.exists() {
        // Opening reports all problems of the current format.
        let store = Store::open(&data, &OpenOptions::default())?;
        let founded = store.is_founded();
        store.close()?;
        if founded {
            tracing::info!("the state in {} has the current format already", data.display());
            return Ok(());
        }
    }
    let Some(old) = backups::newest_of_0_0_12(&folder.path)? else {
        tracing::info!("there is no state in {} to upgrade", folder.path.display());
        return Ok(());
    };
    let question = format!(
        "The state in {}, the newest that Go ipfs-cluster 0.0.12 left, will be imported. Continue?",
        old.display()
    );
    if !force && !prompt::confirm(&question)? {
        note("Nothing was changed.");
        return Ok(());
    }
    let file = File::open(&old).with_context(|| old.display().to_string())?;
    let source = BufReader::with_capacity(BUFFER, file);
    import_here(folder, source, &ImportOptions::default())?;
    drop(lock);
    Ok(())
}
