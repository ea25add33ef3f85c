//! Which peers take a pin. It has no state, so it is a function.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{Cid, PeerId};
use crate::metric::Metric;
use crate::planted::planted;
use crate::rng::hash;

/// A peer that could take a pin, with its value of each metric that allocation goes by.
pub(crate) type Candidates = BTreeMap<PeerId, Vec<Metric>>;

/// What a pin needs.
#[derive(Debug, Clone)]
pub(crate) struct Wanted<'a> {
    /// Spreads pins among peers that rank alike.
    pub(crate) cid: Option<&'a Cid>,
    /// Who comes first among peers that rank alike.
    pub(crate) near: Option<&'a PeerId>,
    /// Fewer copies will not do.
    pub(crate) min: u32,
    /// More are not wanted.
    pub(crate) max: u32,
    /// Peers that hold it and count.
    pub(crate) current: &'a [PeerId],
    /// Peers that the client prefers, best first.
    pub(crate) preferred: &'a [PeerId],
}

/// Too few peers can take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotEnough {
    /// How many can.
    pub(crate) available: u32,
}

/// Chooses: who has it keeps it, up to the maximum; when fewer than the minimum have it, it is given to more
/// peers, up to the maximum, those first that the client prefers, then those that rank best. The result is
/// sorted.
pub(crate) fn allocate(wanted: &Wanted<'_>, candidates: &Candidates) -> Result<Vec<PeerId>, NotEnough> {
    let (min, max) = (wanted.min as usize, wanted.max as usize);
    let mut chosen: Vec<PeerId> = wanted.current.to_vec();
    if chosen.len() > max {
        chosen.sort_by_key(|peer| rank_by_hash(wanted.cid, peer));
        chosen.truncate(max);
    }
    if chosen.len() < min {
        let preferred = wanted
            .preferred
            .iter()
            .filter(|peer| candidates.contains_key(*peer) && !planted!(PreferenceIgnored));
        let ranked = ranked(wanted, candidates);
        for peer in preferred.chain(&ranked) {
            if chosen.len() == max || chosen.len() >= min && planted!(FewestCopies) {
                break;
            }
            if !chosen.contains(peer) {
                chosen.push(peer.clone());
            }
        }
    }
    if chosen.len() < min && !planted!(TooFewCopies) {
        let held = wanted
            .current
            .iter()
            .filter(|peer| !candidates.contains_key(*peer))
            .count();
        let available = u32::try_from(candidates.len() + held).unwrap_or(u32::MAX);
        return Err(NotEnough { available });
    }
    chosen.sort();
    Ok(chosen)
}

/// All candidates, the best first.
fn ranked(wanted: &Wanted<'_>, candidates: &Candidates) -> Vec<PeerId> {
    let all: BTreeSet<&PeerId> = candidates.keys().collect();
    partition(wanted, candidates, all, 0)
        .into_iter()
        .cloned()
        .collect()
}

/// Splits peers into groups by a metric that divides, and takes from the groups in turn, the group with the
/// heavier peers first; orders them by a metric that ranks, and those that rank alike by what comes after it.
fn partition<'a>(
    wanted: &Wanted<'_>,
    candidates: &Candidates,
    peers: BTreeSet<&'a PeerId>,
    depth: usize,
) -> Vec<&'a PeerId> {
    let metric = |peer: &PeerId| candidates[peer].get(depth);
    let Some(divides) = peers
        .first()
        .and_then(|peer| metric(peer))
        .map(|metric| metric.partitionable)
    else {
        let mut peers: Vec<&PeerId> = peers.into_iter().collect();
        peers.sort_by_key(|peer| among_alike(wanted, peer));
        return peers;
    };
    if !divides || planted!(GroupsIgnored) {
        let weight = |peer: &PeerId| {
            let weight = metric(peer).map_or(i64::MIN, |metric| metric.weight);
            if planted!(FullestFirst) {
                weight.saturating_neg()
            } else {
                weight
            }
        };
        return by_weight(peers, weight)
            .into_iter()
            .flat_map(|alike| partition(wanted, candidates, alike, depth + 1))
            .collect();
    }
    let mut groups: BTreeMap<&str, BTreeSet<&PeerId>> = BTreeMap::new();
    for peer in peers {
        groups
            .entry(metric(peer).map_or("", |metric| &metric.value))
            .or_default()
            .insert(peer);
    }
    let weight = |group: &[&PeerId]| -> i128 {
        group
            .iter()
            .filter_map(|peer| candidates[*peer].last())
            .map(|last| i128::from(last.weight))
            .sum()
    };
    let mut groups: Vec<Vec<&PeerId>> = groups
        .into_values()
        .map(|group| partition(wanted, candidates, group, depth + 1))
        .collect();
    groups.sort_by_key(|group| (Reverse(weight(group)), among_alike(wanted, group[0])));
    let longest = groups.iter().map(Vec::len).max().unwrap_or(0);
    (0..longest)
        .flat_map(|turn| groups.iter().filter_map(move |group| group.get(turn).copied()))
        .collect()
}

/// Groups of peers that rank alike, heaviest first: weights that differ by less than a tenth of the heaviest.
fn by_weight(peers: BTreeSet<&PeerId>, weight: impl Fn(&PeerId) -> i64) -> Vec<BTreeSet<&PeerId>> {
    let mut rest: Vec<&PeerId> = peers.into_iter().collect();
    rest.sort_by_key(|peer| Reverse(weight(peer)));
    let mut groups = Vec::new();
    while let Some(first) = rest.first() {
        let top = i128::from(weight(first));
        let alike = rest
            .iter()
            .take_while(|peer| i128::from(weight(peer)) >= top - top.abs() / 10)
            .count();
        groups.push(rest.drain(..alike).collect());
    }
    groups
}

/// The order of peers that rank alike: the near one, then as the CID decides.
fn among_alike(wanted: &Wanted<'_>, peer: &PeerId) -> (bool, u64) {
    (wanted.near != Some(peer), rank_by_hash(wanted.cid, peer))
}

/// Rendezvous hashing (Thaler, Ravishankar, "A name-based mapping scheme for rendezvous", 1996): each CID
/// has an order of peers of its own.
fn rank_by_hash(cid: Option<&Cid>, peer: &PeerId) -> u64 {
    hash([cid.map_or(&[], Cid::as_bytes), peer.as_bytes()])
}

#[cfg(test)]
mod tests;
