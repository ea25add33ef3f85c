//! The commands `key/…`: private keys of IPNS names.

use cluster_http::rpc::Failure;
use libp2p::PeerId;
use serde::Serialize;

use super::reply::Reply;
use super::request::{Call, parse_base, read_part};
use crate::keys::{KEY_MAX, PrivateKey, RSA_SIZE, SELF};
use crate::reader::blocking;
use crate::{NamedKey, ipns};

#[derive(Serialize)]
struct KeyList {
    #[serde(rename = "Keys")]
    keys: Vec<Key>,
}

#[derive(Serialize)]
struct Key {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Id")]
    id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Renamed {
    was: String,
    now: String,
    id: String,
    overwrite: bool,
}

/// Formats the IPNS name of a key in the base that the caller wants.
pub(super) fn format_id(call: &Call, id: &PeerId) -> Result<String, Failure> {
    match call.text("ipns-base") {
        None | Some("base36") => Ok(ipns::format_name(id)),
        // The multihash alone.
        Some("b58mh") => Ok(id.to_string()),
        Some(name) => {
            let base = parse_base(name);
            let base =
                base.ok_or_else(|| Failure::failed(format!("unsupported multibase encoding: {name}")))?;
            let text = ipns::name_cid(id).to_string_of_base(base);
            text.map_err(Failure::failed)
        }
    }
}

fn shown(call: &Call, key: NamedKey) -> Result<Key, Failure> {
    Ok(Key {
        id: format_id(call, &key.id)?,
        name: key.name,
    })
}

/// Handles `key/list` and `key/ls`.
pub(super) async fn list(call: Call) -> Result<Reply, Failure> {
    let inner = call.node.inner.clone();
    let keys = blocking(move || inner.names.keys.list()).await?;
    let keys = keys.into_iter().map(|key| shown(&call, key));
    Reply::once(&KeyList {
        keys: keys.collect::<Result<_, _>>()?,
    })
}

/// Handles `key/gen`.
pub(super) async fn generate(call: Call) -> Result<Reply, Failure> {
    let name = call.text_arg(0)?.to_owned();
    if name == SELF {
        return Err(Failure::failed("cannot create key with name 'self'"));
    }
    let size = call.number("size").unwrap_or(RSA_SIZE);
    let key = match call.text("type").unwrap_or("ed25519") {
        "ed25519" => PrivateKey::generate_ed25519()?,
        "rsa" => blocking(move || PrivateKey::generate_rsa(size)).await?,
        "secp256k1" => {
            return Err(Failure::failed(
                "the embedded node creates no keys of type secp256k1: use ed25519 or rsa",
            ));
        }
        other => return Err(Failure::failed(format!("unrecognized key type: {other}"))),
    };
    add(&call, name, key).await
}

async fn add(call: &Call, name: String, key: PrivateKey) -> Result<Reply, Failure> {
    let inner = call.node.inner.clone();
    let added = blocking(move || inner.names.keys.add(&name, &key)).await?;
    Reply::once(&shown(call, added)?)
}

/// Handles `key/import`.
pub(super) async fn import(mut call: Call) -> Result<Reply, Failure> {
    let name = call.text_arg(0)?.to_owned();
    if name == SELF {
        return Err(Failure::failed("cannot import key with name 'self'"));
    }
    let pem = match call.text("format").unwrap_or("libp2p-protobuf-cleartext") {
        "libp2p-protobuf-cleartext" => false,
        "pem-pkcs8-cleartext" => true,
        other => return Err(Failure::failed(format!("unrecognized import format: {other}"))),
    };
    let bytes = read_file(&mut call, KEY_MAX).await?;
    let key = PrivateKey::parse(bytes, pem)?;
    add(&call, name, key).await
}

/// Reads the first file of the body, at most `max` bytes.
pub(super) async fn read_file(call: &mut Call, max: usize) -> Result<Vec<u8>, Failure> {
    let mut parts = call.multipart()?;
    if parts.next_part().await.map_err(Failure::bad_request)?.is_none() {
        let message = format!("file argument '{}' is required", call.command.file_name());
        return Err(Failure::bad_request(message));
    }
    read_part(&mut parts, max).await
}

/// Handles `key/rename`.
pub(super) async fn rename(call: Call) -> Result<Reply, Failure> {
    let [was, now] = [call.text_arg(0)?.to_owned(), call.text_arg(1)?.to_owned()];
    let force = call.flag("force", false);
    let (inner, old, new) = (call.node.inner.clone(), was.clone(), now.clone());
    let (key, overwrite) = blocking(move || inner.names.keys.rename(&old, &new, force)).await?;
    Reply::once(&Renamed {
        was,
        now,
        id: format_id(&call, &key.id)?,
        overwrite,
    })
}

/// Handles `key/rm`.
pub(super) async fn rm(call: Call) -> Result<Reply, Failure> {
    let mut keys = Vec::with_capacity(call.args.len());
    for name in call.text_args()? {
        let (inner, name) = (call.node.inner.clone(), name.to_owned());
        let removed = blocking(move || inner.names.keys.remove(&name)).await?;
        keys.push(shown(&call, removed)?);
    }
    Reply::once(&KeyList { keys })
}
