//! Traces: what an OTLP collector gets of a request to a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use prost::Message;
use serde_json::json;
use tests::{Cluster, Options, Peer, Release, cids, http, wait_until};

const CID: &str = "bafkqablimvwgy3y";

/// Another CID.
const OTHER_CID: &str = "bafkqablporugk4q";

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

const OTHER_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Span of the client, the parent of the trace here.
const PARENT: &str = "b7ad6b7169203331";

/// A span, with the id of the peer that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    service: String,
    peer: String,
    name: String,
    trace: String,
    id: String,
    parent: String,
    attributes: BTreeMap<String, String>,
    error: String,
}

/// A collector that keeps what it gets.
#[derive(Debug, Clone)]
struct Collector {
    port: u16,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let collector = Self {
            port: listener.local_addr().unwrap().port(),
            spans: Arc::default(),
        };
        let accepting = collector.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let serving = accepting.clone();
                thread::spawn(move || serving.serve(&stream.unwrap()));
            }
        });
        collector
    }

    /// Answers the requests of one connection.
    fn serve(&self, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let mut length = 0;
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                if reader.read_line(&mut line).ok()? == 0 {
                    return None;
                }
                let lower = line.to_ascii_lowercase();
                if let Some(value) = lower.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            self.keep(ExportTraceServiceRequest::decode(&body[..]).unwrap());
            let mut writer = stream;
            writer
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .ok()?;
        }
    }

    fn keep(&self, request: ExportTraceServiceRequest) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        for resource in request.resource_spans {
            let attributes = resource.resource.unwrap().attributes;
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let spans = spans.map(|span| Span {
                service: text(&attributes, "service.name"),
                peer: text(&attributes, "service.instance.id"),
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                attributes: shown(&span.attributes),
                error: span.status.map(|status| status.message).unwrap_or_default(),
            });
            self.spans.lock().unwrap().extend(spans);
        }
    }

    fn trace(&self, trace: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap();
        spans.iter().filter(|span| span.trace == trace).cloned().collect()
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key} is {other:?}"),
    }
}

/// Attributes as text.
fn shown(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let shown = attributes.iter().map(|attribute| {
        let value = match attribute.value.clone().and_then(|value| value.value) {
            Some(Value::StringValue(text)) => text,
            Some(Value::IntValue(number)) => number.to_string(),
            other => format!("{other:?}"),
        };
        (attribute.key.clone(), value)
    });
    shown.collect()
}

/// Starts a peer that exports its spans.
fn start_traced(peer: &mut Peer, collector: &Collector) {
    let endpoint = format!("http://127.0.0.1:{}", collector.port);
    peer.start_env(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test"),
    ]);
}

/// Pins a CID at a peer, within a sampled trace.
fn pin_traced(peer: &Peer, target: &str, trace: &str) {
    let parent = format!("00-{trace}-{PARENT}-01");
    let headers = [("traceparent", parent.as_str())];
    let answer = http::request(peer.rest_port, "POST", &format!("/pins/{target}"), &headers, &[]).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Returns the spans that each of these peers makes for a pin whose blocks are at hand, and those of the peer
/// that is asked.
fn spans_of_pin<'a>(
    peers: impl IntoIterator<Item = &'a Peer>,
    asked: &Peer,
) -> BTreeMap<String, Vec<String>> {
    let everywhere = ["ipfs.pin", "pinset.apply", "raft.commit", "store.pin"];
    let peers = peers.into_iter().map(|peer| {
        let mut names = everywhere.map(str::to_owned).to_vec();
        if peer.id == asked.id {
            names.extend(["POST /pins/{hash}", "cluster.pin", "raft.propose"].map(str::to_owned));
        }
        names.sort();
        (peer.id.clone(), names)
    });
    peers.collect()
}

fn wait_spans(collector: &Collector, trace: &str, expected: &BTreeMap<String, Vec<String>>) {
    wait_until("the collector has the spans of all peers", || {
        let found = by_peer(&collector.trace(trace));
        if found == *expected {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
}

/// Names of the spans by peer.
fn by_peer(spans: &[Span]) -> BTreeMap<String, Vec<String>> {
    let mut peers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for span in spans {
        peers
            .entry(span.peer.clone())
            .or_default()
            .push(span.name.clone());
    }
    peers.values_mut().for_each(|names| names.sort());
    peers
}

#[test]
fn one_pin_is_one_trace_from_the_request_to_the_ipfs_nodes_of_all_peers() {
    let collector = Collector::start();
    let mut cluster = Cluster::prepare(&Options::default());
    for peer in &mut cluster.peers {
        start_traced(peer, &collector);
    }
    cluster.wait_ready();
    let asked = &cluster.peers[(cluster.leader() + 1) % 3];
    let unsampled = format!("00-{OTHER_TRACE}-{PARENT}-00");
    let headers = [("traceparent", unsampled.as_str())];
    let target = format!("/pins/{OTHER_CID}");
    let answer = http::request(asked.rest_port, "POST", &target, &headers, &[]).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    pin_traced(asked, CID, TRACE);
    wait_spans(&collector, TRACE, &spans_of_pin(&cluster.peers, asked));
    let spans = collector.trace(TRACE);
    let id_of = |name: &str| spans.iter().find(|span| span.name == name).unwrap().id.clone();
    let pin_at = |peer: &str| {
        let mut pins = spans.iter().filter(|span| span.name == "ipfs.pin");
        pins.find(|span| span.peer == peer).unwrap().id.clone()
    };
    for span in &spans {
        assert_eq!(span.service, "cluster-daemon");
        let parent = match span.name.as_str() {
            "POST /pins/{hash}" => PARENT.to_owned(),
            "cluster.pin" => id_of("POST /pins/{hash}"),
            "store.pin" => pin_at(&span.peer),
            _ => id_of("cluster.pin"),
        };
        assert_eq!(span.parent, parent, "{span:?}");
    }
    assert_eq!(collector.trace(OTHER_TRACE), []);
}

/// Returns the spans with these names, which are below the `ipfs.pin` of a peer.
fn steps<'a>(spans: &'a [Span], peer: &Peer) -> BTreeMap<&'a str, &'a Span> {
    let pin = spans
        .iter()
        .find(|span| span.name == "ipfs.pin" && span.peer == peer.id);
    let pin = pin.map(|pin| pin.id.as_str()).unwrap_or_default();
    let below = spans.iter().filter(|span| span.parent == pin);
    below.map(|span| (span.name.as_str(), span)).collect()
}

/// Waits for the steps of a pin at a peer, and returns the attributes of each.
fn wait_steps(
    collector: &Collector,
    trace: &str,
    peer: &Peer,
    names: &[&str],
) -> BTreeMap<String, BTreeMap<String, String>> {
    wait_until("the trace has the steps of the pin", || {
        let spans = collector.trace(trace);
        let steps = steps(&spans, peer);
        if names.iter().any(|name| !steps.contains_key(name)) {
            return Err(format!("{spans:?}"));
        }
        let attributes = |(name, span): (&str, &Span)| (name.to_owned(), span.attributes.clone());
        Ok(steps.into_iter().map(attributes).collect())
    })
}

#[test]
fn trace_of_a_pin_names_the_peer_that_sent_its_blocks() {
    let collector = Collector::start();
    let mut cluster = Cluster::prepare(&Options {
        peers: 2,
        ..Options::default()
    });
    for peer in &mut cluster.peers {
        start_traced(peer, &collector);
    }
    cluster.wait_ready();
    let content = cids::bytes(11, 600_000);
    let query = "replication-min=1&replication-max=1&cid-version=1";
    let added = cluster.peers[0].add(query, &[("file", &content)]).unwrap();
    let cid = added[0]["cid"].as_str().unwrap().to_owned();
    cluster.peers[0].wait_state(&cid, "pinned", 1);
    let pin = cluster.peers[0]
        .try_get(&format!("/allocations/{cid}"))
        .unwrap()
        .json();
    let (holders, others): (Vec<&Peer>, Vec<&Peer>) = cluster
        .peers
        .iter()
        .partition(|peer| pin["allocations"][0] == peer.id.as_str());
    pin_traced(
        others[0],
        &format!("{cid}?replication-min=2&replication-max=2"),
        TRACE,
    );
    let names = ["dag.fetch", "bitswap.fetch", "store.pin"];
    let found = wait_steps(&collector, TRACE, others[0], &names);
    let holder = holders[0].ipfs("id").unwrap().json()["ID"].clone();
    let (walked, sent) = (&found["dag.fetch"], &found["bitswap.fetch"]);
    assert_eq!(holder, sent["ipfs.peer"].as_str());
    // The root and three leaves.
    assert_eq!(
        (walked["ipfs.blocks"].as_str(), sent["ipfs.blocks"].as_str()),
        ("4", "4")
    );
    assert_eq!(walked["ipfs.bytes"], sent["ipfs.bytes"]);
    let bytes: usize = sent["ipfs.bytes"].parse().unwrap();
    assert!((600_000..601_000).contains(&bytes), "{bytes}");
}

/// Serves one block over HTTP, and names itself as its only provider.
fn serve_block(cid: &'static str, block: &'static [u8]) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let provider = json!({
        "Schema": "peer",
        "ID": "12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8",
        "Addrs": [format!("/ip4/127.0.0.1/tcp/{port}/http")],
        "Protocols": ["transport-ipfs-gateway-http"],
    });
    let providers = json!({ "Providers": [provider] }).to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request = lines.next().unwrap().unwrap();
            lines.find(|line| line.as_ref().unwrap().is_empty());
            let body = match request.split(' ').nth(1) {
                Some(path) if path == format!("/routing/v1/providers/{cid}") => providers.as_bytes(),
                Some(path) if path == format!("/ipfs/{cid}?format=raw") => block,
                _ => b"",
            };
            let status = if body.is_empty() {
                "404 Not Found"
            } else {
                "200 OK"
            };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n"
            );
            // The peer may have lost interest.
            let _ = stream.write_all(&[head.as_bytes(), body].concat());
        }
    });
    port
}

#[test]
fn trace_of_a_pin_has_the_lookup_of_its_provider_and_the_requests_to_its_gateway() {
    // A raw block with this text.
    let block: &[u8] = b"hello world";
    let cid = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";
    let base = format!("http://127.0.0.1:{}", serve_block(cid, block));
    let collector = Collector::start();
    let mut cluster = Cluster::prepare(&Options {
        peers: 1,
        ..Options::default()
    });
    let peer = &mut cluster.peers[0];
    peer.edit(|config| {
        let embedded = &mut config["ipfs_connector"]["embedded"];
        embedded["private"] = json!(false);
        embedded["routing"] = json!("delegated");
        embedded["bootstrap"] = json!([]);
        embedded["delegated_routers"] = json!([base]);
        embedded["http_retrieval"] = json!(true);
        embedded["lan_discovery"] = json!(false);
        embedded["provide_strategy"] = json!("none");
    });
    start_traced(peer, &collector);
    peer.wait_ready(1);
    pin_traced(peer, cid, TRACE);
    let names = [
        "dag.fetch",
        "routing.search",
        "routing.delegated",
        "http.fetch",
        "store.pin",
    ];
    let found = wait_steps(&collector, TRACE, peer, &names);
    let noted: BTreeSet<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(noted, BTreeSet::from(names));
    assert_eq!(found["routing.search"]["ipfs.block"], cid);
    let lookup = &found["routing.delegated"];
    assert_eq!(
        (
            lookup["server.address"].as_str(),
            lookup["ipfs.providers"].as_str()
        ),
        ("127.0.0.1", "1")
    );
    let fetched = &found["http.fetch"];
    let counts = ["ipfs.blocks", "ipfs.bytes", "ipfs.requests", "ipfs.failures"];
    assert_eq!(counts.map(|key| fetched[key].as_str()), ["1", "11", "1", "0"]);
    assert_eq!(fetched["url.full"], base);
    let spans = collector.trace(TRACE);
    assert!(spans.iter().all(|span| span.error.is_empty()), "{spans:?}");
}

#[test]
#[cfg_attr(
    not(debug_assertions),
    ignore = "only debug builds can pretend to be another release"
)]
fn peers_of_two_releases_share_a_trace_as_far_as_they_know_how() {
    let collector = Collector::start();
    let mut cluster = Cluster::prepare(&Options::default());
    // The first release refuses the call that continues a trace, and makes no spans.
    cluster.peers[0].install(Release::First);
    cluster.peers[0].start();
    for peer in &mut cluster.peers[1..] {
        start_traced(peer, &collector);
    }
    cluster.wait_ready();
    let trace = |number: usize| format!("{number:032x}");
    let cid = |number: usize| cids::identity(&format!("pin {number}"));
    pin_traced(&cluster.peers[1], &cid(1), &trace(1));
    let expected = spans_of_pin(&cluster.peers[1..], &cluster.peers[1]);
    wait_spans(&collector, &trace(1), &expected);
    pin_traced(&cluster.peers[0], &cid(2), &trace(2));
    for number in [1, 2] {
        cluster.peers[2].wait_state(&cid(number), "pinned", 3);
    }
    let agreed = |version: u8| format!("all members speak version {version} of the protocol");
    assert!(!cluster.peers.iter().any(|peer| peer.log().contains(&agreed(2))));
    assert!(cluster.peers[0].terminate().success());
    cluster.peers[0].install(Release::This);
    start_traced(&mut cluster.peers[0], &collector);
    cluster.wait_ready();
    cluster.peers[1].wait_log(&agreed(2));
    pin_traced(&cluster.peers[0], &cid(3), &trace(3));
    let expected = spans_of_pin(&cluster.peers, &cluster.peers[0]);
    wait_spans(&collector, &trace(3), &expected);
    // The next release.
    assert!(cluster.peers[2].terminate().success());
    cluster.peers[2].install(Release::Next);
    start_traced(&mut cluster.peers[2], &collector);
    cluster.wait_ready();
    for (number, asked) in [(4, 1), (5, 2)] {
        let asked = &cluster.peers[asked];
        pin_traced(asked, &cid(number), &trace(number));
        wait_spans(&collector, &trace(number), &spans_of_pin(&cluster.peers, asked));
    }
    assert_eq!(collector.trace(&trace(2)), []);
    cluster.peers.iter_mut().for_each(Peer::check);
}

#[test]
fn proxy_and_pinning_service_continue_the_traces_of_their_clients() {
    let collector = Collector::start();
    let mut cluster = Cluster::prepare(&Options {
        peers: 1,
        edit: |config| {
            for (section, key) in [
                ("ipfsproxy", "listen_multiaddress"),
                ("pinsvcapi", "http_listen_multiaddress"),
            ] {
                let address = format!("/ip4/127.0.0.1/tcp/{}", tests::closed_port());
                config["api"][section] = json!({ key: address });
            }
        },
        ..Options::default()
    });
    let peer = &mut cluster.peers[0];
    let endpoint = format!("http://127.0.0.1:{}", collector.port);
    peer.start_env(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ]);
    peer.wait_ready(1);
    let service_json = std::fs::read_to_string(peer.folder.join("service.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&service_json).unwrap();
    let port = |section: &str, key: &str| -> u16 {
        let address = config["api"][section][key].as_str().unwrap();
        address.rsplit('/').next().unwrap().parse().unwrap()
    };
    let send = |port: u16, target: &str, trace: &str, body: &[u8]| {
        let parent = format!("00-{trace}-{PARENT}-01");
        let answer = http::request(port, "POST", target, &[("traceparent", &parent)], body).unwrap();
        assert!(answer.is_success(), "{}", answer.text());
    };
    let proxy = port("ipfsproxy", "listen_multiaddress");
    send(proxy, &format!("/api/v0/pin/add?arg={CID}"), TRACE, b"");
    let service = port("pinsvcapi", "http_listen_multiaddress");
    let body = json!({"cid": OTHER_CID}).to_string();
    send(service, "/pins", OTHER_TRACE, body.as_bytes());
    for (trace, request) in [(TRACE, "POST pin/add"), (OTHER_TRACE, "POST /pins")] {
        wait_until("the trace has the request and the pin at the node", || {
            let spans = collector.trace(trace);
            let has = |name: &str, parent: Option<&str>| {
                spans
                    .iter()
                    .any(|span| span.name == name && parent.is_none_or(|parent| span.parent == parent))
            };
            match has(request, Some(PARENT)) && has("ipfs.pin", None) {
                true => Ok(()),
                false => Err(format!("{spans:?}")),
            }
        });
    }
}

#[test]
fn collector_that_is_down_costs_its_spans_only() {
    let mut cluster = Cluster::prepare(&Options {
        peers: 1,
        edit: |config| {
            config["observations"]["tracing"] = json!({
                "enable_tracing": true,
                "jaeger_agent_endpoint": "/ip4/127.0.0.1/udp/6831",
                "sampling_prob": 1,
                "service_name": "pins",
            });
        },
        ..Options::default()
    });
    let peer = &mut cluster.peers[0];
    peer.start_env(&[("OTEL_BSP_MAX_QUEUE_SIZE", "0")]);
    assert!(!peer.wait_end().success());
    peer.wait_log("OTEL_BSP_MAX_QUEUE_SIZE: \"0\" is invalid: it must be a whole number from 1 to");
    // Nothing takes spans at this port.
    let endpoint = format!("http://user:secret@127.0.0.1:{}", tests::closed_port());
    peer.start_env(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ]);
    peer.wait_ready(1);
    peer.ask("POST", &format!("/pins/{CID}")).unwrap();
    peer.wait_state(CID, "pinned", 1);
    let lost = "ipfscluster_trace_spans_dropped_total{reason=\"export_failed\"} ";
    let dropped = || {
        let text = peer.try_get("/metrics")?.text();
        let line = text.lines().find_map(|line| line.strip_prefix(lost));
        let count: u64 = line.ok_or("none is counted")?.parse().unwrap();
        if count > 20 {
            Ok(())
        } else {
            Err(format!("{count} are lost"))
        }
    };
    wait_until("lost spans are counted", dropped);
    let log = peer.log();
    assert_eq!(
        log.matches("spans were lost: the collector at http://127.0.0.1")
            .count(),
        1,
        "{log}"
    );
    assert!(!log.contains("secret"));
    // Without the variable, spans go to the host of Jaeger's agent.
    peer.kill();
    peer.start();
    peer.wait_log(
        "observations.tracing.jaeger_agent_endpoint: /ip4/127.0.0.1/udp/6831 is an agent of Jaeger, whose protocol \
         collectors have dropped: spans are sent to the OTLP port of that host, http://127.0.0.1:4318/v1/traces",
    );
}
