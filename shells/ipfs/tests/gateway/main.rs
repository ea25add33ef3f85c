//! The gateway with a real listener and a real node. The cases of `trustless` and `path` follow the suite
//! gateway-conformance; content is generated instead of read from its fixtures.

mod bounds;
mod hosts;
mod names;
mod path;
mod trustless;

#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;

use cluster_ipfs::gateway::{self, Settings};
use cluster_ipfs::unixfs::{AddOptions, Chunker, Metadata};
use cluster_ipfs::{Cid, Config, DagPath, Node, Upload};
use futures::TryStreamExt;
use support::{Answer, raw};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// Multicodec codes of blocks.
const DAG_CBOR: u64 = 0x71;
const DAG_JSON: u64 = 0x0129;

/// An embedded node with its gateway, until dropped.
struct Site {
    node: Node,
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
    _folder: TempDir,
}

impl Site {
    /// Starts a gateway that answers from this node alone.
    async fn start() -> Site {
        Site::start_with(Settings {
            no_fetch: true,
            ..Settings::default()
        })
        .await
    }

    async fn start_with(settings: Settings) -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let node = Node::open(Config {
            path: folder.path().join("ipfs"),
            swarm_listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            storage_max: None,
            network: cluster_ipfs::PublicNetwork::default(),
            fixed: std::collections::BTreeMap::new(),
        })
        .await
        .unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = async {
            let _ = stopped.await;
        };
        tokio::spawn(gateway::serve(
            node.clone(),
            settings,
            listener.try_into().unwrap(),
            ended,
        ));
        Site {
            node,
            address,
            _stop: stop,
            _folder: folder,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", path, headers).await
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let headers: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let mut answer = raw(self.address, &format!("{method} {path}"), &headers, b"").await;
        // Names are compared in lower case.
        for (name, _) in &mut answer.headers {
            name.make_ascii_lowercase();
        }
        if let Some((_, chunked)) = answer
            .headers
            .iter()
            .find(|(name, _)| name == "transfer-encoding")
        {
            assert_eq!(chunked, "chunked");
            answer.body = dechunked(&answer.body);
        }
        answer
    }

    /// Adds files without pinning them; returns the root.
    async fn add(&self, options: AddOptions, files: &[(&str, &[u8])]) -> Cid {
        let mut upload = self.node.add(options).unwrap();
        for (path, content) in files {
            upload
                .file(path, Metadata::default(), *content, |_| ())
                .await
                .unwrap();
        }
        self.finish(upload).await
    }

    async fn finish(&self, upload: Upload) -> Cid {
        let (directories, mut built) = mpsc::channel(16);
        let drain = tokio::spawn(async move { while built.recv().await.is_some() {} });
        let roots = upload.finish(None, directories).await.unwrap();
        drain.await.unwrap();
        roots.last().unwrap().cid
    }

    /// Returns the CID at the end of a path, `<cid>/a/b`.
    async fn cid(&self, path: &str) -> Cid {
        let path: DagPath = path.parse().unwrap();
        self.node.resolve(&path).await.unwrap().cid
    }

    async fn block(&self, cid: Cid) -> Vec<u8> {
        self.node.get(cid).await.unwrap().to_vec()
    }

    /// Returns the links of a block.
    async fn links(&self, cid: Cid) -> Vec<Cid> {
        let links = self.node.links(cid).await.unwrap();
        links.into_iter().map(|(_, cid)| cid).collect()
    }

    /// Returns all blocks below a root, each once, depth first.
    async fn below(&self, cid: Cid) -> Vec<Cid> {
        let refs = self.node.refs(cid, None, true);
        refs.map_ok(|link| link.to).try_collect().await.unwrap()
    }

    /// Stores DAG-JSON as a block of another codec.
    async fn put_dag(&self, json: &str, codec: u64) -> Cid {
        self.node
            .dag_put(json.as_bytes(), DAG_JSON, codec, 0x12)
            .await
            .unwrap()
    }
}

fn dechunked(body: &[u8]) -> Vec<u8> {
    // The support module looks for the header with capital letters.
    let (mut rest, mut whole) = (body, Vec::new());
    while let Some(line) = rest.windows(2).position(|it| it == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return whole;
        }
        let from = line + 2;
        // An answer that was cut off ends within a chunk.
        let to = (from + size).min(rest.len());
        whole.extend_from_slice(&rest[from..to]);
        rest = rest.get(to + 2..).unwrap_or_default();
    }
    whole
}

fn v1() -> AddOptions {
    AddOptions {
        cid_version: Some(cid::Version::V1),
        ..AddOptions::default()
    }
}

/// Options for files of several blocks.
fn chunked(size: usize) -> AddOptions {
    AddOptions {
        chunker: Chunker::Size(size),
        ..v1()
    }
}

/// Options for sharded directories of any size.
fn sharded() -> AddOptions {
    AddOptions {
        hamt_threshold: 1,
        hamt_fanout: 16,
        ..chunked(256)
    }
}

/// Returns bytes in which no chunk repeats.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| ((at * 7 + at / 251) % 255) as u8).collect()
}
