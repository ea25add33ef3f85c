//! Few but large requests: each may be refused, but consensus keeps working.

use serde_json::json;
use tests::{Cluster, Peer, cids, http, wait_until};

/// Imports pins at a peer, with `POST /allocations`.
fn allocate(port: u16, pins: &[serde_json::Value]) -> http::Answer {
    let body: String = pins.iter().map(|pin| format!("{pin}\n")).collect();
    let answer = http::request(
        port,
        "POST",
        "/allocations",
        &[("Content-Type", "application/json")],
        body.as_bytes(),
    );
    answer.expect("the peer answers")
}

/// Runs `requests` concurrently.
fn at_once<T: Send>(requests: impl IntoIterator<Item = impl FnOnce() -> T + Send>) -> Vec<T> {
    std::thread::scope(|scope| {
        let running: Vec<_> = requests.into_iter().map(|request| scope.spawn(request)).collect();
        let ended = running
            .into_iter()
            .map(|thread| thread.join().expect("does not panic"));
        ended.collect()
    })
}

fn accepts_writes(peer: &Peer, text: &str) {
    let cid = cids::identity(text);
    wait_until("the peer accepts a write", || {
        peer.ask("POST", &format!("/pins/{cid}"))
    });
}

#[test]
fn oversized_pins_are_refused_and_many_large_ones_are_committed() {
    let mut cluster = Cluster::start();
    let port = cluster.peers[cluster.leader()].rest_port;

    let origin = format!("/dns4/{}/tcp/4001", "o".repeat(8_380_000));
    let poison = |number: u32| {
        let cid = cids::identity(&format!("poison {number}"));
        let pin = json!({ "cid": cid, "origins": [origin], "type": "pin" });
        move || allocate(port, &[pin])
    };
    for answer in at_once((0..3).map(poison)) {
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(
            answer.text().contains("an origin of the pin has"),
            "{}",
            answer.text()
        );
    }

    let body = |number: u32| {
        let pins: Vec<_> = (0..500)
            .map(|pin| {
                let cid = cids::identity(&format!("large {number} {pin}"));
                json!({ "cid": cid, "metadata": { "k": "v".repeat(16_000) }, "type": "pin" })
            })
            .collect();
        // On a busy machine an import may outlast its deadline; clients repeat it then.
        move || {
            wait_until("the import is committed", || {
                let answer = allocate(port, &pins);
                match answer.status {
                    503 => Err(answer.text()),
                    _ => Ok(answer),
                }
            })
        }
    };
    for answer in at_once((0..10).map(body)) {
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    for (number, peer) in cluster.peers.iter().enumerate() {
        accepts_writes(peer, &format!("afterwards {number}"));
    }
    wait_until("all peers have the same pins", || {
        let pinsets = cluster.peers.iter().map(Peer::pinset);
        let pinsets: Vec<_> = pinsets.collect::<Result<_, _>>()?;
        let is_same = pinsets.windows(2).all(|two| two[0] == two[1]);
        if is_same {
            Ok(())
        } else {
            Err("they differ".to_owned())
        }
    });
    for peer in &mut cluster.peers {
        peer.check();
    }
}
