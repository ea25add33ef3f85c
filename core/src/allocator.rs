//! Allocation: the choice of peers for a pin. Stateless.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{Cid, PeerId};
use crate::metric::Metric;
use crate::planted::planted;
use crate::rng::hash;

/// Candidate peers, with the values of the metrics to allocate by, in their order.
pub(crate) type Candidates = BTreeMap<PeerId, Vec<Metric>>;

/// Requirements of an allocation.
#[derive(Debug, Clone)]
pub(crate) struct Requirements<'a> {
    /// CID that spreads pins among peers of equal rank.
    pub(crate) cid: Option<&'a Cid>,
    /// Peer to prefer among those of equal rank.
    pub(crate) near: Option<&'a PeerId>,
    /// Minimum number of allocations.
    pub(crate) min: u32,
    /// Maximum number of allocations.
    pub(crate) max: u32,
    /// Live peers that hold the pin.
    pub(crate) current: &'a [PeerId],
    /// Peers that the client prefers, best first.
    pub(crate) preferred: &'a [PeerId],
}

/// Too few peers are available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotEnough {
    /// Number of available peers, current ones included.
    pub(crate) available: u32,
}

/// Chooses the allocations of a pin, sorted. Current holders are kept, up to the maximum. If they are fewer
/// than the minimum, peers are added up to the maximum: preferred ones first, then the best by rank.
///
/// # Errors
///
/// [`NotEnough`] if fewer than the minimum are available.
pub(crate) fn allocate(wanted: &Requirements<'_>, candidates: &Candidates) -> Result<Vec<PeerId>, NotEnough> {
    let (min, mut max) = (wanted.min as usize, wanted.max as usize);
    if planted!(MaxExceeded) {
        max += 1;
    }
    let mut chosen: Vec<PeerId> = wanted.current.to_vec();
    if chosen.len() > max {
        chosen.sort_by_key(|peer| rank_by_hash(wanted.cid, peer));
        chosen.truncate(if planted!(ShrinksToMin) { min } else { max });
    }
    if chosen.len() < min {
        let preferred = wanted
            .preferred
            .iter()
            .filter(|peer| candidates.contains_key(*peer) && !planted!(PreferenceIgnored));
        let ranked = ranked(wanted, candidates);
        let mut preferred: Vec<&PeerId> = preferred.collect();
        if planted!(PreferenceReversed) {
            preferred.reverse();
        }
        for peer in preferred.into_iter().chain(&ranked) {
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

/// Returns all candidates, best first.
fn ranked(wanted: &Requirements<'_>, candidates: &Candidates) -> Vec<PeerId> {
    let all: BTreeSet<&PeerId> = candidates.keys().collect();
    partition(wanted, candidates, all, 0)
        .into_iter()
        .cloned()
        .collect()
}

/// Orders peers by the metric at `depth` and those after it. A partitioning metric splits them into groups,
/// which are taken from alternately, the group with the greater total weight first. A ranking metric orders
/// them by weight; peers of about equal weight are ordered by the next metric.
fn partition<'a>(
    wanted: &Requirements<'_>,
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
        peers.sort_by_key(|peer| tie_break(wanted, peer));
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
        return group_by_weight(peers, weight)
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
    groups.sort_by_key(|group| (Reverse(weight(group)), tie_break(wanted, group[0])));
    if planted!(GroupsLightest) {
        groups.reverse();
    }
    let longest = groups.iter().map(Vec::len).max().unwrap_or(0);
    (0..longest)
        .flat_map(|turn| groups.iter().filter_map(move |group| group.get(turn).copied()))
        .collect()
}

/// Groups peers of about equal weight, heaviest first: weights that differ by less than a tenth of the
/// heaviest.
fn group_by_weight(peers: BTreeSet<&PeerId>, weight: impl Fn(&PeerId) -> i64) -> Vec<BTreeSet<&PeerId>> {
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

/// Returns the sort key among peers of equal rank: the near peer first, then by the hash of the CID.
fn tie_break(wanted: &Requirements<'_>, peer: &PeerId) -> (bool, u64) {
    let cid = wanted.cid.filter(|_| !planted!(PinsUnspread));
    let is_far = wanted.near != Some(peer) || planted!(NearIgnored);
    (is_far, rank_by_hash(cid, peer))
}

/// Rendezvous hashing (Thaler, Ravishankar, "A name-based mapping scheme for rendezvous", 1996): each CID
/// orders the peers differently.
pub(crate) fn rank_by_hash(cid: Option<&Cid>, peer: &PeerId) -> u64 {
    hash([cid.map_or(&[], Cid::as_bytes), peer.as_bytes()])
}

#[cfg(test)]
mod tests;
