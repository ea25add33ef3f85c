//! `state rescue`: makes a new cluster of the survivors when the majority is lost permanently.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail, ensure};
use clap::Args;
use cluster_core::{Batch, BatchId, ClusterId, PeerId, Recovered, Rescue};
use ipfs_cluster_service::config::{Folder, core_peer};
use ipfs_cluster_service::state::backups;
use ipfs_cluster_service::store::{OpenOptions, Store};

use super::lock::Lock;
use super::{note, prompt};

const LONG: &str = "\
Makes a new cluster of this peer's state, when a majority of the old cluster's voters is lost for good and \
nothing can be agreed on any more. It shows what it will do and asks first; the peer must be stopped.

Choose the survivor with the longest log (run this on each and answer n: it shows how far each one is), and \
run it there. Everything that this peer has is kept, also what it cannot know to have been agreed on; what \
only lost peers had is lost. Pins of the lost peers move to others. The new cluster has another id: a lost \
peer that comes back after all is refused.

The steps, once this is done:
  1. start this peer;
  2. on each other survivor run `ipfs-cluster-service state cleanup` and start it: it fetches the state.";

/// Options of the rescue.
#[derive(Debug, Args)]
#[command(long_about = LONG)]
pub(super) struct Options {
    /// The ids of the other surviving peers, which join the new cluster; all others are given up
    #[arg(long, value_name = "PEERS", value_delimiter = ',')]
    survivors: Vec<PeerId>,
    /// Do not ask
    #[arg(long, short = 'y', visible_alias = "force")]
    yes: bool,
}

pub(super) fn run(folder: &Folder, options: &Options, force: bool) -> anyhow::Result<()> {
    let _lock = Lock::take(&folder.path)?;
    let data = folder.config.data_folder(&folder.path);
    let me = core_peer(&folder.identity.peer);
    ensure!(data.is_dir(), "there is no state in {}", data.display());
    let mut store = Store::open(&data, &OpenOptions::default())?;
    let recovered = store
        .recovered()?
        .with_context(|| format!("there is no state in {}", data.display()))?;
    let survivors = survivors(&recovered, &me, &options.survivors)?;
    let cluster = ClusterId(rand::random());
    let (rescue, ops) = recovered.rescue(&me, &survivors, cluster)?;
    show(&recovered, &rescue, &me);
    if !options.yes && !force && !prompt::confirm("Make the new cluster?")? {
        note("Nothing was changed.");
        return Ok(());
    }
    if let Some(backup) = backups::save(folder, &store.reader(), None)? {
        note(format!("The pinset is saved in {}", backup.display()));
    }
    let id = BatchId(1);
    store.write(&Batch { id, ops, sync: true })?;
    store.close()?;
    note(format!("This peer is the cluster {cluster} now. Start it."));
    for peer in &rescue.members.joining {
        note(format!(
            "On {peer}: run `ipfs-cluster-service state cleanup`, and start it."
        ));
    }
    Ok(())
}

fn survivors(recovered: &Recovered, me: &PeerId, named: &[PeerId]) -> anyhow::Result<BTreeSet<PeerId>> {
    let members: BTreeSet<&PeerId> = recovered.members.peer_ids().collect();
    let cluster = recovered.members.cluster;
    ensure!(
        members.is_empty() || members.contains(me),
        "this peer ({me}) was not a member of the cluster {cluster} when it stopped: use one that was"
    );
    for peer in named {
        if !members.contains(peer) {
            bail!(
                "--survivors: {peer} was not a member of the cluster {cluster}: let it join the new one with \
                 --bootstrap"
            );
        }
    }
    Ok(named.iter().chain([me]).cloned().collect())
}

fn show(recovered: &Recovered, rescue: &Rescue, me: &PeerId) {
    let old = &recovered.members;
    let peers = old.peer_ids().count();
    note(format!(
        "The cluster {} has {peers} peers, of which {} vote.",
        old.cluster,
        old.voters.len()
    ));
    note(format!(
        "This peer ({me}) has its log up to entry {} of term {}, and {} pins.",
        recovered
            .log
            .last()
            .map_or(recovered.compacted.0, |entry| entry.index),
        recovered.hard_state.term,
        recovered.applied.pins
    ));
    note(format!(
        "A new cluster, {}, will be made of that:",
        rescue.members.cluster
    ));
    note(format!(
        "  - {} entries are kept that may not have been agreed on",
        rescue.kept_entries - rescue.dropped_changes
    ));
    let fates: BTreeMap<&PeerId, &str> = old
        .peer_ids()
        .filter(|peer| *peer != me)
        .map(|peer| {
            let joins = rescue.members.joining.contains(peer);
            (
                peer,
                if joins {
                    "joins it, with this peer's state"
                } else {
                    "is given up"
                },
            )
        })
        .collect();
    for (peer, fate) in fates {
        note(format!("  - {peer} {fate}"));
    }
}
