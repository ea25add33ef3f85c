//! Real IPFS nodes and clients (Kubo, js-ipfs, Helia, go-libp2p with boxo) against our peers.
//! `tests/real-ipfs/install` installs them; `.ci/run real_ipfs` runs it first.

#[path = "real_ipfs/backends.rs"]
mod backends;
#[path = "real_ipfs/pinning_service.rs"]
mod pinning_service;
#[path = "real_ipfs/proxy.rs"]
mod proxy;
#[path = "real_ipfs/routing.rs"]
mod routing;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tests::{Cluster, Options, cids, closed_port, root, run, wait_until};

/// Returns the folder of the installation; `None` with a message if there is none, which is an error in CI.
fn installed() -> Option<PathBuf> {
    let folder = root().join("target/real-ipfs");
    if folder.join("installed").exists() {
        return Some(folder);
    }
    let what = "real IPFS nodes and clients are not installed: tests/real-ipfs/install gets them";
    assert!(std::env::var_os("REAL_IPFS").is_none(), "{what}");
    // Unlike `println!`, not captured by the test harness.
    let _ = writeln!(std::io::stderr(), "LEFT OUT: {what}");
    None
}

/// Returns the path of the Kubo program from the variable `KUBO`: no package registry has it.
///
/// # Panics
/// If the variable is not set.
fn kubo_program() -> PathBuf {
    let program = std::env::var_os("KUBO").expect("KUBO names Kubo's program, ipfs");
    PathBuf::from(program)
}

/// Foreign IPFS node on loopback, controlled through its standard input.
struct Node {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    address: String,
}

impl Node {
    /// Starts a Kubo node without routing.
    fn kubo(installed: &Path, repository: &Path) -> Self {
        Self::kubo_with_routing(installed, repository, "none")
    }

    /// Starts a Kubo node with this type of routing, and no peers to join the DHT through.
    fn kubo_with_routing(installed: &Path, repository: &Path, routing: &str) -> Self {
        let mut python = Command::new(installed.join("python/bin/python"));
        python.arg(installed.join("kubo.py")).arg(repository);
        // It writes its log to its working folder.
        python.current_dir(repository.parent().expect("it is in the cluster's folder"));
        Self::start(python, &[routing])
    }

    /// Starts a Helia node without routing.
    fn helia(installed: &Path) -> Self {
        Self::start(Self::helia_command(installed), &[])
    }

    /// Starts a Helia node that is a `server` or a `client` of the DHT.
    fn helia_in_dht(installed: &Path, mode: &str) -> Self {
        Self::start(Self::helia_command(installed), &[mode])
    }

    fn helia_command(installed: &Path) -> Command {
        let mut node = Command::new("node");
        node.arg("-r").arg(installed.join("polyfill.cjs"));
        node.arg(installed.join("helia/helia.mjs"));
        node
    }

    /// Starts a node of go-libp2p and boxo: a `server` or a `client` of the DHT, or one that is only reached
    /// over `http`.
    fn go(installed: &Path, mode: &str) -> Self {
        Self::start(Command::new(installed.join("go-node")), &[mode])
    }

    fn start(mut command: Command, more: &[&str]) -> Self {
        let port = closed_port();
        command.arg(port.to_string()).args(more);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let orders = child.stdin.take().expect("is piped");
        let answers = BufReader::new(child.stdout.take().expect("is piped"));
        let mut node = Self {
            child,
            orders,
            answers,
            address: String::new(),
        };
        node.address = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", node.answer("ID"));
        node
    }

    /// Reads the response that begins with this word, skipping other output of Kubo's library.
    fn answer(&mut self, word: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.answers.read_line(&mut line).expect("can be read");
            assert_ne!(read, 0, "the node ended instead of answering {word}");
            let line = line.trim_end();
            let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
            if first == word {
                return rest.to_owned();
            }
        }
    }

    fn order(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").expect("the node listens");
        let word = order.split(' ').next().unwrap_or("").to_uppercase();
        self.answer(&word)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_kubo_pins_from_a_peer_and_the_cluster_pins_from_it() {
    let Some(installed) = installed() else { return };
    let cluster = Cluster::start();
    let kubo = Node::kubo(&installed, &cluster.folder().join("kubo"));
    let (content, cid) = exchange(&cluster, kubo);
    // The same content gets the same CID.
    let again = cluster.peers[1]
        .add("cid-version=0", &[("file", &content)])
        .unwrap();
    assert_eq!(again[0]["cid"], cid.as_str());
}

#[test]
fn helia_pins_from_a_peer_and_the_cluster_pins_from_it() {
    let Some(installed) = installed() else { return };
    let cluster = Cluster::start();
    exchange(&cluster, Node::helia(&installed));
}

/// Exchanges content in both directions. Returns the content that the other node added, and its CID.
fn exchange(cluster: &Cluster, mut node: Node) -> (Vec<u8>, String) {
    let path = |name: &str| cluster.folder().join(name).display().to_string();
    let peer = &cluster.peers[1];
    let connected = peer.ipfs(&format!("swarm/connect?arg={}", node.address)).unwrap();
    assert_eq!(connected.status, 200, "{}", connected.text());

    for (number, query) in ["cid-version=0", "cid-version=1&raw-leaves=true"]
        .into_iter()
        .enumerate()
    {
        let content = cids::bytes(number as u64, 20_000_000);
        let added = peer.add(query, &[("file", &content)]).unwrap();
        let cid = added[0]["cid"].as_str().unwrap();
        assert_eq!(node.order(&format!("pin {cid}")), "0", "the node pins {cid}");
        node.order(&format!("get {cid} {}", path("from-us")));
        assert!(
            std::fs::read(path("from-us")).unwrap() == content,
            "{cid} differs at the node"
        );
        std::fs::remove_file(path("from-us")).unwrap();
    }

    let content = cids::bytes(77, 20_000_000);
    std::fs::write(path("theirs"), &content).unwrap();
    let cid = node.order(&format!("add {}", path("theirs")));
    // Only this peer's node is connected to the other; the rest fetch the content from it.
    peer.ask("POST", &format!("/pins/{cid}")).unwrap();
    for other in &cluster.peers {
        other.wait_state(&cid, "pinned", 3);
    }
    drop(node);
    for other in &cluster.peers {
        assert!(other.cat(&cid) == content, "{cid} differs at {}", other.name);
    }
    (content, cid)
}

fn node_script(installed: &Path, script: &str, arguments: &[&str]) {
    let mut command = Command::new("node");
    command
        .arg(installed.join(script))
        .args(arguments)
        .current_dir(installed);
    let said = run(&mut command);
    assert!(
        said.code == 0 && said.out.contains("ALL OK"),
        "{script}: {said:#?}"
    );
}

#[test]
fn javascript_clients_of_kubo_use_the_embedded_node() {
    let Some(installed) = installed() else { return };
    let cluster = Cluster::start_with(&Options {
        peers: 2,
        ..Options::default()
    });
    let api = format!("http://127.0.0.1:{}", cluster.peers[0].ipfs_port);
    let other = wait_until("the other node has an address", || {
        let id = cluster.peers[1]
            .ipfs("id")
            .map_err(|error| error.to_string())?
            .json();
        let addresses = id["Addresses"].as_array().cloned().unwrap_or_default();
        let address = addresses
            .iter()
            .filter_map(|address| address.as_str())
            .find(|at| at.contains("127.0.0.1"));
        address.map(str::to_owned).ok_or(id.to_string())
    });
    node_script(&installed, "kubo-clients.mjs", &[&api, &other]);
}

#[test]
fn the_javascript_client_of_the_cluster_uses_the_rest_api() {
    let Some(installed) = installed() else { return };
    let cluster = Cluster::start();
    let [api, ipfs] = [cluster.peers[2].rest_port, cluster.peers[2].ipfs_port];
    let [api, ipfs] = [api, ipfs].map(|port| format!("http://127.0.0.1:{port}"));
    node_script(&installed, "cluster-client.mjs", &[&api, &ipfs]);
}
