//! Reachability in the public network, by nodes in a network namespace whose addresses look public: addresses
//! confirmed by AutoNAT, relays and hole punching, mDNS. Nothing leaves this machine. Needs `unshare` and
//! `ip`.

use super::*;
use cluster_ipfs::settings::{PublicNetwork, Routing};
use cluster_ipfs::{Multiaddr, PeerId};
use futures::StreamExt;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Swarm, SwarmBuilder, identify, noise, ping, relay, tcp, tls, yamux};
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Environment variable of the tests inside of the namespace.
const INSIDE: &str = "CLUSTER_IPFS_TEST_NETWORK";

/// Runs an ignored test of this file in a network namespace of its own. Its only interface has public
/// addresses, two private ones, and multicast.
fn run_in_namespace(test: &str) {
    let script = r#"
        set -e
        command -v ip >/dev/null || { echo "this test needs ip, of iproute2" >&2; exit 1; }
        ip link set lo up multicast on
        for address in 1.1.0.1 1.2.0.1 1.3.0.1 1.4.0.1 10.0.0.1 10.0.0.2; do
            ip address add $address/32 dev lo
        done
        ip route add 224.0.0.0/4 dev lo src 10.0.0.1
        exec "$1" --ignored --exact --nocapture "$2"
    "#;
    let output = Command::new("unshare")
        .args(["--net", "--map-root-user", "sh", "-c", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .arg(format!("reachability::{test}"))
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{errors}"
    );
}

fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Starts a node that is not private.
async fn start(listen: &str, network: PublicNetwork) -> (Node, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        path: folder.path().to_owned(),
        swarm_listen: vec![listen.parse().unwrap()],
        storage_max: None,
        network: PublicNetwork {
            private: false,
            ..network
        },
        fixed: std::collections::BTreeMap::new(),
    };
    (Node::open(config).await.unwrap(), folder)
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, waiting).await.expect(what);
}

fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

#[test]
fn public_dht_is_served_once_other_nodes_have_confirmed_an_address() {
    run_in_namespace("confirm_addresses");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs in the namespace of `public_dht_is_served_once_other_nodes_have_confirmed_an_address`"]
async fn confirm_addresses() {
    if !is_inside() {
        return;
    }
    let dht = |bootstrap: &[Multiaddr]| PublicNetwork {
        routing: Routing::Dht,
        bootstrap: bootstrap.to_vec(),
        ..PublicNetwork::default()
    };
    let is_server = async |node: &Node| node.dhts().iter().any(|dht| dht.is_public && dht.is_server);
    let (first, _f1) = start("/ip4/1.1.0.1/tcp/4001", dht(&[])).await;
    let entry = vec![
        "/ip4/1.1.0.1/tcp/4001"
            .parse::<Multiaddr>()
            .unwrap()
            .with_p2p(first.id().peer_id)
            .unwrap(),
    ];
    assert!(!is_server(&first).await, "nobody has dialled it yet");
    // Not the same port: dials leave from it, and in one namespace they would leave from the target itself.
    let (hidden, _f2) = start("/ip4/10.0.0.1/tcp/4002", dht(&entry)).await;
    let (second, _f3) = start("/ip4/1.2.0.1/udp/4001/quic-v1", dht(&entry)).await;
    for node in [&first, &second] {
        until("the public dht is served", async || is_server(node).await).await;
    }
    for node in [&first, &second, &hidden] {
        until("another server is in the routing table", async || {
            node.dhts().iter().any(|dht| dht.is_public && dht.peers > 0)
        })
        .await;
    }
    assert!(!is_server(&hidden).await, "its address is private");
}

#[derive(NetworkBehaviour)]
struct Relay {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    relay: relay::Behaviour,
}

/// Starts a relay of rust-libp2p that speaks TLS only. Returns its address.
async fn start_relay() -> Multiaddr {
    let mut swarm: Swarm<Relay> = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), tls::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| Relay {
            identify: identify::Behaviour::new(identify::Config::new("/ipfs/id/1.0.0".into(), key.public())),
            ping: ping::Behaviour::default(),
            relay: relay::Behaviour::new(key.public().to_peer_id(), relay::Config::default()),
        })
        .unwrap()
        .build();
    swarm.listen_on("/ip4/1.1.0.1/tcp/0".parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    swarm.add_external_address(address.clone());
    let relay = address.with_p2p(*swarm.local_peer_id()).unwrap();
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    relay
}

#[test]
fn hidden_node_is_reached_through_a_relay_and_then_directly() {
    run_in_namespace("use_a_relay");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs in the namespace of `hidden_node_is_reached_through_a_relay_and_then_directly`"]
async fn use_a_relay() {
    if !is_inside() {
        return;
    }
    let relay = start_relay().await;
    // Public addresses, which nobody confirms: the relay has no AutoNAT.
    let (hidden, _f1) = start("/ip4/1.2.0.1/tcp/0", PublicNetwork::default()).await;
    hidden.connect(relay.clone()).await.unwrap();
    let (id, relayed) = (hidden.id().peer_id, async || {
        let addresses = hidden.id().addresses;
        addresses.into_iter().find(is_relayed)
    });
    until("a place on the relay", async || relayed().await.is_some()).await;
    let address = relayed().await.unwrap();
    let (other, _f2) = start("/ip4/1.3.0.1/tcp/0", PublicNetwork::default()).await;
    // The relay tells it its address first, which it names to the hidden one.
    other.connect(relay).await.unwrap();
    until("the relay observes its address", async || {
        other
            .peers()
            .await
            .iter()
            .any(|peer| peer.agent_version.is_some())
    })
    .await;
    other.connect(address).await.unwrap();
    let block = raw(b"from behind a nat");
    hidden.put(block.clone()).await.unwrap();
    pin(&other, block.cid).await;
    until("a direct connection", async || {
        let peers = other.peers().await;
        peers
            .iter()
            .any(|peer| peer.peer_id == id && !is_relayed(&peer.address))
    })
    .await;
}

#[test]
fn nodes_in_a_local_network_meet_by_mdns_unless_one_is_private() {
    run_in_namespace("meet_by_mdns");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs in the namespace of `nodes_in_a_local_network_meet_by_mdns_unless_one_is_private`"]
async fn meet_by_mdns() {
    if !is_inside() {
        return;
    }
    let lan = PublicNetwork {
        lan_discovery: true,
        ..PublicNetwork::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let private = Node::open(Config {
        path: folder.path().to_owned(),
        swarm_listen: vec!["/ip4/10.0.0.1/tcp/4001".parse().unwrap()],
        storage_max: None,
        network: PublicNetwork {
            private: true,
            ..lan.clone()
        },
        fixed: std::collections::BTreeMap::new(),
    })
    .await
    .unwrap();
    let (silent, _f1) = start("/ip4/10.0.0.1/tcp/4002", PublicNetwork::default()).await;
    let (first, _f2) = start("/ip4/10.0.0.1/tcp/0", lan.clone()).await;
    let (second, _f3) = start("/ip4/10.0.0.2/tcp/0", lan).await;
    for (node, other) in [(&first, &second), (&second, &first)] {
        let other: PeerId = other.id().peer_id;
        until("the other node is found", async || {
            node.peers().await.iter().any(|peer| peer.peer_id == other)
        })
        .await;
        assert_eq!(node.peers().await.len(), 1);
    }
    assert!(private.peers().await.is_empty() && silent.peers().await.is_empty());
}

/// A router with a UPnP service at 10.0.0.2, and the public address 1.4.0.1.
#[derive(Debug, Clone, Default)]
struct Router {
    /// Number of searches that it has heard.
    searches: Arc<AtomicUsize>,
    /// Forwarded ports and their targets.
    forwarded: Arc<Mutex<Vec<(u16, String)>>>,
}

/// Port that is forwarded to another machine.
const TAKEN: u16 = 4001;
/// Port that the router says to forward, and does not.
const UNFORWARDED: u16 = 4010;

/// Returns the text between the tags of an XML element.
fn element<'a>(text: &'a str, name: &str) -> &'a str {
    let (_, after) = text.split_once(&format!("<{name}>")).unwrap();
    after.split_once("</").unwrap().0
}

impl Router {
    async fn start() -> Router {
        let router = Router::default();
        let service = TcpListener::bind("10.0.0.2:0").await.unwrap();
        let location = format!("http://{}/root.xml", service.local_addr().unwrap());
        let socket = UdpSocket::bind("0.0.0.0:1900").await.unwrap();
        let group = Ipv4Addr::new(239, 255, 255, 250);
        socket
            .join_multicast_v4(group, Ipv4Addr::new(10, 0, 0, 2))
            .unwrap();
        // The answer must come from the router's address.
        let answers = UdpSocket::bind("10.0.0.2:0").await.unwrap();
        let searches = router.searches.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                assert!(buffer[..length].starts_with(b"M-SEARCH * HTTP/1.1"));
                searches.fetch_add(1, Ordering::Relaxed);
                // Others in the network answer as well, and lie.
                for location in ["http://10.0.0.1:1/root.xml", location.as_str()] {
                    let answer =
                        format!("HTTP/1.1 200 OK\r\nLOCATION: {location}\r\nST: upnp:rootdevice\r\n\r\n");
                    answers.send_to(answer.as_bytes(), from).await.unwrap();
                }
            }
        });
        let serving = router.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = service.accept().await.unwrap();
                let serving = serving.clone();
                tokio::spawn(async move { serving.serve(stream).await });
            }
        });
        router
    }

    /// Answers one request.
    async fn serve(&self, mut stream: TcpStream) {
        let mut request = String::new();
        let mut buffer = [0; 4096];
        // The body of a request ends with its envelope.
        while !request.ends_with("\r\n\r\n") && !request.trim_end().ends_with("Envelope>") {
            let length = stream.read(&mut buffer).await.unwrap();
            request.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
        let (status, body) = if request.starts_with("GET /root.xml") {
            let service = "<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>\
                           <controlURL>/control</controlURL></service>";
            let root = format!("<root><device><serviceList>{service}</serviceList></device></root>");
            ("200 OK", root)
        } else {
            assert!(request.starts_with("POST /control"), "{request}");
            self.act(&request).await
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        stream.write_all((head + &body).as_bytes()).await.unwrap();
    }

    async fn act(&self, request: &str) -> (&'static str, String) {
        if request.contains("#GetExternalIPAddress\"") {
            let address = "<NewExternalIPAddress>1.4.0.1</NewExternalIPAddress>";
            return ("200 OK", format!("<Envelope><Body>{address}</Body></Envelope>"));
        }
        if request.contains("#DeletePortMapping\"") {
            let port: u16 = element(request, "NewExternalPort").parse().unwrap();
            self.forwarded.lock().unwrap().retain(|(known, _)| *known != port);
            return ("200 OK", String::new());
        }
        assert!(request.contains("#AddPortMapping\""), "{request}");
        assert_eq!(element(request, "NewProtocol"), "TCP");
        assert_eq!(element(request, "NewLeaseDuration"), "3600");
        let port: u16 = element(request, "NewExternalPort").parse().unwrap();
        if port == TAKEN {
            return (
                "500 Internal Server Error",
                "<Fault><errorCode>718</errorCode></Fault>".to_owned(),
            );
        }
        let client = element(request, "NewInternalClient");
        let target = format!("{client}:{}", element(request, "NewInternalPort"));
        if port != UNFORWARDED {
            let outside = TcpListener::bind(("1.4.0.1", port)).await.unwrap();
            tokio::spawn(forward(outside, target.clone()));
        }
        self.forwarded.lock().unwrap().push((port, target));
        ("200 OK", String::new())
    }
}

async fn forward(outside: TcpListener, target: String) {
    loop {
        let (mut from, _) = outside.accept().await.unwrap();
        let target = target.clone();
        tokio::spawn(async move {
            let mut to = TcpStream::connect(target).await.unwrap();
            // Either side may break off.
            let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
        });
    }
}

#[test]
fn router_forwards_a_port_that_other_nodes_then_confirm() {
    run_in_namespace("forward_a_port");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs in the namespace of `router_forwards_a_port_that_other_nodes_then_confirm`"]
async fn forward_a_port() {
    if !is_inside() {
        return;
    }
    let router = Router::start().await;
    let dht = |bootstrap: &[Multiaddr], lan_discovery| PublicNetwork {
        routing: Routing::Dht,
        bootstrap: bootstrap.to_vec(),
        lan_discovery,
        ..PublicNetwork::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let private = Node::open(Config {
        path: folder.path().to_owned(),
        swarm_listen: vec!["/ip4/10.0.0.1/tcp/4003".parse().unwrap()],
        storage_max: None,
        network: PublicNetwork {
            private: true,
            ..dht(&[], true)
        },
        fixed: std::collections::BTreeMap::new(),
    })
    .await
    .unwrap();
    let (first, _f1) = start("/ip4/1.1.0.1/tcp/4000", dht(&[], false)).await;
    let entry = "/ip4/1.1.0.1/tcp/4000".parse::<Multiaddr>().unwrap();
    let entry = [entry.with_p2p(first.id().peer_id).unwrap()];
    let listen = format!("/ip4/10.0.0.1/tcp/{UNFORWARDED}");
    let (deceived, _f2) = start(&listen, dht(&entry, true)).await;
    let (hidden, _f3) = start("/ip4/10.0.0.1/tcp/4001", dht(&entry, true)).await;
    let forwarded = "/ip4/1.4.0.1/tcp/4002/p2p/".to_owned() + &hidden.id().peer_id.to_string();
    let forwarded: Multiaddr = forwarded.parse().unwrap();
    until("the forwarded address is confirmed", async || {
        hidden.id().addresses.contains(&forwarded)
    })
    .await;
    until("the public dht is served", async || {
        hidden.dhts().iter().any(|dht| dht.is_public && dht.is_server)
    })
    .await;
    // A stranger reaches it there.
    let (stranger, _f4) = start("/ip4/1.3.0.1/tcp/0", PublicNetwork::default()).await;
    stranger.connect(forwarded).await.unwrap();
    assert!(deceived.dhts().iter().all(|dht| !dht.is_public || !dht.is_server));
    let ports = || router.forwarded.lock().unwrap().clone();
    let target = "10.0.0.1:4001".to_owned();
    assert!(ports().contains(&(4002, target)), "{:?}", ports());
    // Those that ask: it and the deceived one, each at most twice.
    let searches = router.searches.load(Ordering::Relaxed);
    assert!((2..=4).contains(&searches), "{searches}");
    hidden.shutdown().await;
    until("the node ends the forwarding", async || {
        ports().iter().all(|(port, _)| *port == UNFORWARDED)
    })
    .await;
    private.shutdown().await;
}

/// Creates a peer of rust-libp2p that offers only one way of encryption, and answers pings.
fn plain_peer(is_tls: bool) -> Swarm<ping::Behaviour> {
    let builder = SwarmBuilder::with_new_identity().with_tokio();
    let (tcp, muxer) = (tcp::Config::default(), yamux::Config::default);
    let keep = |config: libp2p::swarm::Config| config.with_idle_connection_timeout(SOON);
    let behaviour = |_: &libp2p::identity::Keypair| ping::Behaviour::default();
    if is_tls {
        let builder = builder.with_tcp(tcp, tls::Config::new, muxer).unwrap();
        let builder = builder.with_behaviour(behaviour).unwrap();
        builder.with_swarm_config(keep).build()
    } else {
        let builder = builder.with_tcp(tcp, noise::Config::new, muxer).unwrap();
        let builder = builder.with_behaviour(behaviour).unwrap();
        builder.with_swarm_config(keep).build()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_connections_are_encrypted_by_noise_or_tls_whichever_the_peer_has() {
    let (node, _folder) = node().await;
    let at_node = node.id().addresses[0].clone();
    for is_tls in [true, false] {
        let mut dialling = plain_peer(is_tls);
        dialling.dial(at_node.clone()).unwrap();
        let mut listening = plain_peer(is_tls);
        listening
            .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
            .unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = listening.select_next_some().await {
                break address.with_p2p(*listening.local_peer_id()).unwrap();
            }
        };
        let pinged = async |swarm: &mut Swarm<ping::Behaviour>| loop {
            if let SwarmEvent::Behaviour(ping::Event { result: Ok(_), .. }) = swarm.select_next_some().await {
                return;
            }
        };
        let both = async {
            tokio::join!(
                async { node.connect(address).await.unwrap() },
                pinged(&mut dialling),
                pinged(&mut listening)
            )
        };
        timeout(SOON, both).await.expect("in time");
    }
}
