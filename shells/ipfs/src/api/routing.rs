//! The commands `routing/findprovs`, `routing/findpeer`, `routing/provide` and `routing/reprovide`, and the
//! events of all commands `routing/…`.

use cluster_http::rpc::Failure;
use futures::stream::StreamExt;
use serde::Serialize;

use super::reply::{Reply, stream_lines};
use super::request::Call;
use crate::Cid;
use crate::config_file::PeerAddresses;
use crate::settings::ProvideStrategy;

/// Event of a search, with its keys in Kubo's order.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct QueryEvent {
    pub(super) extra: String,
    #[serde(rename = "ID")]
    pub(super) id: String,
    pub(super) responses: Option<Vec<PeerAddresses>>,
    #[serde(rename = "Type")]
    pub(super) kind: u8,
}

/// Number of Kubo's event that carries the peer that was looked for.
const FINAL_PEER: u8 = 2;
/// Number of Kubo's event that carries an error.
const QUERY_ERROR: u8 = 3;
/// Number of Kubo's event that carries a provider.
const PROVIDER: u8 = 4;
/// Number of Kubo's event that carries a value.
pub(super) const VALUE: u8 = 5;

/// Default of the providers that are searched; Kubo's.
const PROVIDERS: i64 = 20;
/// Limit on the providers that one call may ask for.
const PROVIDERS_MAX: usize = 1000;

impl QueryEvent {
    fn new(kind: u8, extra: String, responses: Option<Vec<PeerAddresses>>) -> QueryEvent {
        QueryEvent {
            extra,
            id: String::new(),
            responses,
            kind,
        }
    }
}

/// Refuses a call with the option `offline`, in Kubo's words.
pub(super) fn check_online(call: &Call) -> Result<(), Failure> {
    match call.node.offline {
        true => Err(Failure::failed(
            "this command must be run in online mode. Try running 'ipfs daemon' first",
        )),
        false => Ok(()),
    }
}

/// Handles `routing/findprovs`: one event per provider, as they are found.
pub(super) async fn find_providers(call: Call) -> Result<Reply, Failure> {
    check_online(&call)?;
    let count = call.number("num-providers").unwrap_or(PROVIDERS);
    let limit = usize::try_from(count).unwrap_or(0).min(PROVIDERS_MAX);
    if limit == 0 {
        return Err(Failure::failed("number of providers must be greater than 0"));
    }
    let cid = call.resolve(&call.arg(0)).await?;
    let found = call.node.find_providers(&cid, limit);
    Reply::objects(found.map(|provider| {
        let responses = vec![PeerAddresses {
            addresses: provider.addresses,
            peer: provider.peer,
        }];
        Ok(QueryEvent::new(PROVIDER, String::new(), Some(responses)))
    }))
}

/// Handles `routing/findpeer`.
pub(super) async fn find_peer(call: Call) -> Result<Reply, Failure> {
    check_online(&call)?;
    let text = call.text_arg(0)?;
    let peer = crate::ipns::parse_name(text);
    let peer = peer.ok_or_else(|| Failure::failed(format!("failed to parse peer ID: {text:?}")))?;
    if peer == call.node.id().peer_id {
        return Err(Failure::failed("querying self is unsupported"));
    }
    stream_lines(move |sink| async move {
        let found = call.node.find_peer(peer).await?;
        if found.is_empty() {
            let why = "routing: not found";
            sink.send(&QueryEvent::new(QUERY_ERROR, why.to_owned(), None))
                .await?;
            return Err(Failure::failed(why));
        }
        let responses = vec![PeerAddresses {
            addresses: found,
            peer,
        }];
        sink.send(&QueryEvent::new(FINAL_PEER, String::new(), Some(responses)))
            .await
    })
}

/// Refuses announcements if the settings announce nothing or there are no servers to send them to.
pub(super) async fn check_may_provide(call: &Call) -> Result<(), Failure> {
    check_online(call)?;
    if call.node.network_settings().provide_strategy == ProvideStrategy::None {
        return Err(Failure::failed("cannot provide: provide_strategy is \"none\""));
    }
    if !call.node.network_settings().effective_routing().uses_dht() {
        return Err(Failure::failed("cannot provide: the node has joined no DHT"));
    }
    match call.node.peers().await.is_empty() {
        true => Err(Failure::failed("cannot provide, no connected peers")),
        false => Ok(()),
    }
}

/// Returns the CIDs of the arguments; their blocks must be local.
pub(super) async fn local_cids(call: &Call) -> Result<Vec<Cid>, Failure> {
    let mut cids = Vec::with_capacity(call.args.len());
    for arg in &call.args {
        let cid = call.resolve(arg).await?;
        if !call.node.has(&cid)? {
            return Err(Failure::failed(format!(
                "block {cid} not found locally, cannot provide"
            )));
        }
        cids.push(cid);
    }
    Ok(cids)
}

/// Handles `routing/provide`: announces blocks, with `recursive` all below them too, and waits for it.
pub(super) async fn provide(call: Call) -> Result<Reply, Failure> {
    check_may_provide(&call).await?;
    let cids = local_cids(&call).await?;
    let recursive = call.flag("recursive", false);
    stream_lines(move |_sink| async move {
        for cid in cids {
            announce(&call, &cid).await?;
            if !recursive {
                continue;
            }
            let mut below = call.node.offline().refs(cid, None, true);
            while let Some(link) = below.next().await.transpose()? {
                announce(&call, &link.to).await?;
            }
        }
        Ok(())
    })
}

async fn announce(call: &Call, cid: &Cid) -> Result<(), Failure> {
    match call.node.provide(cid).await? {
        0 => Err(Failure::failed(format!(
            "error providing cid: no server of the DHT accepted a record of {cid}"
        ))),
        _ => Ok(()),
    }
}

/// Handles `routing/reprovide`: all content is announced again, in the background.
pub(super) async fn reprovide(call: Call) -> Result<Reply, Failure> {
    check_may_provide(&call).await?;
    call.node.reprovide();
    Ok(Reply::Objects(futures::stream::empty().boxed()))
}
