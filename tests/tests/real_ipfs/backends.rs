//! Real daemons as `ipfs_connector.ipfshttp`: Kubo, and js-ipfs, which has an older form of Kubo's API.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tests::http::{self, Answer};
use tests::{Cluster, Options, Peer, cids, closed_port, run, wait_until};

use super::{installed, kubo_program};

/// Daemon with Kubo's API, on loopback.
pub(super) struct Daemon {
    child: Child,
    pub(super) port: u16,
}

impl Daemon {
    pub(super) fn kubo(program: &Path, folder: &Path) -> Self {
        let [port, swarm] = [closed_port(), closed_port()];
        let ipfs = |arguments: &[&str]| {
            let mut command = Command::new(program);
            // Disable its requests for settings and its reports over the Internet.
            command
                .env("IPFS_PATH", folder)
                .env("IPFS_TELEMETRY", "off")
                .env("HOME", folder);
            command.args(arguments);
            command
        };
        run(&mut ipfs(&["init", "--profile=test"])).ok();
        for (key, value) in [
            ("Addresses.API", json!(format!("/ip4/127.0.0.1/tcp/{port}"))),
            ("Addresses.Swarm", json!([format!("/ip4/127.0.0.1/tcp/{swarm}")])),
            ("Routing.Type", json!("none")),
            ("AutoConf.Enabled", json!(false)),
            ("DNS.Resolvers", json!({})),
            ("Ipns.DelegatedPublishers", json!([])),
            ("Routing.DelegatedRouters", json!([])),
        ] {
            run(&mut ipfs(&["config", "--json", key, &value.to_string()])).ok();
        }
        Self::started(ipfs(&["daemon"]), port, folder)
    }

    fn js(installed: &Path, folder: &Path) -> Self {
        let [port, swarm] = [closed_port(), closed_port()];
        let ipfs = |arguments: &[&str]| {
            let mut command = Command::new("node");
            let modules = installed.join("js-ipfs");
            command
                .env("IPFS_PATH", folder)
                .arg("-r")
                .arg(installed.join("polyfill.cjs"));
            command
                .arg(modules.join("node_modules/ipfs/src/cli.js"))
                .args(arguments);
            command
        };
        std::fs::create_dir_all(folder).unwrap();
        run(&mut ipfs(&["init", "--profile", "test"])).ok();
        let path = folder.join("config");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["Bootstrap"] = json!([]);
        config["Discovery"] = json!({"MDNS": {"Enabled": false}, "webRTCStar": {"Enabled": false}});
        config["Routing"] = json!({"Type": "none"});
        let listen = |port: u16| format!("/ip4/127.0.0.1/tcp/{port}");
        let [gateway, rpc] = [closed_port(), closed_port()].map(listen);
        config["Addresses"] = json!({
            "API": listen(port), "Swarm": [listen(swarm)], "Gateway": gateway, "RPC": rpc, "Delegates": [],
        });
        std::fs::write(&path, config.to_string()).unwrap();
        Self::started(ipfs(&["daemon"]), port, folder)
    }

    fn started(mut daemon: Command, port: u16, folder: &Path) -> Self {
        let log = File::create(folder.join("daemon.log")).unwrap();
        daemon
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let mut started = Self {
            child: daemon.spawn().expect("the daemon starts"),
            port,
        };
        wait_until("the daemon answers", || {
            if let Some(status) = started.child.try_wait().unwrap() {
                let log = std::fs::read_to_string(folder.join("daemon.log")).unwrap_or_default();
                panic!("the daemon ended: {status}\n{log}");
            }
            started.call("id").map_err(|error| error.to_string())
        });
        started
    }

    fn call(&self, call: &str) -> std::io::Result<Answer> {
        http::request(self.port, "POST", &format!("/api/v0/{call}"), &[], &[])
    }

    /// Returns whether it has a recursive pin of the CID.
    fn pins(&self, cid: &str) -> bool {
        let answer = self.call(&format!("pin/ls?arg={cid}&type=recursive")).unwrap();
        answer.is_success()
    }

    /// Reads its own copy, without the network.
    fn content(&self, cid: &str) -> Vec<u8> {
        let answer = self.call(&format!("cat?arg={cid}&offline=true")).unwrap();
        assert!(answer.is_success(), "{}", answer.text());
        answer.body
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts peers with these daemons.
pub(super) fn cluster_on(prepared: Cluster, daemons: &[Daemon]) -> Cluster {
    let mut cluster = prepared;
    for (peer, daemon) in cluster.peers.iter_mut().zip(daemons) {
        let address = format!("/ip4/127.0.0.1/tcp/{}", daemon.port);
        peer.edit(|config| {
            config["ipfs_connector"] =
                json!({"ipfshttp": {"node_multiaddress": address, "pin_timeout": "15s"}});
            config["cluster"]["pin_recover_interval"] = json!("1h");
        });
    }
    cluster.peers.iter_mut().for_each(Peer::start);
    cluster.wait_ready();
    cluster
}

pub(super) fn prepared(peers: usize) -> Cluster {
    Cluster::prepare(&Options {
        peers,
        ..Options::default()
    })
}

#[test]
#[ignore = "needs Kubo's own program: KUBO=/path/to/ipfs cargo test -p tests --test real_ipfs -- --ignored"]
fn what_is_added_with_two_copies_is_at_two_kubos() {
    let kubo = kubo_program();
    let prepared = prepared(2);
    let daemons = [0, 1].map(|n| Daemon::kubo(&kubo, &prepared.folder().join(format!("kubo{n}"))));
    let cluster = cluster_on(prepared, &daemons);
    let forms = [
        "cid-version=0",
        "cid-version=1&raw-leaves=true",
        "cid-version=1&hash=blake2b-256",
    ];
    for (number, form) in (0..).zip(forms) {
        let content = cids::bytes(number, 10_000_000);
        let query = format!("{form}&replication-min=2&replication-max=2");
        let added = cluster.peers[0].add(&query, &[("file", &content)]).unwrap();
        let cid = added[0]["cid"].as_str().unwrap();
        cluster.peers[1].wait_state(cid, "pinned", 2);
        for daemon in &daemons {
            assert!(daemon.pins(cid), "{cid} is not pinned");
            assert!(daemon.content(cid) == content, "{cid} differs");
        }
        cluster.peers[1].ask("DELETE", &format!("/pins/{cid}")).unwrap();
        wait_until("both have unpinned it", || {
            let left = daemons.iter().filter(|daemon| daemon.pins(cid)).count();
            if left == 0 {
                Ok(())
            } else {
                Err(format!("{left} have not"))
            }
        });
    }
}

/// Lists the files of large blocks in the repository of a daemon, sorted.
fn block_files(repository: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for shard in std::fs::read_dir(repository.join("blocks")).unwrap() {
        let shard = shard.unwrap().path();
        if shard.is_dir() {
            found.extend(std::fs::read_dir(shard).unwrap().map(|file| file.unwrap().path()));
        }
    }
    found.retain(|file| std::fs::metadata(file).unwrap().len() > 100_000);
    found.sort();
    found
}

/// Returns the state of the scrub of a peer.
fn scrub_of(peer: &Peer) -> Value {
    let state = peer.try_get("/ipfs/scrub").unwrap().json();
    state["peer_map"][&peer.id].clone()
}

#[test]
#[ignore = "needs Kubo's own program: KUBO=/path/to/ipfs cargo test -p tests --test real_ipfs -- --ignored"]
fn scrub_mends_damaged_and_missing_blocks_of_a_kubo() {
    let kubo = kubo_program();
    let prepared = prepared(2);
    let folders = [0, 1].map(|n| prepared.folder().join(format!("kubo{n}")));
    let daemons = [0, 1].map(|n| Daemon::kubo(&kubo, &folders[n]));
    let cluster = cluster_on(prepared, &daemons);
    let id = daemons[1].call("id").unwrap().json();
    let address = id["Addresses"][0].as_str().unwrap();
    let connected = daemons[0].call(&format!("swarm/connect?arg={address}")).unwrap();
    assert!(connected.is_success(), "{}", connected.text());
    let peer = &cluster.peers[0];
    let content = cids::bytes(7, 3_000_000);
    let query = "cid-version=1&raw-leaves=true&replication-min=2&replication-max=2";
    let added = peer.add(query, &[("file", &content)]).unwrap();
    let cid = added[0]["cid"].as_str().unwrap();
    peer.wait_state(cid, "pinned", 2);

    let files = block_files(&folders[0]);
    let mut damaged = std::fs::read(&files[0]).unwrap();
    damaged[1_000] ^= 1;
    std::fs::write(&files[0], damaged).unwrap();
    std::fs::remove_file(&files[1]).unwrap();
    peer.ctl(&["ipfs", "scrub", "--now", "--fraction", "1"]).ok();
    wait_until("a cycle has ended", || {
        let state = scrub_of(peer);
        if state["last"].is_null() {
            Err(state.to_string())
        } else {
            Ok(())
        }
    });
    let state = scrub_of(peer);
    let last = &state["last"];
    assert_eq!(
        (&last["damaged"], &last["incomplete"]),
        (&json!(1), &json!(1)),
        "{state}"
    );
    assert_eq!(
        (&state["mended_blocks"], &state["unmended_blocks"]),
        (&json!(1), &json!(0)),
        "{state}"
    );
    peer.wait_state(cid, "pinned", 2);
    assert!(daemons[0].pins(cid) && daemons[0].content(cid) == content);
    assert_eq!(block_files(&folders[0]), files);
}

#[test]
fn js_ipfs_adds_pins_unpins_and_recovers_for_a_peer() {
    let Some(installed) = installed() else { return };
    let prepared = prepared(1);
    let daemons = [Daemon::js(&installed, &prepared.folder().join("js"))];
    let cluster = cluster_on(prepared, &daemons);
    let (peer, js) = (&cluster.peers[0], &daemons[0]);

    let content = cids::bytes(5, 3_000_000);
    let added = peer
        .add("cid-version=1&raw-leaves=true", &[("file", &content)])
        .unwrap();
    let cid = added[0]["cid"].as_str().unwrap();
    peer.wait_state(cid, "pinned", 1);
    assert!(js.pins(cid) && js.content(cid) == content);
    peer.ask("DELETE", &format!("/pins/{cid}")).unwrap();
    wait_until("it is unpinned", || {
        if js.pins(cid) {
            Err("not yet".to_owned())
        } else {
            Ok(())
        }
    });

    // No node has this block: the pin fails with the reason, and succeeds by recover once the block exists.
    let block = b"a block that comes late";
    let late = "bafkreig57kzgb7mxfuabuqelzrrw443flr3dfyk2ygk7b4pvsdcsdxc5ae";
    peer.ask("POST", &format!("/pins/{late}")).unwrap();
    peer.wait_state(late, "pin_error", 1);
    let status = peer.try_get(&format!("/pins/{late}")).unwrap().json();
    let error = status["peer_map"][&peer.id]["error"].as_str().unwrap().to_owned();
    assert_eq!(error, "no progress for 15 s");
    let (kind, body) = http::multipart(&[("block", block)]);
    let target = "/api/v0/block/put?format=raw&mhtype=sha2-256&version=1";
    let put = http::request(js.port, "POST", target, &[("Content-Type", kind.as_str())], &body).unwrap();
    assert!(put.is_success(), "{}", put.text());
    assert_eq!(put.json()["Key"], late, "the test names its block");
    peer.ask("POST", &format!("/pins/{late}/recover")).unwrap();
    peer.wait_state(late, "pinned", 1);

    // js-ipfs's own error text is reported.
    let unknown = peer.add("hash=blake3", &[("file", b"x")]);
    let error = unknown.unwrap_err();
    assert!(error.contains("block/put"), "{error}");
}
