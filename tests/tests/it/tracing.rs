//! Traces: what an OTLP collector gets of a request to a cluster.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use prost::Message;
use serde_json::json;
use tests::{Cluster, Options, http, wait_until};

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
    let endpoint = format!("http://127.0.0.1:{}", collector.port);
    for peer in &mut cluster.peers {
        peer.start_env(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test"),
        ]);
    }
    cluster.wait_ready();
    let asked = (cluster.leader() + 1) % 3;
    let pin = |cid: &str, parent: &str| {
        let port = cluster.peers[asked].rest_port;
        let headers = [("traceparent", parent)];
        let answer = http::request(port, "POST", &format!("/pins/{cid}"), &headers, &[]).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    pin(OTHER_CID, &format!("00-{OTHER_TRACE}-{PARENT}-00"));
    pin(CID, &format!("00-{TRACE}-{PARENT}-01"));
    let everywhere = ["ipfs.pin", "pinset.apply", "raft.commit"];
    let expected: BTreeMap<String, Vec<String>> = (0..)
        .zip(&cluster.peers)
        .map(|(number, peer)| {
            let mut names = everywhere.map(str::to_owned).to_vec();
            if number == asked {
                names.extend(["POST /pins/{hash}", "cluster.pin", "raft.propose"].map(str::to_owned));
            }
            names.sort();
            (peer.id.clone(), names)
        })
        .collect();
    wait_until("the collector has the spans of all peers", || {
        let found = by_peer(&collector.trace(TRACE));
        if found == expected {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
    let spans = collector.trace(TRACE);
    let id_of = |name: &str| spans.iter().find(|span| span.name == name).unwrap().id.clone();
    for span in &spans {
        assert_eq!(span.service, "cluster-daemon");
        let parent = match span.name.as_str() {
            "POST /pins/{hash}" => PARENT.to_owned(),
            "cluster.pin" => id_of("POST /pins/{hash}"),
            _ => id_of("cluster.pin"),
        };
        assert_eq!(span.parent, parent, "{span:?}");
    }
    assert_eq!(collector.trace(OTHER_TRACE), []);
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
