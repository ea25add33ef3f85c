//! Rebalancing: its settings, its runs, and how far the peers are from their targets.

use std::collections::BTreeMap;

use cluster_api as api;
use cluster_core::{
    Balance, MOVES_MAX, PeerId, Rebalance, RebalanceChange, RebalanceSettings, Reply, Request,
};

use futures::StreamExt;

use super::moves::OwnMoves;
use super::peers::{KnownMembers, ask_each};
use super::{Cluster, Error, convert, now};
use crate::config::parse_bytes;

/// Maximum threshold, in percent: at more, automatic rebalancing would never begin.
const THRESHOLD_MAX: u32 = 1000;

/// Maximum number of moves in the whole cluster that can be set.
const TOTAL_MAX: u32 = 1_000_000;

/// New settings of the rebalancing. Those that are absent stay.
#[derive(Debug, Clone, Copy, Default)]
pub struct RebalanceWish {
    /// Rebalance whenever a peer deviates from its target by more than the threshold.
    pub automatic: Option<bool>,
    /// Deviation from a target that starts automatic rebalancing, in percent.
    pub threshold_percent: Option<u32>,
    /// Maximum number of copies of one peer that wait for their replacements at once.
    pub moves_max: Option<u32>,
    /// The same for the whole cluster.
    pub moves_total_max: Option<u32>,
    /// Maximum rate at which a peer fetches copies that move to it, in bytes per second; 0 for no limit.
    pub bytes_per_second: Option<u64>,
    /// The same for the whole cluster.
    pub bytes_total_per_second: Option<u64>,
}

impl RebalanceWish {
    /// Parses a number of bytes per second, like `50MB`.
    ///
    /// # Errors
    /// It is none: the reason, for display.
    pub fn parse_bytes(text: &str) -> Result<u64, String> {
        parse_bytes(text).ok_or_else(|| {
            format!("{text:?} is not a number of bytes: write it like \"50MB\", or 0 for no limit")
        })
    }

    fn check(&self) -> Result<(), Error> {
        for (what, value, range) in [
            ("threshold", self.threshold_percent, 0..=THRESHOLD_MAX),
            ("number of moves of a peer", self.moves_max, 1..=MOVES_MAX),
            ("number of moves in total", self.moves_total_max, 1..=TOTAL_MAX),
        ] {
            if let Some(value) = value.filter(|value| !range.contains(value)) {
                let (low, high) = (range.start(), range.end());
                let why = format!("the {what} is {value}, {low} to {high} are possible");
                return Err(Error::Invalid(why));
            }
        }
        Ok(())
    }

    fn applied_to(&self, old: RebalanceSettings) -> RebalanceSettings {
        RebalanceSettings {
            automatic: self.automatic.unwrap_or(old.automatic),
            threshold_percent: self.threshold_percent.unwrap_or(old.threshold_percent),
            moves_max: self.moves_max.unwrap_or(old.moves_max),
            moves_total_max: self.moves_total_max.unwrap_or(old.moves_total_max),
            bytes_per_second: self.bytes_per_second.unwrap_or(old.bytes_per_second),
            bytes_total_per_second: self.bytes_total_per_second.unwrap_or(old.bytes_total_per_second),
        }
    }
}

impl Cluster {
    /// Returns the settings of the rebalancing, the run that is under way, and how far the peers are from
    /// their targets.
    ///
    /// # Errors
    /// This peer is shutting down.
    pub async fn rebalance(&self) -> Result<api::Rebalance, Error> {
        let state = self.inner.reader.policy().rebalance.clone();
        self.show_rebalance(state).await
    }

    /// Starts a run of the rebalancing, unless one is under way.
    ///
    /// # Errors
    /// The cluster refuses, or this peer is shutting down.
    pub async fn start_rebalance(&self) -> Result<api::Rebalance, Error> {
        self.change_rebalance(RebalanceChange::Start { since: now() })
            .await
    }

    /// Ends the run that is under way. Copies that have been moved stay where they are.
    ///
    /// # Errors
    /// None is under way, the cluster refuses, or this peer is shutting down.
    pub async fn end_rebalance(&self) -> Result<api::Rebalance, Error> {
        self.change_rebalance(RebalanceChange::End { since: None }).await
    }

    /// Changes the settings of the rebalancing.
    ///
    /// # Errors
    /// A setting is out of its range, the cluster refuses, or this peer is shutting down.
    pub async fn set_rebalance(&self, wish: RebalanceWish) -> Result<api::Rebalance, Error> {
        wish.check()?;
        self.request(Request::Barrier).await?;
        let old = self.inner.reader.policy().rebalance.settings;
        self.change_rebalance(RebalanceChange::Settings(wish.applied_to(old)))
            .await
    }

    async fn change_rebalance(&self, change: RebalanceChange) -> Result<api::Rebalance, Error> {
        let Reply::Rebalanced(state) = self.request(Request::Rebalance { change }).await? else {
            return Err(Error::Closed);
        };
        self.show_rebalance(state).await
    }

    async fn show_rebalance(&self, state: Rebalance) -> Result<api::Rebalance, Error> {
        let balance: Balance = self.view(|view, now| view.balance(now)).await?;
        let moves = balance.moves();
        let KnownMembers { peers: names } = self.known_peers().await?;
        let ids: Vec<PeerId> = balance.peers.iter().map(|known| known.peer.clone()).collect();
        let asked = ask_each(ids.iter(), |id| self.moves_of(id));
        let mut progress: BTreeMap<&PeerId, Result<OwnMoves, Error>> = asked.collect().await;
        let done = state.run.iter().flat_map(|run| &run.done);
        let done: Vec<String> = done.map(PeerId::to_string).collect();
        let peers = balance.peers.into_iter().map(|known| {
            let mut shown = api::PeerBalance {
                peer: known.peer.to_string(),
                peername: names
                    .get(&known.peer)
                    .map(|peer| peer.peername.clone())
                    .unwrap_or_default(),
                copies: known.copies,
                target: known.target,
                capacity_bytes: known.capacity,
                takes_pins: known.takes,
                ..api::PeerBalance::default()
            };
            match progress.remove(&known.peer) {
                Some(Ok(own)) => {
                    shown.copies_waiting = own.waiting;
                    shown.is_moving = own.is_passing;
                    (shown.planned, shown.moved) = (own.planned, own.moved);
                }
                Some(Err(error)) => shown.error = error.to_string(),
                None => {}
            }
            shown
        });
        Ok(api::Rebalance {
            automatic: state.settings.automatic,
            threshold_percent: state.settings.threshold_percent,
            moves_max: state.settings.moves_max,
            moves_total_max: state.settings.moves_total_max,
            bytes_per_second: state.settings.bytes_per_second,
            total_bytes_per_second: state.settings.bytes_total_per_second,
            running_since: state.run.as_ref().map(|run| convert::time(run.since)),
            done,
            moves,
            peers: peers.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_refused_and_absent_ones_stay() {
        let wish = RebalanceWish {
            moves_max: Some(0),
            ..RebalanceWish::default()
        };
        let why = wish.check().unwrap_err().to_string();
        assert!(
            why.contains("the number of moves of a peer is 0, 1 to 4096"),
            "{why}"
        );
        let wish = RebalanceWish {
            automatic: Some(true),
            moves_total_max: Some(9),
            bytes_per_second: Some(70),
            ..RebalanceWish::default()
        };
        wish.check().expect("is in range");
        assert_eq!(RebalanceWish::parse_bytes("1.5MB"), Ok(1_500_000));
        let why = RebalanceWish::parse_bytes("-1").unwrap_err();
        assert!(why.contains("write it like \"50MB\""), "{why}");
        let expected = RebalanceSettings {
            automatic: true,
            moves_total_max: 9,
            bytes_per_second: 70,
            ..RebalanceSettings::default()
        };
        assert_eq!(wish.applied_to(RebalanceSettings::default()), expected);
    }
}
