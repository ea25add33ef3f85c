//! Clients of Kubo get the same responses from a node and from the proxy of a peer with such a node.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tests::{Cluster, Said, closed_port, http, run};

use super::backends::{Daemon, cluster_on, prepared};
use super::{installed, kubo_program};

/// CID of the empty directory.
const EMPTY: &str = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";

/// A node, and a peer with another node and a proxy.
struct Both {
    straight: u16,
    through: u16,
    cluster: Cluster,
    _daemons: Vec<Daemon>,
    _alone: Option<Cluster>,
}

fn with_proxy() -> (Cluster, u16) {
    let (prepared, through) = (prepared(1), closed_port());
    let address = format!("/ip4/127.0.0.1/tcp/{through}");
    prepared.peers[0].edit(|config| {
        config["api"]["ipfsproxy"] = json!({"listen_multiaddress": address});
    });
    (prepared, through)
}

impl Both {
    /// Starts two embedded nodes.
    fn embedded() -> Self {
        let (mut cluster, through) = with_proxy();
        cluster.peers[0].start_and_wait();
        cluster.wait_ready();
        let mut alone = prepared(1);
        alone.peers[0].start_and_wait();
        Self {
            straight: alone.peers[0].ipfs_port,
            through,
            cluster,
            _daemons: Vec::new(),
            _alone: Some(alone),
        }
    }

    /// Starts two Kubo daemons.
    fn kubo(program: &Path) -> Self {
        let (prepared, through) = with_proxy();
        let folder = |name: &str| prepared.folder().join(name);
        let (alone, behind) = (
            Daemon::kubo(program, &folder("alone")),
            Daemon::kubo(program, &folder("behind")),
        );
        // A new Kubo has a pin of the empty directory, which the cluster does not know.
        for daemon in [&alone, &behind] {
            let target = format!("/api/v0/pin/rm?arg={EMPTY}");
            let unpinned = http::request(daemon.port, "POST", &target, &[], &[]).unwrap();
            assert!(unpinned.is_success(), "{}", unpinned.text());
        }
        prepared.peers[0].edit(|config| {
            let address = format!("/ip4/127.0.0.1/tcp/{}", behind.port);
            config["api"]["ipfsproxy"]["node_multiaddress"] = json!(address);
        });
        let cluster = cluster_on(prepared, std::slice::from_ref(&behind));
        Self {
            straight: alone.port,
            through,
            cluster,
            _daemons: vec![alone, behind],
            _alone: None,
        }
    }

    fn files(&self) -> PathBuf {
        let folder = self.cluster.folder().join("files");
        std::fs::create_dir_all(folder.join("dir/sub")).unwrap();
        for (name, content) in [
            ("a.txt", "hello\n"),
            ("b.txt", "bee\n"),
            ("dir/one", "one\n"),
            ("dir/sub/two", "two\n"),
            ("json", "{\"x\":1}"),
            ("big", &"z".repeat(300_000)),
        ] {
            std::fs::write(folder.join(name), content).unwrap();
        }
        folder
    }
}

/// Command lines to compare. `ROOT` is an added directory, `NEXT` a file added without a pin.
const LINES: &str = "
    add -Q a.txt
    add a.txt b.txt
    add -r dir
    add -w -r dir a.txt
    add -r --wrap-with-directory --cid-version=1 --pin-name=named dir
    add -q --only-hash big
    add --quieter --chunker=size-1000 --raw-leaves big
    add --hash=blake2b-256 --cid-version 1 a.txt
    add --inline --cid-version 1 a.txt
    add --pin=false b.txt
    add --silent a.txt
    add --trickle big
    add --chunker=bad a.txt
    add --to-files=/x a.txt
    add --cid-base=base36 a.txt
    add --max-file-links=4 --raw-leaves --cid-version=1 big
    pin ls --type=recursive
    pin ls --names --type=recursive
    pin ls --type=indirect
    pin ls --type=direct
    pin ls -q
    pin ls --stream --type=recursive
    pin ls --type=bad
    pin ls nonsense
    pin ls ROOT
    pin ls ROOT/sub/two
    pin ls ROOT/none
    pin ls QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWGxyE1
    pin rm ROOT
    pin rm ROOT
    pin add --name=later ROOT
    pin add --recursive=false ROOT
    pin add --recursive=false ROOT/sub
    pin ls --names --name=lat
    pin rm --recursive=false ROOT
    pin add nonsense
    pin add ROOT/none
    pin add /ipfs/ROOT/sub/two
    pin update ROOT ROOT
    pin update nonsense ROOT
    pin update ROOT NEXT
    pin ls --names --name=lat
    dag put --pin json
    dag put json
    block put --pin a.txt
    block put b.txt
    dag import a.txt
    cat NEXT/none
    ls ROOT
    refs -r ROOT
    files ls /
    key list
    name resolve nonsense
    object stat ROOT
    pin ls --type=recursive -q
    repo gc -q
";

#[test]
#[ignore = "needs Kubo's own program: KUBO=/path/to/ipfs cargo test -p tests --test real_ipfs -- --ignored"]
fn the_ipfs_command_line_hears_the_same_through_the_proxy() {
    let kubo = kubo_program();
    let both = Both::kubo(&kubo);
    let files = both.files();
    let ipfs = |port: u16, line: &str| -> Said {
        let mut command = Command::new(&kubo);
        command.env("IPFS_PATH", files.join("none")).current_dir(&files);
        command.args(["--api", &format!("/ip4/127.0.0.1/tcp/{port}")]);
        run(command.args(line.split_whitespace()))
    };
    let added = |line: &str| {
        let cids = [both.straight, both.through].map(|port| ipfs(port, line).ok().trim().to_owned());
        assert_eq!(cids[0], cids[1], "{line}");
        cids[0].clone()
    };
    let (root, next) = (added("add -Q -r dir"), added("add -Q --pin=false big"));
    // Listings of Kubo and of a cluster are unordered.
    let sorted = |said: Said| {
        let mut lines: Vec<String> = said
            .out
            .lines()
            .chain(said.err.lines())
            .map(str::to_owned)
            .collect();
        lines.sort();
        (said.code, lines)
    };
    for line in LINES.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let line = line.replace("ROOT", &root).replace("NEXT", &next);
        let (straight, through) = (
            sorted(ipfs(both.straight, &line)),
            sorted(ipfs(both.through, &line)),
        );
        assert_eq!(through, straight, "ipfs {line}");
    }
}

fn javascript_clients_work(both: &Both, installed: &Path) {
    let api = format!("http://127.0.0.1:{}", both.through);
    super::node_script(installed, "kubo-clients.mjs", &[&api]);
}

fn the_python_client_hears_the_same(both: &Both, installed: &Path) {
    let [straight, through] = [both.straight, both.through].map(|port| {
        let mut command = Command::new(installed.join("python/bin/python"));
        command.arg(installed.join("kubo-client.py"));
        run(command.args(["127.0.0.1", &port.to_string()])).ok()
    });
    assert!(straight.ends_with("ALL OK\n"), "{straight}");
    assert_eq!(through, straight);
}

#[test]
fn the_javascript_clients_of_kubo_use_the_proxy() {
    let Some(installed) = installed() else { return };
    javascript_clients_work(&Both::embedded(), &installed);
}

#[test]
fn the_python_client_of_kubo_gets_the_same_responses_through_the_proxy() {
    let Some(installed) = installed() else { return };
    the_python_client_hears_the_same(&Both::embedded(), &installed);
}

#[test]
#[ignore = "needs Kubo's own program: KUBO=/path/to/ipfs cargo test -p tests --test real_ipfs -- --ignored"]
fn the_clients_of_kubo_use_the_proxy_before_a_kubo() {
    let Some(installed) = installed() else { return };
    let kubo = kubo_program();
    javascript_clients_work(&Both::kubo(&kubo), &installed);
    the_python_client_hears_the_same(&Both::kubo(&kubo), &installed);
}
