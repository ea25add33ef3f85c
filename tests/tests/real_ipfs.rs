//! A real Kubo node and real clients against our peers. They do not come with Rust:
//! `tests/real-ipfs/install` gets them, and `.ci/run real_ipfs` calls it first.

#[path = "real_ipfs/backends.rs"]
mod backends;
#[path = "real_ipfs/proxy.rs"]
mod proxy;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tests::{Cluster, Options, cids, closed_port, root, run, wait_until};

/// Where all is installed. `None`, and a line that says so, where it is not: but never in CI.
fn installed() -> Option<PathBuf> {
    let folder = root().join("target/real-ipfs");
    if folder.join("installed").exists() {
        return Some(folder);
    }
    let what = "Kubo and the JavaScript clients are not installed: tests/real-ipfs/install gets them";
    assert!(std::env::var_os("REAL_IPFS").is_none(), "{what}");
    // Not captured, unlike what `println!` writes.
    let _ = writeln!(std::io::stderr(), "LEFT OUT: {what}");
    None
}

/// Kubo's own program, which no package registry has: whoever has one names it in `KUBO`.
///
/// # Panics
/// The variable is not set.
fn kubo_program() -> PathBuf {
    let program = std::env::var_os("KUBO").expect("KUBO names Kubo's program, ipfs");
    PathBuf::from(program)
}

/// A real Kubo node, on loopback.
struct Kubo {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    address: String,
}

impl Kubo {
    fn start(installed: &Path, repository: &Path) -> Self {
        let port = closed_port();
        let mut child = Command::new(installed.join("python/bin/python"))
            .arg(installed.join("kubo.py"))
            .arg(repository)
            .arg(port.to_string())
            // It writes its log to where it is started.
            .current_dir(repository.parent().expect("it is in the cluster's folder"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let orders = child.stdin.take().expect("is piped");
        let answers = BufReader::new(child.stdout.take().expect("is piped"));
        let mut kubo = Self {
            child,
            orders,
            answers,
            address: String::new(),
        };
        kubo.address = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", kubo.answer("ID"));
        kubo
    }

    /// The answer that begins with this word; the library says other things too.
    fn answer(&mut self, word: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.answers.read_line(&mut line).expect("can be read");
            assert_ne!(read, 0, "Kubo ended instead of answering {word}");
            if let Some((first, rest)) = line.trim_end().split_once(' ')
                && first == word
            {
                return rest.to_owned();
            }
        }
    }

    fn order(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").expect("Kubo listens");
        let word = order.split(' ').next().unwrap_or("").to_uppercase();
        self.answer(&word)
    }
}

impl Drop for Kubo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_kubo_pins_from_a_peer_and_the_cluster_pins_from_it() {
    let Some(installed) = installed() else { return };
    let cluster = Cluster::start();
    let path = |name: &str| cluster.folder().join(name).display().to_string();
    let mut kubo = Kubo::start(&installed, &cluster.folder().join("kubo"));
    let peer = &cluster.peers[1];
    let connected = peer.ipfs(&format!("swarm/connect?arg={}", kubo.address)).unwrap();
    assert_eq!(connected.status, 200, "{}", connected.text());

    for (number, query) in ["cid-version=0", "cid-version=1&raw-leaves=true"]
        .into_iter()
        .enumerate()
    {
        let content = cids::bytes(number as u64, 20_000_000);
        let added = peer.add(query, &[("file", &content)]).unwrap();
        let cid = added[0]["cid"].as_str().unwrap();
        assert_eq!(kubo.order(&format!("pin {cid}")), "0", "Kubo pins {cid}");
        kubo.order(&format!("get {cid} {}", path("from-us")));
        assert!(
            std::fs::read(path("from-us")).unwrap() == content,
            "{cid} differs at Kubo"
        );
        std::fs::remove_file(path("from-us")).unwrap();
    }

    let content = cids::bytes(77, 20_000_000);
    std::fs::write(path("of-kubo"), &content).unwrap();
    let cid = kubo.order(&format!("add {}", path("of-kubo")));
    // Only this peer's node knows Kubo: the others get the content from it.
    peer.ask("POST", &format!("/pins/{cid}")).unwrap();
    for other in &cluster.peers {
        other.wait_state(&cid, "pinned", 3);
    }
    drop(kubo);
    for other in &cluster.peers {
        assert!(other.cat(&cid) == content, "{cid} differs at {}", other.name);
    }
    // What is the same is added with the same name.
    let again = peer.add("cid-version=0", &[("file", &content)]).unwrap();
    assert_eq!(again[0]["cid"], cid.as_str());
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
