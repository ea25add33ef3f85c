//! Conversions between the core's records and those of the API.

use std::collections::BTreeMap;
use std::str::FromStr;

use cluster_api as api;
use cluster_core::{Cid, Mode, PeerId, Pin, PinOptions, PinType, Replicas, Timestamp, is_reserved_key};
use cluster_ipfs::Multiaddr;

use super::Error;

/// First [`Timestamp`] that counts seconds. Nanoseconds in a `u64` end in 2554, and "never" is often
/// written as the end of 9999, so from 2262-04-11T23:47:16Z on a `Timestamp` is this number plus whole
/// seconds since then (the Go peer keeps whole seconds of every expiry). The core only compares timestamps,
/// and their order is that of the times.
const COARSE_FROM: u64 = 1 << 63;

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// Converts a time to the API's type.
pub(crate) fn time(at: Timestamp) -> api::Time {
    let coarse = i128::from(at.0.saturating_sub(COARSE_FROM));
    let fine = i128::from(at.0.min(COARSE_FROM));
    let nanos = if coarse == 0 {
        fine
    } else {
        fine - fine % NANOS_PER_SECOND
    };
    api::Time::from_unix_nanos(nanos + coarse * NANOS_PER_SECOND)
}

/// Converts a time from the API's type, limited to 1970 to 9999.
pub(crate) fn timestamp(at: api::Time) -> Timestamp {
    let nanos = at.unix_nanos().max(0);
    let coarse_from = i128::from(COARSE_FROM);
    if nanos <= coarse_from {
        return Timestamp(u64::try_from(nanos).unwrap_or(COARSE_FROM));
    }
    let seconds = nanos / NANOS_PER_SECOND - coarse_from / NANOS_PER_SECOND;
    Timestamp(COARSE_FROM.saturating_add(u64::try_from(seconds).unwrap_or(u64::MAX)))
}

/// Converts and checks the pin options of a request, which may not name owners.
pub(super) fn options(
    asked: &api::PinOptions,
    default: Replicas,
    now: Timestamp,
) -> Result<PinOptions, Error> {
    check_metadata(&asked.metadata).map_err(Error::Invalid)?;
    options_with_owners(asked, default, now)
}

/// Checks that metadata has no reserved key.
///
/// # Errors
/// It has one; the text names it.
pub(crate) fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), String> {
    let Some(key) = metadata.keys().find(|key| is_reserved_key(key)) else {
        return Ok(());
    };
    let advice = "choose one that does not begin with \"owner/\"";
    Err(format!(
        "the metadata key {key:?} is reserved for owners of pins: {advice}"
    ))
}

/// Converts and checks pin options that may name owners.
fn options_with_owners(
    asked: &api::PinOptions,
    default: Replicas,
    now: Timestamp,
) -> Result<PinOptions, Error> {
    let invalid = |why: String| Err(Error::Invalid(why));
    let expire_at = (!asked.expire_at.is_zero()).then(|| timestamp(asked.expire_at));
    if expire_at.is_some_and(|at| at <= now) {
        return invalid("pin.ExpireAt set before current time".to_owned());
    }
    let pin_update = asked.pin_update.as_deref().map(|cid| {
        cid.parse()
            .map_err(|error| Error::Invalid(format!("error decoding Cid: pin-update: {error}")))
    });
    let options = PinOptions {
        replicas: replicas(
            asked.replication_factor_min,
            asked.replication_factor_max,
            default,
        )?,
        name: asked.name.clone(),
        mode: match asked.mode {
            api::PinMode::Recursive => Mode::Recursive,
            api::PinMode::Direct => Mode::Direct,
        },
        shard_size: asked.shard_size,
        // Like the Go peer, skips invalid peer ids.
        user_allocations: asked
            .user_allocations
            .iter()
            .filter_map(|peer| peer.parse().ok())
            .collect(),
        expire_at,
        metadata: asked.metadata.clone(),
        pin_update: pin_update.transpose()?,
        origins: asked.origins.clone(),
    };
    options
        .check()
        .map_err(|refusal| Error::Invalid(refusal.to_string()))?;
    for origin in &options.origins {
        Multiaddr::from_str(origin)
            .map_err(|error| Error::Invalid(format!("error decoding multiaddress: {origin:?}: {error}")))?;
    }
    Ok(options)
}

/// Converts an exported pin, with the checks of a request. It may name owners if `names_owners`.
pub(super) fn imported(
    brought: &api::Pin,
    default: Replicas,
    now: Timestamp,
    names_owners: bool,
) -> Result<Pin, Error> {
    let invalid = |why: String| Error::Invalid(format!("{}: {why}", brought.cid));
    let cid = |text: &str| -> Result<Cid, Error> {
        text.parse()
            .map_err(|error| invalid(format!("error decoding Cid: {error}")))
    };
    let convert = match names_owners {
        true => options_with_owners,
        false => options,
    };
    let options = match convert(&brought.options, default, now) {
        Err(Error::Invalid(why)) => return Err(invalid(why)),
        other => other?,
    };
    let pin_type = core_pin_type(brought.pin_type).ok_or_else(|| invalid("unknown pin type".to_owned()))?;
    let timestamp = if brought.timestamp.is_zero() {
        Timestamp(0)
    } else {
        timestamp(brought.timestamp)
    };
    let pin = Pin {
        cid: cid(&brought.cid)?,
        pin_type,
        // Skips invalid peer ids. The core replaces peers of other clusters.
        allocations: brought
            .allocations
            .iter()
            .filter_map(|peer| peer.parse().ok())
            .collect(),
        reference: brought.reference.as_deref().map(cid).transpose()?,
        options,
        timestamp,
        version: 0,
    };
    pin.check().map_err(|refusal| invalid(refusal.to_string()))?;
    Ok(pin)
}

/// Checks the replication factors of a request; 0 stands for the default.
fn replicas(min: i32, max: i32, default: Replicas) -> Result<Replicas, Error> {
    let (default_min, default_max) = factors(default);
    let min = if min == 0 { default_min } else { min };
    let max = if max == 0 { default_max } else { max };
    let bad = |why: &str| {
        Err(Error::Invalid(format!(
            "bad replication factors: min {min}, max {max}: {why}"
        )))
    };
    match (min, max) {
        (-1, -1) => Ok(Replicas::Everywhere),
        (-1, _) | (_, -1) => bad("-1 (everywhere) must be given for both"),
        (..=0, _) | (_, ..=0) => bad("each must be at least 1, or -1 for everywhere"),
        _ if min > max => bad("the minimum is above the maximum"),
        _ => Ok(Replicas::Range {
            min: min.unsigned_abs(),
            max: max.unsigned_abs(),
        }),
    }
}

/// Returns the minimum and maximum of copies, -1 for everywhere.
pub(crate) fn factors(replicas: Replicas) -> (i32, i32) {
    match replicas {
        Replicas::Everywhere => (-1, -1),
        Replicas::Range { min, max } => (
            i32::try_from(min).unwrap_or(i32::MAX),
            i32::try_from(max).unwrap_or(i32::MAX),
        ),
    }
}

/// Formats peer ids.
fn texts(peers: &[PeerId]) -> Vec<String> {
    peers.iter().map(PeerId::to_string).collect()
}

/// Converts a pin with all its fields: as a Go peer exports it, plus the user's allocations, which Go reads
/// and drops.
pub(crate) fn whole_pin(pin: &Pin) -> api::Pin {
    let mut shown = self::pin(pin);
    shown.options.user_allocations = texts(&pin.options.user_allocations);
    shown
}

/// Converts a pin without the user's allocations, which the Go peer's listings leave out.
pub(super) fn pin(pin: &Pin) -> api::Pin {
    let (replication_factor_min, replication_factor_max) = factors(pin.options.replicas);
    let mode = match pin.options.mode {
        Mode::Recursive => api::PinMode::Recursive,
        Mode::Direct => api::PinMode::Direct,
    };
    api::Pin {
        options: api::PinOptions {
            replication_factor_min,
            replication_factor_max,
            name: pin.options.name.clone(),
            mode,
            shard_size: pin.options.shard_size,
            user_allocations: Vec::new(),
            expire_at: pin.options.expire_at.map_or(api::Time::ZERO, time),
            metadata: pin.options.metadata.clone(),
            pin_update: pin.options.pin_update.as_ref().map(Cid::to_string),
            origins: pin.options.origins.clone(),
        },
        cid: pin.cid.to_string(),
        pin_type: pin_type(pin.pin_type),
        allocations: texts(&pin.allocations),
        max_depth: mode.max_depth(),
        reference: pin.reference.as_ref().map(Cid::to_string),
        timestamp: time(pin.timestamp),
    }
}

/// Converts a pin type.
pub(crate) fn pin_type(pin_type: PinType) -> api::PinType {
    match pin_type {
        PinType::Data => api::PinType::Data,
        PinType::Meta => api::PinType::Meta,
        PinType::ClusterDag => api::PinType::ClusterDag,
        PinType::Shard => api::PinType::Shard,
    }
}

/// Converts a pin type from the API; `None` for an unknown type.
pub(crate) fn core_pin_type(named: api::PinType) -> Option<PinType> {
    match named {
        api::PinType::Data => Some(PinType::Data),
        api::PinType::Meta => Some(PinType::Meta),
        api::PinType::ClusterDag => Some(PinType::ClusterDag),
        api::PinType::Shard => Some(PinType::Shard),
        api::PinType::Bad => None,
    }
}

/// Converts a CID of the IPFS packages.
pub(super) fn core_cid(cid: &cluster_ipfs::Cid) -> Result<Cid, Error> {
    Cid::from_bytes(&cid.to_bytes()).map_err(|error| Error::Invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000_000);

    fn convert(change: impl FnOnce(&mut api::PinOptions)) -> Result<PinOptions, String> {
        let mut asked = api::PinOptions::default();
        change(&mut asked);
        options(&asked, Replicas::Range { min: 1, max: 2 }, NOW).map_err(|error| error.to_string())
    }

    #[test]
    fn missing_factors_have_the_default() {
        assert_eq!(
            convert(|_| {}).unwrap().replicas,
            Replicas::Range { min: 1, max: 2 }
        );
        let everywhere = convert(|o| (o.replication_factor_min, o.replication_factor_max) = (-1, -1));
        assert_eq!(everywhere.unwrap().replicas, Replicas::Everywhere);
        let max_only = convert(|o| o.replication_factor_max = 5);
        assert_eq!(max_only.unwrap().replicas, Replicas::Range { min: 1, max: 5 });
    }

    #[test]
    fn contradictory_factors_are_refused() {
        for (min, max) in [(3, 2), (-1, 2), (2, -1), (-2, 3), (-2, -2), (3, 0)] {
            let error = convert(|o| (o.replication_factor_min, o.replication_factor_max) = (min, max));
            assert!(
                error.unwrap_err().starts_with("bad replication factors"),
                "{min} {max}"
            );
        }
    }

    #[test]
    fn past_expiry_is_refused_in_the_go_peers_words() {
        let error = convert(|o| o.expire_at = "2020-01-01T00:00:00Z".parse().unwrap()).unwrap_err();
        assert_eq!(error, "pin.ExpireAt set before current time");
        let before_1970 = convert(|o| o.expire_at = "1960-01-01T00:00:00Z".parse().unwrap());
        assert!(before_1970.is_err());
        assert!(convert(|o| o.expire_at = "2090-01-01T00:00:00Z".parse().unwrap()).is_ok());
    }

    #[test]
    fn expiry_times_until_the_end_of_9999_survive_the_core() {
        for text in [
            "2090-01-01T00:00:00.123456789Z",
            "2262-04-11T23:47:16Z",
            "2262-04-11T23:47:17Z",
            "2554-07-21T23:34:33Z",
            "9999-12-30T23:00:00Z",
            "9999-12-31T23:59:59Z",
        ] {
            let options = convert(|o| o.expire_at = text.parse().unwrap()).unwrap();
            assert_eq!(time(options.expire_at.unwrap()).to_string(), text);
        }
        assert_eq!(timestamp("1960-01-01T00:00:00Z".parse().unwrap()), Timestamp(0));
        // Earlier releases wrote the largest number for all later times.
        assert_eq!(
            time(Timestamp(u64::MAX)).to_string(),
            "9999-12-31T23:59:59.999999999Z"
        );
    }

    proptest::proptest! {
        #[test]
        fn timestamps_are_ordered_as_their_times(
            a in 0_i64..253_402_300_799,
            b in 0_i64..253_402_300_799,
            near in -3_i64..3,
        ) {
            for b in [b, a + near, 9_223_372_036 + near] {
                let at = |seconds| timestamp(api::Time::from_unix(seconds));
                proptest::prop_assert_eq!(at(a).cmp(&at(b)), a.max(0).cmp(&b.max(0)));
                proptest::prop_assert_eq!(time(at(b)).unix_seconds(), b.clamp(0, 253_402_300_799));
            }
        }
    }

    #[test]
    fn only_trusted_imports_name_owners() {
        let mut pin = api::Pin {
            cid: "bafkqablimvwgy3y".to_owned(),
            pin_type: api::PinType::Data,
            ..api::Pin::default()
        };
        let marked = [("owner/ann".to_owned(), String::new())];
        pin.options.metadata = marked.into();
        let default = Replicas::Range { min: 1, max: 2 };
        let refused = imported(&pin, default, NOW, false).unwrap_err().to_string();
        assert!(refused.contains("\"owner/ann\" is reserved"), "{refused}");
        assert!(imported(&pin, default, NOW, true).unwrap().is_owned_by("ann"));
        assert!(options(&pin.options, default, NOW).is_err());
    }

    #[test]
    fn invalid_origins_and_pin_updates_are_refused_and_allocations_skipped() {
        assert!(convert(|o| o.origins = vec!["/ip4/999/p2p/x".to_owned()]).is_err());
        assert!(convert(|o| o.pin_update = Some("nonsense".to_owned())).is_err());
        assert!(
            convert(|o| o.user_allocations = vec!["x".to_owned()])
                .unwrap()
                .user_allocations
                .is_empty()
        );
    }
}
