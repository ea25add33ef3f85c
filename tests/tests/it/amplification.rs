//! Amplification: inputs that cost their sender little must not cost a peer much. Each port is attacked, and
//! the peer's peak of physical memory is compared with a budget.
//!
//! Each row of the table has its own peer, because a process does not always return memory. The address
//! space is limited too, so that a failing row ends before the machine swaps.

#[path = "amplification/inputs.rs"]
mod inputs;
#[path = "amplification/stranger.rs"]
mod stranger;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stranger::Stranger;
use tests::memory::{self, MIB};
use tests::{Cluster, PATIENCE, Peer, cids, http, wait_until};

/// Address space of a peer: reservations of its threads and its allocator, and the budget of the largest row.
const ADDRESS_SPACE: u64 = 6 << 30;
/// Memory of an idle peer of an unoptimised build, with a margin.
const BASE: u64 = 160 * MIB;
/// Budget of one request to the node: its memory limit, and some of the data being read for it.
const READ: u64 = BASE + 192 * MIB;
/// Budget of an upload: its body is read in pieces, and blocks are written in groups of some MiB.
const UPLOAD: u64 = BASE + 128 * MIB;

/// One attack.
struct Row {
    name: &'static str,
    /// Limit of the peer's peak memory, in bytes.
    budget: u64,
    attack: fn(&Peer),
}

impl Row {
    /// Attacks a peer; the error says what is wrong.
    fn run(&self) -> Result<(), String> {
        let failed = |why: String| format!("{}: {why}", self.name);
        let mut cluster = Cluster::prepare(&tests::Options {
            peers: 1,
            edit: |config| {
                let port = tests::closed_port();
                config["api"]["ipfsproxy"] = serde_json::json!({
                    "listen_multiaddress": format!("/ip4/127.0.0.1/tcp/{port}"),
                });
            },
            ..tests::Options::default()
        });
        cluster.peers[0].start_limited(ADDRESS_SPACE);
        cluster.wait_ready();
        let pid = cluster.peers[0].pid();
        let done = AtomicBool::new(false);
        let peer = &cluster.peers[0];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (self.attack)(peer);
                done.store(true, Ordering::Release);
            });
            let since = Instant::now();
            loop {
                let is_over = done.load(Ordering::Acquire);
                let peak = memory::peak(pid);
                if is_over && let Ok(peak) = peak {
                    println!("{}: {} of {} MiB", self.name, peak / MIB, self.budget / MIB);
                }
                let why = match peak {
                    Ok(peak) if peak > self.budget => {
                        format!("{} MiB of memory, {} allowed", peak / MIB, self.budget / MIB)
                    }
                    Ok(_) if is_over => return Ok(()),
                    Ok(_) if since.elapsed() > 3 * PATIENCE => "the attack does not end".to_owned(),
                    Ok(_) => {
                        std::thread::sleep(Duration::from_millis(20));
                        continue;
                    }
                    Err(gone) => gone,
                };
                if !is_over {
                    // This also ends the attack.
                    peer.signal("KILL");
                }
                return Err(failed(why));
            }
        })?;
        assert_alive(&mut cluster.peers[0]);
        Ok(())
    }
}

/// Asserts that the peer has not ended, accepts pins, and that its node responds.
fn assert_alive(peer: &mut Peer) {
    let cid = cids::identity("still alive");
    wait_until("the peer does its work", || {
        peer.check();
        peer.ask("POST", &format!("/pins/{cid}"))?;
        let id = peer.ipfs("id").map_err(|error| error.to_string())?;
        if id.is_success() { Ok(()) } else { Err(id.text()) }
    });
}

fn run(rows: &[Row]) {
    let failures: Vec<String> = rows.iter().filter_map(|row| row.run().err()).collect();
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
}

/// Runs an attack by IPFS nodes outside the cluster.
fn strangers<F: Future<Output = ()>>(attack: impl FnOnce() -> F) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().expect("threads");
    runtime.block_on(attack());
    runtime.shutdown_background();
}

async fn connect(port: u16) -> Stranger {
    Stranger::connect(port).await.expect("a stranger may connect")
}

/// Sends half of a frame on each of many streams. The peer closes the connection when it holds the limit of
/// one connection, because none of the frames can be completed.
async fn fill_streams(port: u16) {
    const STREAMS: usize = 256;
    let stranger = connect(port).await;
    let junk = vec![0; 256 << 10];
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        let sending = async {
            let mut stream = stranger.send(&stranger::frame_start()).await?;
            futures::AsyncWriteExt::write_all(&mut stream, &junk).await.ok()?;
            Some(stream)
        };
        tokio::select! {
            sent = sending => match sent {
                Some(stream) => open.push(stream),
                None => break,
            },
            () = stranger.closed() => break,
        }
    }
    stranger.closed().await;
}

async fn want_and_cancel(port: u16, block: cluster_ipfs::Cid) {
    let block = block.to_bytes();
    let stranger = connect(port).await;
    let wants = stranger::want(&block).repeat(4096);
    if let Some(stream) = stranger.send(&stranger::wantlist(&wants)).await {
        Stranger::finish(stream).await;
    }
    // Messages full of cancels: of one block, of other blocks, of blocks with the shortest CIDs.
    let others = (0..90_000_u64).flat_map(|number| {
        let digest = [&number.to_be_bytes()[..], &[0; 24]].concat();
        stranger::cancel(&[&[1, 0x55, 0x12, 32][..], &digest].concat())
    });
    for cancels in [
        stranger::cancel(&block).repeat(90_000),
        others.collect(),
        stranger::cancel(&[1, 0x55, 0x12, 1, 0]).repeat(319_231),
    ] {
        if let Some(stream) = stranger.send(&stranger::wantlist(&cancels)).await {
            Stranger::finish(stream).await;
        }
    }
}

async fn want_and_not_read(port: u16, blocks: Vec<cluster_ipfs::Cid>) {
    let stranger = connect(port).await;
    for _ in 0..4 {
        let wants: Vec<u8> = blocks
            .iter()
            .flat_map(|cid| stranger::want(&cid.to_bytes()))
            .collect();
        if let Some(stream) = stranger.send(&stranger::wantlist(&wants)).await {
            Stranger::finish(stream).await;
        }
    }
}

async fn send_junk(port: u16) {
    let stranger = connect(port).await;
    // Entries, presences and blocks of two bytes each.
    for junk in [
        stranger::wantlist(&[0x0a, 0].repeat(2 << 20 >> 1)),
        [&[0x80, 0x80, 0x80, 0x02][..], &[0x22, 0].repeat(2 << 20)].concat(),
        [&[0x80, 0x80, 0x80, 0x02][..], &[0x12, 0].repeat(2 << 20)].concat(),
        [&[0x80, 0x80, 0x80, 0x02][..], &[0x1a, 0].repeat(2 << 20)].concat(),
    ] {
        if let Some(stream) = stranger.send(&junk).await {
            Stranger::finish(stream).await;
        }
    }
}

#[test]
fn strangers_on_the_swarm_port_cannot_amplify() {
    run(&[
        Row {
            name: "swarm: wants for one block, then messages full of cancels",
            budget: BASE + 64 * MIB,
            attack: |peer| {
                let block = inputs::put(peer, "raw", b"block").expect("the node takes blocks");
                strangers(async || {
                    let each = (0..4).map(|_| want_and_cancel(peer.swarm_port, block));
                    futures::future::join_all(each).await;
                });
            },
        },
        Row {
            name: "swarm: wanted blocks that are never read",
            // 16 MiB for each of 16, and the store's cache of blocks.
            budget: BASE + (16 * 16 + 64) * MIB,
            attack: |peer| {
                let blocks: Vec<_> = (0..32)
                    .map(|seed| inputs::put(peer, "raw", &cids::bytes(seed, 1 << 20)).expect("takes blocks"))
                    .collect();
                strangers(async || {
                    let each = (0..16).map(|_| want_and_not_read(peer.swarm_port, blocks.clone()));
                    futures::future::join_all(each).await;
                });
            },
        },
        Row {
            name: "swarm: streams filled with frames that do not end",
            budget: BASE + (8 * 16 + 64) * MIB,
            attack: |peer| {
                strangers(async || {
                    let each = (0..8).map(|_| fill_streams(peer.swarm_port));
                    futures::future::join_all(each).await;
                });
                assert!(
                    peer.log().contains("closing a connection of an ipfs peer"),
                    "{}",
                    peer.log()
                );
            },
        },
        Row {
            name: "swarm: messages of empty items",
            budget: BASE + (4 * 16 + 64) * MIB,
            attack: |peer| {
                strangers(async || {
                    let each = (0..4).map(|_| send_junk(peer.swarm_port));
                    futures::future::join_all(each).await;
                });
            },
        },
    ]);
}

#[test]
fn garbage_and_silent_connections_cost_little_and_keep_no_peer_out() {
    let attack = |peer: &Peer| {
        let ports = [
            peer.swarm_port,
            peer.ipfs_port,
            peer.rest_port,
            proxy_port(peer),
            peer.cluster_port,
        ];
        for port in ports {
            inputs::garbage(port);
            let silent = inputs::silent(port);
            newcomer_gets_in(peer, port);
            drop(silent);
        }
    };
    run(&[Row {
        name: "garbage and silent connections",
        budget: BASE + 96 * MIB,
        attack,
    }]);
}

/// The embedded node takes 512 uploads at a time.
#[test]
fn silent_uploads_leave_room_for_other_requests() {
    const UPLOADS: usize = 512;
    const SILENT: usize = 700;
    let attack = |peer: &Peer| {
        let silent = inputs::silent_uploads(peer.ipfs_port, "/api/v0/add", SILENT);
        assert!(silent.len() > UPLOADS, "{} connections", silent.len());
        newcomer_gets_in(peer, peer.ipfs_port);
        wait_until("further uploads are refused with the reason", || {
            let (kind, body) = http::multipart(&[("file", b"content")]);
            let headers = [("Content-Type", kind.as_str())];
            let answer = http::request(peer.ipfs_port, "POST", "/api/v0/add", &headers, &body);
            match answer.map_err(|error| error.to_string())? {
                answer if answer.text().contains("512 uploads are running") => Ok(()),
                answer => Err(answer.text()),
            }
        });
        // The pins of the cluster need no upload.
        assert!(
            peer.ask("POST", &format!("/pins/{}", cids::identity("meanwhile")))
                .is_ok()
        );
        drop(silent);
        wait_until("an upload succeeds", || peer.add("", &[("file", b"content")]));
    };
    run(&[Row {
        name: "silent uploads",
        // Half a MiB of buffers for each.
        budget: BASE + 256 * MIB,
        attack,
    }]);
}

/// Asserts that a new connection is served although many silent ones are open.
fn newcomer_gets_in(peer: &Peer, port: u16) {
    if port == peer.swarm_port {
        return strangers(async || {
            connect(port).await;
        });
    }
    if port == peer.cluster_port {
        // A connection that does not begin like a peer's is closed, so it was served.
        let answer = tests::http::send(port, b"GET / HTTP/1.1\r\n\r\n");
        let kind = answer.map(|answer| answer.status).map_err(|error| error.kind());
        let hung_up = [
            std::io::ErrorKind::UnexpectedEof,
            std::io::ErrorKind::ConnectionReset,
        ];
        assert!(matches!(kind, Err(kind) if hung_up.contains(&kind)), "{kind:?}");
        return;
    }
    let target = if port == peer.rest_port {
        "/id"
    } else {
        "/api/v0/id"
    };
    let method = if port == peer.rest_port { "GET" } else { "POST" };
    let answer = tests::http::request(port, method, target, &[], &[]).expect("an answer");
    assert!(answer.is_success(), "{port}: {}", answer.text());
}

fn proxy_port(peer: &Peer) -> u16 {
    let config = std::fs::read_to_string(peer.folder.join("service.json")).expect("init wrote it");
    let config: serde_json::Value = serde_json::from_str(&config).expect("is JSON");
    let address = config["api"]["ipfsproxy"]["listen_multiaddress"].as_str();
    let port = address.and_then(|address| address.rsplit('/').next());
    port.and_then(|port| port.parse().ok()).expect("ends in a port")
}

#[test]
fn uploads_that_amplify_are_refused_or_streamed() {
    run(&[
        Row {
            name: "rest: add with a preamble that does not end",
            budget: UPLOAD,
            attack: |peer| inputs::endless_preamble(peer.rest_port, "/add"),
        },
        Row {
            name: "rest: add with a part header that does not end",
            budget: UPLOAD,
            attack: |peer| inputs::endless_header(peer.rest_port, "/add"),
        },
        Row {
            name: "rest: add of directories with long names",
            budget: UPLOAD,
            attack: |peer| inputs::directories(peer.rest_port, "/add"),
        },
        Row {
            name: "rest: add of deep directories",
            budget: UPLOAD,
            attack: |peer| inputs::deep_directories(peer.rest_port, "/add"),
        },
        Row {
            name: "rest: add in chunks of one byte",
            budget: UPLOAD,
            attack: |peer| inputs::one_byte_chunks(peer.rest_port, "/add?chunker=size-1"),
        },
        Row {
            name: "node: add with a preamble that does not end",
            budget: UPLOAD,
            attack: |peer| inputs::endless_preamble(peer.ipfs_port, "/api/v0/add"),
        },
        Row {
            name: "node: add with a part header that does not end",
            budget: UPLOAD,
            attack: |peer| inputs::endless_header(peer.ipfs_port, "/api/v0/add"),
        },
        Row {
            name: "node: add of directories with long names, wrapped",
            budget: UPLOAD,
            attack: |peer| inputs::directories(peer.ipfs_port, "/api/v0/add?wrap-with-directory=true"),
        },
        Row {
            name: "node: add of deep directories, wrapped",
            budget: UPLOAD,
            attack: |peer| inputs::deep_directories(peer.ipfs_port, "/api/v0/add?wrap-with-directory=true"),
        },
        Row {
            name: "node: add in chunks of one byte",
            budget: UPLOAD,
            attack: |peer| inputs::one_byte_chunks(peer.ipfs_port, "/api/v0/add?chunker=size-1"),
        },
        Row {
            name: "proxy: add with a preamble that does not end",
            budget: UPLOAD,
            attack: |peer| inputs::endless_preamble(proxy_port(peer), "/api/v0/add"),
        },
        Row {
            name: "proxy: add with a part header that does not end",
            budget: UPLOAD,
            attack: |peer| inputs::endless_header(proxy_port(peer), "/api/v0/add"),
        },
    ]);
}

#[test]
fn directories_that_repeat_shards_are_streamed_or_refused() {
    run(&[
        Row {
            name: "node: ls of repeating shards",
            budget: READ,
            attack: |peer| inputs::read_repeating_shards(peer, "ls"),
        },
        Row {
            name: "node: get of repeating shards",
            budget: READ,
            attack: |peer| inputs::read_repeating_shards(peer, "get"),
        },
    ]);
}
