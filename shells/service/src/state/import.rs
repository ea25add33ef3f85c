//! Import of an exported pinset at a peer that is stopped.
//!
//! A log belongs to one pinset, and the other peers have the old one: so an import founds a new cluster
//! with the current members and the imported pins as its first snapshot. Its id is derived from both, so
//! peers that import the same file found the same cluster. A peer that imported another file, or none, is
//! refused by the cluster id instead of mixing two states.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, bail};
use cluster_core::{
    Applied, Cid, ClusterId, HardState, Identity, Incarnation, Index, Members, PeerId, Pin, Recovered,
    Replicas, encode,
};

use super::line::{ImportOptions, Known, Line};
use super::values::{self, Problem, Stopped};
use super::{Progress, backups};
use crate::config::{Folder, core_peer};
use crate::store::{NewPinset, OpenOptions, Store};

/// Log index of the imported pins: the first. A peer whose log starts after it fetches the pins; with 0 it
/// would assume an empty pinset.
pub(super) const BASE: Index = 1;

/// Maximum number of non-members that a state may name: as many as a membership remembers of those that have
/// left. Their pins move to members once the cluster runs.
const STRANGERS_MAX: usize = 1024;

/// Result of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Number of pins in the new state.
    pub pins: u64,
    /// Number of invalid pins left out.
    pub skipped: u64,
    /// Number of CIDs that occur more than once; the last one counts.
    pub repeated: u64,
    /// Number of non-members that hold pins according to the file.
    pub strangers: usize,
    /// Members of the cluster, which all need the same state.
    pub members: Vec<PeerId>,
    /// Backup of the previous state.
    pub saved: Option<PathBuf>,
}

/// Replaces the state of the peer of `folder` by the pins in `source`, once all of them have been read and
/// checked.
///
/// # Errors
/// `source` is no export: the error has the line and the problem. Or the state cannot be opened or written.
/// In all cases the state is unchanged.
pub fn import(folder: &Folder, source: impl BufRead, options: &ImportOptions) -> anyhow::Result<Imported> {
    let data = folder.config.data_folder(&folder.path);
    let mut store = Store::open(&data, &OpenOptions::default())?;
    let me = core_peer(&folder.identity.peer);
    let stored = store.reader().listing().members()?;
    let members: BTreeSet<PeerId> = match &stored {
        Some(members) if members.raft_id(&me).is_some() => members.peer_ids().cloned().collect(),
        Some(_) | None => folder.config.init_peerset(&folder.identity).into_iter().collect(),
    };
    let mut taking = Taking {
        pins: store.new_pinset()?,
        members: &members,
        strangers: BTreeSet::new(),
        name: blake3::Hasher::new(),
    };
    taking.name_members();
    let default = folder.config.cluster.default_replicas();
    let (mut taken, skipped) = pass(source, options, default, taking)?;
    let settled = taken.pins.finish()?;
    // The old state changes only from here on.
    let saved = match stored {
        Some(_) => backups::save(folder, &store.reader(), None).context("saving the state as it was")?,
        None => None,
    };
    let cluster = cluster(&taken.name);
    let recovered = founding(&members, &taken.strangers, cluster, settled.pins);
    store.reinitialise(&recovered, Some(taken.pins))?;
    store.close()?;
    Ok(Imported {
        pins: settled.pins,
        skipped,
        repeated: settled.repeated,
        strangers: taken.strangers.len(),
        members: members.into_iter().collect(),
        saved,
    })
}

/// Pins sent at once from the reading thread to the writing one.
const HANDED: usize = 512;

/// Messages in flight: some megabytes, enough to smooth the delays of both threads.
const UNDER_WAY: usize = 8;

/// Reads all of `source`, and writes the pins in another thread. Also returns the number of skipped pins.
fn pass<'a>(
    source: impl BufRead,
    options: &ImportOptions,
    default: Replicas,
    mut taking: Taking<'a>,
) -> anyhow::Result<(Taking<'a>, u64)> {
    let (sender, receiver) = mpsc::sync_channel::<Vec<Pin>>(UNDER_WAY);
    thread::scope(|scope| {
        let taker = scope.spawn(move || {
            for pins in receiver {
                pins.into_iter().try_for_each(|pin| taking.take(pin))?;
            }
            anyhow::Ok(taking)
        });
        let send = |pins: Vec<Pin>| sender.send(pins).context("the pins cannot be written");
        let mut pins = Vec::with_capacity(HANDED);
        let read = read(source, options, default, |pin| {
            pins.push(pin);
            if pins.len() < HANDED {
                return Ok(());
            }
            send(std::mem::replace(&mut pins, Vec::with_capacity(HANDED)))
        });
        let read = read.and_then(|skipped| send(pins).map(|()| skipped));
        drop(sender);
        let taken = taker.join().unwrap_or_else(|panic| resume_unwind(panic));
        // An error of the writer explains more than the failed send.
        let taken = taken?;
        read.map(|skipped| (taken, skipped))
    })
}

/// Passes each pin of an export to `take`. Returns the number of invalid pins that were skipped; each is
/// logged.
pub(super) fn read(
    source: impl BufRead,
    options: &ImportOptions,
    default: Replicas,
    mut take: impl FnMut(Pin) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let mut progress = Progress::new("read", None);
    let mut known = Known::default();
    let mut skipped = 0;
    let take = |line, key: Option<String>, value: Line| {
        let pin = value.pin(key.as_deref(), options, default, &mut known);
        let pin = pin.map_err(|what| Problem::new(line, &what))?;
        progress.one_more();
        take(pin).map_err(Stopped::Taker)
    };
    let bad = |problem: Problem| {
        if !options.skip_bad {
            return Err(problem.into());
        }
        tracing::warn!("skipped: {problem}");
        skipped += 1;
        Ok(())
    };
    match values::read(source, take, bad) {
        // A file of another kind, in which all lines are invalid, must not empty a pinset.
        Ok(()) if skipped > 0 && progress.count == 0 => {
            bail!(
                "none of the {skipped} pins can be read: this is no export of a cluster. Nothing was changed"
            )
        }
        Ok(()) => Ok(skipped),
        Err(Stopped::Problem(problem)) => bail!(
            "{problem}. Nothing was changed: correct that line, or export again, and import then; or have \
             --skip-bad leave out what cannot be read"
        ),
        Err(stopped @ Stopped::Io(_)) => Err(stopped.into()),
        Err(Stopped::Taker(error)) => Err(error),
    }
}

/// Pins written so far.
struct Taking<'a> {
    pins: NewPinset,
    members: &'a BTreeSet<PeerId>,
    strangers: BTreeSet<PeerId>,
    /// Hash over everything that identifies the new cluster.
    name: blake3::Hasher,
}

impl Taking<'_> {
    fn name_members(&mut self) {
        for member in self.members {
            self.name.update(&encode(member));
        }
    }

    fn take(&mut self, mut pin: Pin) -> anyhow::Result<()> {
        if let Replicas::Range { max, .. } = pin.options.replicas
            && pin.allocations.is_empty()
        {
            pin.allocations = spread(&pin.cid, self.members, max);
        }
        let strangers = pin
            .allocations
            .iter()
            .filter(|peer| !self.members.contains(*peer));
        for stranger in strangers {
            if self.strangers.len() < STRANGERS_MAX {
                self.strangers.insert(stranger.clone());
            }
        }
        let encoded = encode(&pin);
        self.name.update(&encoded);
        self.pins.put(&pin, &encoded)?;
        Ok(())
    }
}

/// Allocations for a pin without any: by rendezvous hashing, so that all peers that import the file compute
/// the same ones, evenly spread.
fn spread(cid: &Cid, members: &BTreeSet<PeerId>, count: u32) -> Vec<PeerId> {
    let seed = xxhash_rust::xxh3::xxh3_64(cid.as_bytes());
    let by_weight: BTreeMap<u64, &PeerId> = members
        .iter()
        .map(|peer| (xxhash_rust::xxh3::xxh3_64_with_seed(peer.as_bytes(), seed), peer))
        .collect();
    let mut chosen: Vec<PeerId> = by_weight.into_values().take(count as usize).cloned().collect();
    chosen.sort();
    chosen
}

fn cluster(name: &blake3::Hasher) -> ClusterId {
    let hash = name.finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&hash.as_bytes()[..16]);
    ClusterId(id)
}

/// Returns the initial state of the new cluster.
fn founding(
    members: &BTreeSet<PeerId>,
    strangers: &BTreeSet<PeerId>,
    cluster: ClusterId,
    pins: u64,
) -> Recovered {
    let members = Members {
        cluster,
        // Pins allocated to departed peers move.
        departed: strangers.clone(),
        ..Members::initial(members.iter().cloned())
    };
    Recovered {
        hard_state: HardState {
            identity: Identity::Founding,
            term: 1,
            vote: None,
            commit: BASE,
        },
        compacted: (BASE, 1),
        applied: Applied {
            index: BASE,
            term: 1,
            pins,
        },
        reconciling: true,
        ..Recovered::founding(Incarnation(rand::random()), members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_without_allocations_are_spread_evenly_and_deterministically() {
        let members: BTreeSet<PeerId> = (0..4).map(|_| core_peer(&libp2p::PeerId::random())).collect();
        let mut count: BTreeMap<PeerId, u32> = BTreeMap::new();
        for number in 0..400_u32 {
            let mut bytes = vec![0x01, 0x55, 0x00, 0x04];
            bytes.extend_from_slice(&number.to_be_bytes());
            let cid = Cid::from_bytes(&bytes).unwrap();
            let chosen = spread(&cid, &members, 2);
            assert_eq!(chosen, spread(&cid, &members, 2));
            assert_eq!(chosen.len(), 2);
            chosen
                .into_iter()
                .for_each(|peer| *count.entry(peer).or_default() += 1);
        }
        assert!(
            count.values().all(|count| (120..280).contains(count)),
            "{count:?}"
        );
    }
}
