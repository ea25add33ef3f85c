//! Text output of drains and of the rebalancing.

use std::fmt::Write;

use cluster_api::{Drain, GoDuration, Rebalance, Time, terminal};

use super::{Lines, Text};
use crate::human;

/// Describes the progress of a drain in one line.
pub(crate) fn drain_progress(drain: &Drain) -> String {
    let what = match drain.state.as_str() {
        "done" => return "done: it may be removed".to_owned(),
        "unreachable" => format!(
            "{} pins left, it does not answer: {}",
            drain.pins_left, drain.error
        ),
        state => format!(
            "{state}: {} of {} pins left, {} copies wait for their replacements, {} on disk",
            drain.pins_left,
            drain.pins_at_start,
            drain.copies_waiting,
            human::bytes(drain.repository_bytes)
        ),
    };
    let blocked = match drain.blocked_cids.first() {
        Some(cid) => format!(", {} cannot move, such as {cid}", drain.blocked),
        None => String::new(),
    };
    let left = drain.seconds_left.filter(|seconds| *seconds > 0);
    let left = left.and_then(|seconds| i64::try_from(seconds).ok());
    let left = left.map(|seconds| format!(", about {} left", GoDuration::from_secs(seconds)));
    terminal::line(what + &blocked + &left.unwrap_or_default())
}

impl Text for Drain {
    fn text(&self, out: &mut Lines, _: Time) {
        let name = if self.peername.is_empty() {
            String::new()
        } else {
            format!(" | {}", self.peername)
        };
        line!(out, "{}{name} | {}", self.peer, drain_progress(self));
    }
}

/// Describes the progress of the rebalancing in one line.
pub(crate) fn rebalance_progress(state: &Rebalance) -> String {
    let moving = state.peers.iter().filter(|peer| peer.is_moving).count();
    let waiting: u64 = state.peers.iter().map(|peer| peer.copies_waiting).sum();
    let moves = state.moves;
    let run = match (state.running_since, moving) {
        (Some(_), _) => format!(
            "running, {} of {} peers are done",
            state.done.len(),
            state.peers.len()
        ),
        (None, 0) => "idle".to_owned(),
        (None, moving) => format!("{moving} peers move copies"),
    };
    terminal::line(format!(
        "{run}: {moves} moves would even out the copies, {waiting} copies wait for their replacements"
    ))
}

/// Formats a limit of bytes, where 0 is none.
fn limit(bytes: u64) -> String {
    match bytes {
        0 => "any number".to_owned(),
        bytes => human::bytes(bytes),
    }
}

impl Text for Rebalance {
    fn text(&self, out: &mut Lines, _: Time) {
        line!(out, "{}", rebalance_progress(self));
        let how = if self.automatic { "on" } else { "off" };
        line!(
            out,
            "automatic: {how} | threshold: {} % | moves: {} of a peer, {} in total | bytes per second: \
             {} of a peer, {} in total",
            self.threshold_percent,
            self.moves_max,
            self.moves_total_max,
            limit(self.bytes_per_second),
            limit(self.total_bytes_per_second)
        );
        for peer in &self.peers {
            let capacity = peer
                .capacity_bytes
                .map_or_else(|| "unknown".to_owned(), human::bytes);
            let state = match (peer.error.is_empty(), peer.is_moving, peer.takes_pins) {
                (false, ..) => format!(" | does not answer: {}", peer.error),
                (true, true, _) => format!(" | moved {} of {}", peer.moved, peer.planned),
                (true, false, false) => " | takes no pins".to_owned(),
                (true, false, true) => String::new(),
            };
            line!(
                out,
                "{} | {} | {} copies, its share is {} | capacity {capacity}{state}",
                peer.peer,
                peer.peername,
                peer.copies,
                peer.target
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rebalancing_shows_its_limits_and_peers() {
        let state = serde_json::from_str::<Rebalance>(
            r#"{"automatic":true,"threshold_percent":10,"moves_max":64,"moves_total_max":512,
                "bytes_per_second":50000000,"moves":7,"peers":[{"peer":"Qa","peername":"n","copies":9,
                "target":8,"capacity_bytes":1000,"takes_pins":true,"is_moving":true,"planned":2,
                "moved":1}]}"#,
        );
        let mut out = Lines::default();
        state.unwrap().text(&mut out, Time::from_unix(1_800_000_000));
        let expected = "1 peers move copies: 7 moves would even out the copies, 0 copies wait for \
                        their replacements\n\
                        automatic: on | threshold: 10 % | moves: 64 of a peer, 512 in total | bytes per \
                        second: 50 MB of a peer, any number in total\n\
                        Qa | n | 9 copies, its share is 8 | capacity 1.0 kB | moved 1 of 2\n";
        assert_eq!(out.into_string(), expected);
    }
}
