//! Validation of arguments before a request is sent.

use crate::failure::Failure;
use cluster_api::{GoDuration, Time};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Multicodec of libp2p public keys, in peer ids written as CIDs.
const LIBP2P_KEY: u64 = 0x72;

/// Parses a CID and returns its canonical text.
pub(crate) fn cid(text: &str) -> Result<String, Failure> {
    parse_cid(text).map_err(|error| Failure::local("parsing cid", error))
}

fn parse_cid(text: &str) -> Result<String, String> {
    let parsed = if text.contains('/') {
        Err("it contains a slash; give the CID alone".to_owned())
    } else {
        cid::Cid::try_from(text).map_err(|e| e.to_string())
    };
    parsed
        .map(|cid| cid.to_string())
        .map_err(|error| format!("invalid cid {text:?}: {error}"))
}

/// Validates a CID or a path below `/ipfs/`, `/ipns/` or `/ipld/`, whose names need not be UTF-8.
pub(crate) fn path(given: &OsStr) -> Result<&[u8], Failure> {
    let bytes = given.as_bytes();
    if bytes.starts_with(b"/ipns/") {
        return Ok(bytes);
    }
    let below = bytes
        .strip_prefix(b"/ipfs/")
        .or_else(|| bytes.strip_prefix(b"/ipld/"))
        .unwrap_or(bytes);
    let root = below.split(|byte| *byte == b'/').next().unwrap_or_default();
    parse_cid(&String::from_utf8_lossy(root))
        .map_err(|e| Failure::local("parsing path", format!("invalid path {given:?}: {e}")))?;
    Ok(bytes)
}

/// Parses a peer id, or a multiaddress that ends in one. Returns the id.
pub(crate) fn peer(text: &str) -> Result<String, Failure> {
    let last = if text.starts_with('/') {
        text.rsplit('/').next().unwrap_or_default()
    } else {
        text
    };
    if is_peer(last) {
        return Ok(last.to_owned());
    }
    Err(Failure::local(
        "parsing peer ID",
        format!(
            "failed to parse peer ID {text:?}: expected something like 12D3KooW…, as \"peers ls\" lists them"
        ),
    ))
}

/// Returns whether `text` is a base-58 multihash, or the CID of a public key.
fn is_peer(text: &str) -> bool {
    if text.starts_with("Qm") || text.starts_with('1') {
        let bytes = bs58::decode(text).into_vec().unwrap_or_default();
        return cid::multihash::Multihash::<64>::from_bytes(&bytes).is_ok();
    }
    cid::Cid::try_from(text).is_ok_and(|cid| cid.codec() == LIBP2P_KEY)
}

/// Parses a comma-separated list of peer ids. Returns the ids.
pub(crate) fn peers(text: Option<&str>) -> Result<Vec<String>, Failure> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(Vec::new());
    };
    let ids = text.split(',').map(str::trim);
    ids.map(|id| {
        let error = format!("some peer IDs could not be decoded: {id:?} is not a peer ID");
        is_peer(id)
            .then(|| id.to_owned())
            .ok_or_else(|| Failure::local("decoding allocations", error))
    })
    .collect()
}

/// Validates a cluster secret, which is otherwise unused: only HTTP over libp2p needs it, and such hosts are
/// refused.
pub(crate) fn secret(hex: &str) -> Result<(), Failure> {
    let is_hex = hex.len().is_multiple_of(2) && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex {
        return Ok(());
    }
    // Without the secret itself, which would get into logs.
    let error = "--secret is not hexadecimal: give the 64 digits of cluster.secret";
    Err(Failure::local("parsing secret", error))
}

/// Returns the time after a duration from now; zero without one.
pub(crate) fn expiry(expire_in: Option<GoDuration>) -> Result<Time, Failure> {
    match expire_in {
        None => Ok(Time::ZERO),
        Some(duration) if duration < GoDuration::from_secs(1) => {
            let error = format!("{duration} is too short: give one second (1s) or more");
            Err(Failure::local("parsing expire-in", error))
        }
        Some(duration) => Ok(Time::now().plus_nanos(duration.as_nanos())),
    }
}

/// Parses `key=value` pairs; empty arguments are skipped.
pub(crate) fn metadata(pairs: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let split = pairs.iter().filter(|pair| !pair.is_empty()).map(|pair| {
        let error = || format!("metadata were not in the format key=value: {pair:?}");
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| Failure::local("parsing metadata", error()))?;
        Ok((key.to_owned(), value.to_owned()))
    });
    split.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V0: &str = "QmP63DkAFEnDYNjDYBpyNDfttu1fvUw99x1brscPzpqmmq";
    const PEER: &str = "12D3KooWGwZ7wvxbHgxbpPJRAFMLdcPVkVoXa1vCpyuqrL47PZWc";

    #[test]
    fn cids_are_normalised() {
        assert_eq!(cid(V0).unwrap(), V0);
        let base58 = "zdj7WWeQ43G6JJvLWQWZpyHuAMq6uYWRjkBXFad11vE2LHhQ7";
        assert!(cid(base58).unwrap().starts_with("bafy"));
        for bad in ["", "x", "xyz", "/ipfs/x", "Qm"] {
            assert!(cid(bad).is_err(), "{bad}");
        }
        assert!(cid(&format!("/ipfs/{V0}")).is_err());
    }

    #[test]
    fn paths_need_a_cid_unless_they_are_ipns_names() {
        for good in [
            V0.to_owned(),
            format!("/ipfs/{V0}/a b"),
            format!("{V0}/a"),
            "/ipns/x.org".to_owned(),
        ] {
            assert_eq!(path(good.as_ref()).unwrap(), good.as_bytes());
        }
        for bad in ["", "/", "/ipfs/", "/ipfs/x/y", "/foo/bar", "a"] {
            assert!(path(bad.as_ref()).is_err(), "{bad}");
        }
    }

    #[test]
    fn peers_are_ids_or_multiaddresses_that_end_in_one() {
        assert_eq!(peer(PEER).unwrap(), PEER);
        assert_eq!(peer(&format!("/ip4/1.2.3.4/tcp/9096/p2p/{PEER}")).unwrap(), PEER);
        assert_eq!(peer(&format!("/ip4/1.2.3.4/tcp/9096/ipfs/{V0}")).unwrap(), V0);
        for bad in ["", "x", "/ip4/1.2.3.4/tcp/9096", "12D3", "bafkqaaa"] {
            assert!(peer(bad).is_err(), "{bad}");
        }
        assert_eq!(peers(Some(&format!("{PEER}, {V0}"))).unwrap().len(), 2);
        assert!(peers(Some("a,b")).is_err());
    }

    #[test]
    fn invalid_metadata_and_expiries_are_refused() {
        assert_eq!(metadata(&["a=b=c".into(), "d=".into()]).unwrap()["a"], "b=c");
        assert!(metadata(&["a".into()]).is_err());
        assert!(metadata(&[String::new()]).unwrap().is_empty());
        assert!(expiry(Some(GoDuration::from_millis(999))).is_err());
        assert!(expiry(None).unwrap().is_zero());
    }
}
