//! Handlers of `/ipfs/scrub`.

use axum::extract::{RawQuery, State};
use cluster_api::Query;
use cluster_core::{PeerId, SCRUB_SHARE_MAX, ScrubChange};

use super::answer::{self, Answer, invalid};
use crate::cluster::{Cluster, Scrubbers};

pub(super) async fn show(State(cluster): State<Cluster>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::parse(query.as_deref().unwrap_or_default());
    let whose = parse_scrubbers(&query).map_err(invalid)?;
    Ok(answer::json(&cluster.scrubs(&whose, &[]).await?))
}

pub(super) async fn change(State(cluster): State<Cluster>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::parse(query.as_deref().unwrap_or_default());
    let changes = parse_changes(&query).map_err(invalid)?;
    let whose = parse_scrubbers(&query).map_err(invalid)?;
    Ok(answer::json(&cluster.scrubs(&whose, &changes).await?))
}

fn parse_scrubbers(query: &Query) -> Result<Scrubbers, String> {
    let is_local = query.bool("local", false).map_err(|error| error.to_string())?;
    let named = query.get("peer").filter(|named| !named.is_empty());
    match named {
        None if is_local => Ok(Scrubbers::Local),
        None => Ok(Scrubbers::All),
        Some(_) if is_local => Err("`local` and `peer` exclude each other".to_owned()),
        Some(named) => {
            let parse = |id: &str| {
                id.parse::<PeerId>()
                    .map_err(|_| format!("{id:?} is not a peer id"))
            };
            let mut peers: Vec<PeerId> = named.split(',').map(parse).collect::<Result<_, _>>()?;
            peers.sort();
            peers.dedup();
            Ok(Scrubbers::Of(peers))
        }
    }
}

fn parse_changes(query: &Query) -> Result<Vec<ScrubChange>, String> {
    let mut changes = Vec::new();
    changes.extend(query.get("fraction").map(parse_fraction).transpose()?);
    changes.extend(match query.get("action") {
        None => None,
        Some("start") => Some(ScrubChange::Start),
        Some("pause") => Some(ScrubChange::Pause),
        Some("resume") => Some(ScrubChange::Resume),
        Some(other) => {
            return Err(format!("{other:?} is not an action: use start, pause or resume"));
        }
    });
    if changes.is_empty() {
        return Err("nothing to do: name an `action` or a `fraction`".to_owned());
    }
    Ok(changes)
}

fn parse_fraction(text: &str) -> Result<ScrubChange, String> {
    if text == "default" {
        return Ok(ScrubChange::Share(None));
    }
    let full = f64::from(SCRUB_SHARE_MAX);
    let share = text.parse::<f64>().ok().map(|fraction| fraction * full);
    let share = share.filter(|share| (1.0..=full).contains(share));
    // In range, so the conversion is exact up to the rounding.
    let share = share.map(|share| share.round() as u16);
    share
        .map(|share| ScrubChange::Share(Some(share)))
        .ok_or_else(|| format!("{text:?} is not a fraction: use a number from 0.001 to 1, or default"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_parsed_and_wrong_ones_named() {
        let parse = |text: &str| parse_changes(&Query::parse(text));
        assert_eq!(parse("action=start"), Ok(vec![ScrubChange::Start]));
        let both = Ok(vec![ScrubChange::Share(Some(250)), ScrubChange::Resume]);
        assert_eq!(parse("action=resume&fraction=0.25"), both);
        assert_eq!(parse("fraction=1"), Ok(vec![ScrubChange::Share(Some(1000))]));
        assert_eq!(parse("fraction=default"), Ok(vec![ScrubChange::Share(None)]));
        for (wrong, named) in [
            ("", "nothing to do"),
            ("action=stop", "stop"),
            ("fraction=0", "\"0\""),
            ("fraction=1.5", "1.5"),
            ("fraction=NaN", "NaN"),
            ("fraction=-1", "-1"),
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(error.contains(named), "{wrong}: {error}");
        }
    }

    #[test]
    fn peers_are_all_the_local_one_or_those_named() {
        let parse = |text: &str| parse_scrubbers(&Query::parse(text));
        assert_eq!(parse(""), Ok(Scrubbers::All));
        assert_eq!(parse("local=true"), Ok(Scrubbers::Local));
        let id = "12D3KooWGRYZDHBembyGJQqQ6WgLqJWYNjnECJwGBnCg8vbCeo8F";
        let of = Ok(Scrubbers::Of(vec![id.parse().unwrap()]));
        assert_eq!(parse(&format!("peer={id},{id}")), of);
        assert!(parse("peer=x").unwrap_err().contains("\"x\""));
        assert!(parse(&format!("local=true&peer={id}")).is_err());
        assert!(parse("local=perhaps").is_err());
    }
}
