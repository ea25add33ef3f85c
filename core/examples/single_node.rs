//! Drives one node with an in-memory store: pins a CID, and prints the pinset.
//!
//! `cargo run -p cluster-core --example single_node`

#[path = "single_node/store.rs"]
mod store;

use std::collections::VecDeque;

use cluster_core::{
    Batch, Cid, Config, Effect, Event, Incarnation, Members, Node, Now, PeerId, Phase, PinOptions,
    PinsetView, Recovered, Replicas, Request, Ticket,
};

/// Pins `cid` in a new cluster of one peer, and returns the store.
pub(crate) fn pin(peer: PeerId, cid: Cid) -> store::Store {
    let founded = Recovered::founding(Incarnation(1), Members::initial([peer.clone()]));
    let (mut now, mut store) = (Now::default(), store::Store::default());
    let mut node = Node::new(Config::new(peer), founded, 7, now);
    let (pinned, options) = (cid.clone(), PinOptions::new(Replicas::Everywhere));
    let (ticket, request) = (
        Ticket(1),
        Request::Pin {
            cid,
            options,
            owner: None,
        },
    );
    let mut events = VecDeque::from([Event::Requested { ticket, request }]);
    while store
        .local(&pinned)
        .is_none_or(|local| local.phase != Phase::Pinned)
    {
        let event = events.pop_front().unwrap_or_else(|| {
            // Nothing happens before the next deadline, so it comes at once: `now` is not a real clock.
            let (deadline, _) = node.poll_timeout(now).expect("Raft always has a deadline");
            now.mono = now.mono.max(deadline);
            Event::TimedOut
        });
        for effect in node.handle(now, &store, event) {
            match effect {
                Effect::Measure => events.push_back(Event::Measured { metrics: Vec::new() }),
                Effect::Persist(Batch { id, ops, .. }) => {
                    ops.into_iter().for_each(|op| store.write(op));
                    events.push_back(Event::Persisted { batch: id });
                }
                Effect::Reply { reply, .. } => assert!(reply.is_ok(), "{reply:?}"),
                Effect::StartIpfs { op, .. } => events.push_back(Event::IpfsFinished { op, outcome: Ok(()) }),
                // A cluster of one sends nothing, and this pin is done before the first comparison.
                Effect::CancelIpfs { .. } | Effect::CompareIpfs { .. } => {}
                Effect::DiscardSnapshot { .. } | Effect::Send { .. } | Effect::SendSnapshot { .. } => {}
            }
        }
    }
    store
}

#[allow(clippy::disallowed_macros, reason = "only the core must not print")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let peer = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp".parse()?;
    let store = pin(peer, "bafkqablimvwgy3y".parse()?);
    for pin in store.pins(None, 10) {
        println!("{} is pinned as of log entry {}", pin.cid, pin.version);
    }
    Ok(())
}
