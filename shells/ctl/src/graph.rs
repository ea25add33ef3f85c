//! Graphviz file of the connections of a cluster.

use cluster_api::{ConnectGraph, terminal};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Short names of nodes, numbered in the order of output.
#[derive(Default)]
struct Names<'a> {
    peers: BTreeMap<&'a str, String>,
    ipfs: BTreeMap<&'a str, String>,
}

/// Shape, colour and other attributes of a node.
struct Look {
    shape: &'static str,
    color: &'static str,
    more: &'static str,
}

/// Returns the file, byte for byte as the Go tool writes it. IPFS nodes outside the cluster are included only
/// with `all_ipfs`.
pub(crate) fn dot(graph: &ConnectGraph, all_ipfs: bool) -> String {
    let ipfs = ipfs_edges(graph, all_ipfs);
    let mut names = Names::default();
    let mut out = String::from("digraph cluster {\n/* The nodes of the connectivity graph */\n");
    out.push_str("/* The cluster-service peers */\nsubgraph  {\nrank=\"min\"\n");
    peers(&mut out, graph, &mut names);
    out.push_str("}\n\n/* The ipfs peers */\nsubgraph  {\nrank=\"max\"\n");
    ipfs_nodes(&mut out, graph, &ipfs, &mut names);
    out.push_str("}\n\n/* Edges representing active connections in the cluster */\n");
    out.push_str("/* The connections among cluster-service peers */\n");
    for (from, links) in &graph.cluster_links {
        for to in links {
            edge(
                &mut out,
                names.peers.get(from.as_str()),
                names.peers.get(to.as_str()),
                "",
            );
        }
    }
    out.push_str("\n/* The connections between cluster peers and their ipfs daemons */\n");
    for peer in graph.cluster_links.keys() {
        let (to, style) = match graph.cluster_to_ipfs.get(peer) {
            Some(node) => (node, ""),
            None => (peer, " [ style=\"dotted\" ]"),
        };
        edge(
            &mut out,
            names.peers.get(peer.as_str()),
            names.ipfs.get(to.as_str()),
            style,
        );
    }
    out.push_str("\n/* The swarm peer connections among ipfs daemons in the cluster */\n");
    for (from, links) in &ipfs {
        for to in links {
            edge(&mut out, names.ipfs.get(from), names.ipfs.get(to), "");
        }
    }
    out.push('}');
    out
}

/// Returns the edges between the IPFS nodes that are drawn.
fn ipfs_edges(graph: &ConnectGraph, all_ipfs: bool) -> BTreeMap<&str, Vec<&str>> {
    let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, links) in &graph.ipfs_links {
        let drawn = links
            .iter()
            .filter(|to| all_ipfs || graph.ipfs_links.contains_key(*to));
        edges.insert(from, drawn.map(String::as_str).collect());
    }
    if all_ipfs {
        for to in graph.ipfs_links.values().flatten() {
            edges.entry(to).or_default();
        }
    }
    edges
}

fn peers<'a>(out: &mut String, graph: &'a ConnectGraph, names: &mut Names<'a>) {
    for id in graph.cluster_links.keys() {
        let trusted = graph.cluster_trust_links.get(id).copied().unwrap_or(false);
        let (letter, color, more) = if *id == graph.cluster_id {
            ('C', "orange", "peripheries=\"2\" ")
        } else if trusted {
            ('T', "orange", "")
        } else {
            ('C', "darkorange3", "")
        };
        let name = format!("{letter}{}", names.peers.len());
        let title = graph.id_to_peername.get(id).map_or("", String::as_str);
        node(
            out,
            &name,
            title,
            &shorten(id),
            id,
            &Look {
                shape: "box3d",
                color,
                more,
            },
        );
        names.peers.insert(id, name);
    }
}

fn ipfs_nodes<'a>(
    out: &mut String,
    graph: &'a ConnectGraph,
    ipfs: &BTreeMap<&'a str, Vec<&'a str>>,
    names: &mut Names<'a>,
) {
    let known = ipfs.keys().map(|id| (*id, shorten(id), "turquoise3"));
    let unknown = graph
        .cluster_links
        .keys()
        .filter(|id| !graph.cluster_to_ipfs.contains_key(*id));
    let missing = unknown.map(|id| (id.as_str(), "Errored".to_owned(), "firebrick1"));
    for (id, short, color) in known.chain(missing) {
        let name = format!("I{}", names.ipfs.len());
        node(
            out,
            &name,
            "IPFS",
            &short,
            id,
            &Look {
                shape: "cylinder",
                color,
                more: "",
            },
        );
        names.ipfs.insert(id, name);
    }
}

fn node(out: &mut String, name: &str, title: &str, short: &str, id: &str, look: &Look) {
    let Look { shape, color, more } = look;
    let (title, short, id) = (html(title), html(short), quoted(id));
    // Writing to a `String` cannot fail.
    let _ = writeln!(
        out,
        "{name} [label=< <B> {title} </B> <BR/> <B> {short} </B> > group=\"{id}\" color=\"{color}\" \
         style=\"filled\" colorscheme=\"x11\" fontcolor=\"black\" fontname=\"Arial\" \
         shape=\"{shape}\" {more}]"
    );
}

/// Escapes text of an HTML label: a peer's name must not add markup or nodes to the graph.
fn html(text: &str) -> String {
    let text = terminal::line(text).replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;")
}

/// Escapes text inside double quotes.
fn quoted(text: &str) -> String {
    terminal::line(text).replace('\\', "\\\\").replace('"', "\\\"")
}

/// Writes an edge, unless one of its nodes is not drawn.
fn edge(out: &mut String, from: Option<&String>, to: Option<&String>, style: &str) {
    if let (Some(from), Some(to)) = (from, to) {
        let _ = writeln!(out, "{from} -> {to}{style}");
    }
}

/// Shortens an id to its beginning and end: `12*BXxzie`.
fn shorten(id: &str) -> String {
    let end = id.len().saturating_sub(6);
    format!("{}*{}", id.get(..2).unwrap_or(id), id.get(end..).unwrap_or(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAPH: &str = r#"{"cluster_id":"QmPeerAAAAAA",
        "id_to_peername":{"QmPeerAAAAAA":"a","QmPeerBBBBBB":"b","QmPeerCCCCCC":"c"},
        "ipfs_links":{"QmIpfsAAAAAA":["QmIpfsBBBBBB","QmIpfsXXXXXX"],"QmIpfsBBBBBB":[]},
        "cluster_links":{"QmPeerAAAAAA":["QmPeerBBBBBB"],"QmPeerBBBBBB":["QmPeerAAAAAA"],"QmPeerCCCCCC":[]},
        "cluster_trust_links":{"QmPeerAAAAAA":true,"QmPeerBBBBBB":true},
        "cluster_to_ipfs":{"QmPeerAAAAAA":"QmIpfsAAAAAA","QmPeerBBBBBB":"QmIpfsBBBBBB"}}"#;

    #[test]
    fn nodes_and_edges_are_drawn_as_by_the_go_tool() {
        let drawn = dot(&serde_json::from_str(GRAPH).unwrap(), false);
        let first = "C0 [label=< <B> a </B> <BR/> <B> Qm*AAAAAA </B> > group=\"QmPeerAAAAAA\" \
            color=\"orange\" style=\"filled\" colorscheme=\"x11\" fontcolor=\"black\" \
            fontname=\"Arial\" shape=\"box3d\" \
            peripheries=\"2\" ]\nT1 [";
        assert!(drawn.contains(first), "{drawn}");
        assert!(drawn.contains("\nC2 [") && drawn.contains("darkorange3"));
        assert!(drawn.contains("I2 [label=< <B> IPFS </B> <BR/> <B> Errored </B> >"));
        let edges = "/* The connections among cluster-service peers */\nC0 -> T1\nT1 -> C0\n\n\
            /* The connections between cluster peers and their ipfs daemons */\nC0 -> I0\nT1 -> I1\n\
            C2 -> I2 [ style=\"dotted\" ]\n\n\
            /* The swarm peer connections among ipfs daemons in the cluster */\nI0 -> I1\n}";
        assert!(drawn.ends_with(edges), "{drawn}");
    }

    #[test]
    fn nodes_outside_the_cluster_are_drawn_on_request() {
        let drawn = dot(&serde_json::from_str(GRAPH).unwrap(), true);
        assert!(drawn.contains("I2 [label=< <B> IPFS </B> <BR/> <B> Qm*XXXXXX </B> >"));
        assert!(drawn.ends_with("I0 -> I1\nI0 -> I2\n}"), "{drawn}");
    }

    #[test]
    fn names_and_ids_cannot_add_nodes_or_markup() {
        let graph = r#"{"cluster_id":"a","cluster_links":{"Qa\"] X [label=\"\\":[]},
            "id_to_peername":{"Qa\"] X [label=\"\\":"</B> > ] X\nY \u001b[2J"}}"#;
        let drawn = dot(&serde_json::from_str(graph).unwrap(), false);
        assert!(
            drawn.contains(r"<B> &lt;/B&gt; &gt; ] X\nY \u001b[2J </B>"),
            "{drawn}"
        );
        assert!(drawn.contains(r#" group="Qa\"] X [label=\"\\" color"#), "{drawn}");
    }

    #[test]
    fn an_empty_or_odd_graph_does_not_panic() {
        let _ = dot(&ConnectGraph::default(), true);
        let odd = r#"{"cluster_links":{"é":["x"],"":["é"]},"ipfs_links":{"":["ü"]}}"#;
        let _ = dot(&serde_json::from_str(odd).unwrap(), true);
    }
}
