//! Simulated IPFS daemon against the embedded node.

use std::collections::BTreeMap;

use cluster_ipfs::backend::PinRequest;
use cluster_ipfs::{Backend, Block, Cid, Config, Node, PinMode};
use futures::TryStreamExt;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

/// Number of CIDs; no node has the content of the first few.
const CIDS: u8 = 8;
const UNAVAILABLE: u8 = 2;

#[derive(Debug, Clone)]
enum Step {
    Pin(u8, bool),
    Unpin(u8),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..CIDS, any::<bool>()).prop_map(|(cid, recursive)| Step::Pin(cid, recursive)),
        4 => (0..CIDS).prop_map(Step::Unpin),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

fn content(number: u8) -> Vec<u8> {
    vec![number; 40]
}

fn cid(number: u8) -> Cid {
    let mut multihash = vec![0x12, 32];
    multihash.extend_from_slice(&Sha256::digest(content(number)));
    let bytes = [&[1, 0x55][..], &multihash].concat();
    Cid::try_from(&bytes[..]).expect("a CID")
}

struct Twins {
    folder: tempfile::TempDir,
    simulated: sim::twin::Ipfs,
    real: Option<Node>,
}

impl Twins {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let real = open(&folder).await;
        for number in UNAVAILABLE..CIDS {
            let block = Block {
                cid: cid(number),
                data: content(number).into(),
            };
            real.put(block).await.expect("stores");
        }
        Self {
            folder,
            simulated: sim::twin::Ipfs::default(),
            real: Some(real),
        }
    }

    fn backend(&self) -> Backend {
        // Offline: no other node has any content.
        Backend::Embedded(self.real.as_ref().expect("is open").offline())
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Pin(number, recursive) => {
                let mode = if recursive {
                    PinMode::Recursive
                } else {
                    PinMode::Direct
                };
                let pin = PinRequest {
                    mode,
                    ..PinRequest::recursive(cid(number))
                };
                let real = self.backend().pin(&pin, &|_| ()).await;
                let bytes = cid(number).to_bytes();
                let simulated = self.simulated.pin(&bytes, recursive, number >= UNAVAILABLE);
                assert_eq!(simulated, real.is_ok(), "{step:?}: {real:?}");
            }
            Step::Unpin(number) => {
                let real = self.backend().unpin(&cid(number)).await;
                let simulated = self.simulated.unpin(&cid(number).to_bytes());
                assert_eq!(simulated, real.is_ok(), "{step:?}: {real:?}");
            }
            Step::Restart => {
                if let Some(real) = self.real.take() {
                    real.shutdown().await;
                }
                self.real = Some(open(&self.folder).await);
            }
        }
        let listed: Vec<(Cid, PinMode)> = self.backend().pins().try_collect().await.expect("lists");
        let real: BTreeMap<Vec<u8>, bool> = listed
            .iter()
            .map(|(cid, mode)| (cid.to_bytes(), *mode == PinMode::Recursive))
            .collect();
        assert_eq!(self.simulated.pins(), real, "after {step:?}");
    }
}

async fn open(folder: &tempfile::TempDir) -> Node {
    let config = Config {
        path: folder.path().join("ipfs"),
        swarm_listen: Vec::new(),
        storage_max: None,
        fixed: std::collections::BTreeMap::new(),
        network: cluster_ipfs::PublicNetwork::default(),
    };
    Node::open(config).await.expect("opens")
}

const REGRESSIONS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../proptest-regressions/tests/ipfs.txt"
);

proptest! {
    #![proptest_config(super::few_cases(REGRESSIONS))]

    #[test]
    fn the_simulated_ipfs_daemon_has_what_the_embedded_node_has(steps in steps()) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let mut twins = Twins::new().await;
            for step in &steps {
                twins.step(step).await;
            }
        });
    }
}
