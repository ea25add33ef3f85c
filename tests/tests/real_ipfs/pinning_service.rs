//! The compliance tool of the Pinning Service API against a cluster.

use std::process::Command;

use serde_json::json;
use tests::{Cluster, Options, closed_port, http, run};

use super::installed;

#[test]
fn pinning_service_passes_the_compliance_checks() {
    let Some(installed) = installed() else { return };
    let mut cluster = Cluster::prepare(&Options::default());
    let port = closed_port();
    cluster.peers[0].edit(|config| {
        config["api"]["pinsvcapi"] = json!({
            "http_listen_multiaddress": format!("/ip4/127.0.0.1/tcp/{port}"),
            "basic_auth_credentials": {"ann": "secret"},
        });
    });
    for peer in &mut cluster.peers {
        peer.start();
    }
    cluster.wait_ready();
    let basic = [("Authorization", "Basic YW5uOnNlY3JldA==")];
    let answer = http::request(port, "POST", "/token", &basic, b"").expect("an answer");
    let token = answer.json()["token"].as_str().expect("a token").to_owned();

    let tool = "node_modules/@ipfs-shipyard/pinning-service-compliance/dist/src/index.js";
    let mut node = Command::new("node");
    node.arg(installed.join(tool));
    node.args(["-s", &format!("http://127.0.0.1:{port}"), &token]);
    // It writes its report to its working folder.
    node.current_dir(cluster.folder());
    let said = run(&mut node).ok();
    assert!(said.contains("Summary (9/9 successful)"), "{said}");
}
