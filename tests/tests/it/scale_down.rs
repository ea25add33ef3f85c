//! Hook of the Helm chart by which a peer leaves the cluster when its StatefulSet gets fewer replicas. The
//! API of Kubernetes is simulated; the peers are real.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Cluster, Options, cids, closed_port, program, root, run, wait_until};

/// Name of the StatefulSet.
const SET: &str = "pins-ipfs-cluster";

/// Answers requests for the StatefulSet like the API of Kubernetes, and returns the address.
fn kubernetes(answer: &Value) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answer = answer.to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> = lines
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .collect();
            let wanted = format!("GET /apis/apps/v1/namespaces/storage/statefulsets/{SET} HTTP/1.1");
            let permitted = head.iter().any(|line| line == "Authorization: Bearer a.token");
            let (status, body) = match head.first() {
                Some(first) if *first == wanted && permitted => ("200 OK", answer.as_str()),
                _ => ("403 Forbidden", "{}"),
            };
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
        }
    });
    address
}

/// Returns a StatefulSet with this number of replicas.
fn set(replicas: u32) -> Value {
    json!({"kind": "StatefulSet", "metadata": {"name": SET}, "spec": {"replicas": replicas}})
}

/// Pod in which the hook runs: a folder with the token of the service account, and an `ipfs-cluster-ctl` that
/// records its arguments and asks the peer at a port.
struct Pod {
    folder: TempDir,
}

impl Pod {
    fn new(rest_port: u16) -> Self {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("namespace"), "storage").unwrap();
        fs::write(folder.path().join("token"), "a.token").unwrap();
        let ctl = folder.path().join("ipfs-cluster-ctl");
        let (calls, real) = (folder.path().join("calls"), program("ipfs-cluster-ctl"));
        let script = format!(
            "#!/bin/sh\necho \"$@\" >>{}\nexec {} --host /ip4/127.0.0.1/tcp/{rest_port} \"$@\"\n",
            calls.display(),
            real.display()
        );
        fs::write(&ctl, script).unwrap();
        fs::set_permissions(&ctl, fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    /// Runs the hook in the pod with this number, and returns its messages.
    fn stop(&self, ordinal: u32, api: &str) -> String {
        let path = self.folder.path();
        let log = path.join("log");
        fs::write(&log, "").unwrap();
        let hook = root().join("deploy/helm/ipfs-cluster/files/drain-on-scale-down.sh");
        let mut command = Command::new("/bin/sh");
        command.arg(hook).args([SET, "300"]).arg(&log).env_clear();
        command.env("PATH", format!("{}:/usr/bin:/bin", path.display()));
        command.env("HOSTNAME", format!("{SET}-{ordinal}"));
        command.env("KUBERNETES_API", api).env("SERVICE_ACCOUNT", path);
        run(&mut command).ok();
        fs::read_to_string(log).unwrap()
    }

    /// Returns whether the peer was asked for anything.
    fn has_called(&self) -> bool {
        Path::new(&self.folder.path().join("calls")).exists()
    }
}

#[test]
fn pod_that_restarts_or_is_deleted_with_its_set_keeps_its_peer_a_member() {
    let pod = Pod::new(closed_port());
    let stop = |ordinal: u32, answer: &Value| pod.stop(ordinal, &kubernetes(answer));
    assert_eq!(stop(2, &set(3)), "", "a restart");
    assert_eq!(stop(9, &set(10)), "", "numbers are not compared as text");
    let mut deleted = set(2);
    deleted["metadata"]["deletionTimestamp"] = json!("2026-11-30T12:00:00Z");
    let cases = [
        (deleted, "is being deleted"),
        (set(0), "zero replicas"),
        (json!({"spec": {}}), "has no number of replicas"),
        (json!([]), "cannot read the answer"),
    ];
    for (answer, reason) in cases {
        let said = stop(2, &answer);
        assert!(
            said.contains(reason) && said.contains("the peer stays a member"),
            "{said}"
        );
    }
    let refused = format!("{}/other", kubernetes(&set(2)));
    for (api, reason) in [
        (refused, "403"),
        (
            format!("http://127.0.0.1:{}", closed_port()),
            "cannot ask Kubernetes",
        ),
    ] {
        let said = pod.stop(2, &api);
        assert!(
            said.contains(reason) && said.contains("the peer stays a member"),
            "{said}"
        );
    }
    assert!(!pod.has_called());
    let said = pod.stop(2, &kubernetes(&set(2)));
    assert!(said.contains("this peer does not answer"), "{said}");
}

#[test]
fn pod_of_a_smaller_set_moves_its_pins_and_leaves_the_cluster() {
    let mut cluster = Cluster::start_with(&Options {
        edit: |config| config["cluster"]["monitor_ping_interval"] = json!("1s"),
        ..Options::default()
    });
    let (pod, api) = (Pod::new(cluster.peers[2].rest_port), kubernetes(&set(2)));
    let id = cluster.peers[2].id.clone();
    let query = format!("replication-min=1&replication-max=1&user-allocations={id}");
    let content = cids::bytes(1, 20_000);
    let added = cluster.peers[2].add(&query, &[("file", &content)]).unwrap();
    let cid = added[0]["cid"].as_str().unwrap().to_owned();
    cluster.peers[0].wait_state(&cid, "pinned", 1);

    // Two peers cannot hold three copies.
    let everywhere = cids::identity("three copies");
    let target = format!("/pins/{everywhere}?replication-min=3&replication-max=3");
    cluster.peers[0].ask("POST", &target).unwrap();
    let said = pod.stop(2, &api);
    let refused = said.contains(&format!("{everywhere} needs 3")) && said.contains("the peer stays a member");
    assert!(refused, "{said}");
    assert_eq!(cluster.peers[0].try_get("/drains").unwrap().json(), json!([]));
    assert_eq!(cluster.peers[0].ctl_json(&["peers", "ls"]).len(), 3);

    cluster.peers[0]
        .ask("DELETE", &format!("/pins/{everywhere}"))
        .unwrap();
    let said = pod.stop(2, &api);
    assert!(said.contains(&format!("removed {id} from the cluster")), "{said}");
    cluster.peers[2].wait_end();
    wait_until("the peer is no member", || {
        match cluster.peers[0].ctl_json(&["peers", "ls"]).len() {
            2 => Ok(()),
            members => Err(format!("{members} members")),
        }
    });
    cluster.peers[0].wait_state(&cid, "pinned", 1);
    assert_eq!(cluster.peers[0].cat(&cid), content);
}
