//! Relays between the peers of a cluster, with which a test blocks, delays and cuts the traffic from one peer
//! to another.
//!
//! Each peer announces the address of a relay instead of its own. The relay identifies the dialling peer by
//! the process that owns the remote socket and the folder of that process (Linux's `/proc`), so each
//! direction between two peers can be controlled separately.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use crate::{Cluster, Options, closed_port};

/// Interval at which a blocked relay checks whether it may continue.
const TICK: Duration = Duration::from_millis(10);

/// Traffic from one peer to another.
#[derive(Debug, Default)]
struct Direction {
    held: AtomicBool,
    delay_ms: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    folders: Vec<PathBuf>,
    /// Directions by sender and receiver.
    directions: Vec<Vec<Direction>>,
    /// Number of the current connections; those with an earlier one are closed.
    epoch: AtomicU64,
    stop: AtomicBool,
    wrong: Mutex<Vec<String>>,
}

/// Relays of a cluster. They end when this value is dropped.
#[derive(Debug)]
pub struct Links {
    shared: Arc<Shared>,
}

impl Links {
    /// Prepares a cluster, not started, whose peers reach each other through relays only.
    ///
    /// # Panics
    /// If it cannot be prepared.
    pub fn prepare(options: &Options) -> (Cluster, Self) {
        let cluster = Cluster::prepare(options);
        let count = cluster.peers.len();
        let directions = || (0..count).map(|_| Direction::default()).collect();
        let shared = Arc::new(Shared {
            folders: cluster.peers.iter().map(|peer| peer.folder.clone()).collect(),
            directions: (0..count).map(|_| directions()).collect(),
            epoch: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            wrong: Mutex::new(Vec::new()),
        });
        let mut addresses = String::new();
        for (number, peer) in cluster.peers.iter().enumerate() {
            let port = closed_port();
            let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
            listener.set_nonblocking(true).expect("a socket");
            let (shared, to) = (Arc::clone(&shared), peer.cluster_port);
            std::thread::spawn(move || relay(&shared, &listener, number, to));
            let address = format!("/ip4/127.0.0.1/tcp/{port}");
            peer.edit(|config| config["cluster"]["announce_multiaddress"] = json!([address]));
            addresses += &format!("{address}/p2p/{}\n", peer.id);
        }
        for peer in &cluster.peers {
            std::fs::write(peer.folder.join("peerstore"), &addresses).expect("the peerstore");
        }
        (cluster, Self { shared })
    }

    fn each(&self, change: impl Fn(usize, usize, &Direction)) {
        for (from, row) in self.shared.directions.iter().enumerate() {
            for (to, direction) in row.iter().enumerate() {
                change(from, to, direction);
            }
        }
    }

    /// Blocks all traffic between these peers and the others; the connections stay open.
    pub fn isolate(&self, peers: &[usize]) {
        self.each(|from, to, direction| {
            if peers.contains(&from) != peers.contains(&to) {
                direction.held.store(true, Ordering::SeqCst);
            }
        });
    }

    /// Blocks the traffic from one peer to the others, but not from them to it.
    pub fn mute(&self, peer: usize) {
        self.each(|from, _, direction| {
            if from == peer {
                direction.held.store(true, Ordering::SeqCst);
            }
        });
    }

    /// Delays all traffic.
    pub fn delay(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.each(|_, _, direction| direction.delay_ms.store(by, Ordering::SeqCst));
    }

    /// Closes all connections; new ones may be made.
    pub fn reset(&self) {
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Removes all blocks and delays.
    pub fn heal(&self) {
        self.each(|_, _, direction| {
            direction.held.store(false, Ordering::SeqCst);
            direction.delay_ms.store(0, Ordering::SeqCst);
        });
    }

    /// Checks that the relays have identified all peers.
    ///
    /// # Panics
    /// If a relay met a connection that it could not identify.
    pub fn check(&self) {
        let wrong = self.shared.wrong.lock().expect("no relay panicked");
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

/// Accepts connections for a peer, until the relays end.
fn relay(shared: &Arc<Shared>, listener: &TcpListener, number: usize, to: u16) {
    while !shared.stop.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, _)) => {
                let shared = Arc::clone(shared);
                std::thread::spawn(move || connect(&shared, &stream, number, to));
            }
            Err(_) => std::thread::sleep(TICK),
        }
    }
}

/// Connects an accepted connection to the peer.
fn connect(shared: &Arc<Shared>, stream: &TcpStream, number: usize, to: u16) {
    let Some(from) = owner(stream, &shared.folders) else {
        // Closed already, or not from a peer of this cluster.
        if stream.take_error().is_ok_and(|error| error.is_none()) && is_open(stream) {
            let wrong = format!("no peer owns the connection {stream:?}");
            shared.wrong.lock().expect("no relay panicked").push(wrong);
        }
        return;
    };
    let Ok(onward) = TcpStream::connect(("127.0.0.1", to)) else {
        return;
    };
    let epoch = shared.epoch.load(Ordering::SeqCst);
    let pair = |stream: &TcpStream| stream.try_clone().ok();
    let (Some(stream2), Some(onward2)) = (pair(stream), pair(&onward)) else {
        return;
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            copy(
                shared,
                epoch,
                &stream2,
                &onward2,
                &shared.directions[from][number],
            )
        });
        scope.spawn(|| copy(shared, epoch, &onward, stream, &shared.directions[number][from]));
    });
}

fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).is_ok()
        && match stream.peek(&mut [0]) {
            Ok(read) => read > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
}

/// Forwards the traffic of one direction, until one side closes.
fn copy(shared: &Shared, epoch: u64, from: &TcpStream, to: &TcpStream, direction: &Direction) {
    let goes_on = || !shared.stop.load(Ordering::SeqCst) && shared.epoch.load(Ordering::SeqCst) == epoch;
    let mut buffer = vec![0; 64 * 1024];
    from.set_nonblocking(false).expect("a socket");
    from.set_read_timeout(Some(TICK)).expect("a socket");
    to.set_nodelay(true).expect("a socket");
    while goes_on() {
        let read = match (&mut &*from).read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        std::thread::sleep(Duration::from_millis(direction.delay_ms.load(Ordering::SeqCst)));
        while direction.held.load(Ordering::SeqCst) && goes_on() {
            std::thread::sleep(TICK);
        }
        if !goes_on() || (&mut &*to).write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // Wakes the other direction. It may be closed already.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Returns the number of the peer whose process owns the other end of a connection.
fn owner(stream: &TcpStream, folders: &[PathBuf]) -> Option<usize> {
    let port = stream.peer_addr().ok()?.port();
    let here = stream.local_addr().ok()?.port();
    let table = std::fs::read_to_string("/proc/net/tcp").expect("these tests read Linux's /proc");
    let inode = table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port_of = |address: &str| u16::from_str_radix(address.split(':').nth(1)?, 16).ok();
        let ends = (port_of(fields.get(1)?)?, port_of(fields.get(2)?)?);
        (ends == (port, here)).then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
    })?;
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes.map(|process| process.path()).find_map(|process| {
        let command = std::fs::read(process.join("cmdline")).ok()?;
        let number = folders.iter().position(|folder| mentions(&command, folder))?;
        let mut files = std::fs::read_dir(process.join("fd")).ok()?.flatten();
        files
            .any(|file| std::fs::read_link(file.path()).is_ok_and(|link| link == Path::new(&inode)))
            .then_some(number)
    })
}

/// Returns whether a command line has this folder as an argument.
fn mentions(command: &[u8], folder: &Path) -> bool {
    let folder = folder.as_os_str().as_encoded_bytes();
    command
        .split(|byte| *byte == 0)
        .any(|argument| argument == folder)
}
