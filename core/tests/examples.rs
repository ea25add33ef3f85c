//! Runs the example of the crate documentation.

#[path = "../examples/single_node.rs"]
#[allow(dead_code, reason = "`main` of the example")]
mod single_node;

#[test]
fn single_node_pins_a_cid() {
    use cluster_core::PinsetView;

    let peer = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"
        .parse()
        .unwrap();
    let cid: cluster_core::Cid = "bafkqablimvwgy3y".parse().unwrap();
    let pins = single_node::pin(peer, cid.clone()).pins(None, 10);
    assert_eq!(pins.iter().map(|pin| &pin.cid).collect::<Vec<_>>(), [&cid]);
}
