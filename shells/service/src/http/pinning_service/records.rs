//! JSON of the pinning service API.

use std::collections::BTreeMap;
use std::str::FromStr;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use cluster_api::{GlobalPinInfo, PinInfoShort, Time, TrackerStatus};
use cluster_core::{Cid, without_owners};
use serde::{Deserialize, Serialize};

use crate::cluster::Error;
use crate::http::server::Service;
use crate::http::{answer, refusals};

/// Maximum number of delegates in one answer: clients connect to all of them.
const DELEGATES_MAX: usize = 20;

/// Id of a request: the time of its pin and its CID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestId {
    nanos: i128,
    pub(super) cid: Cid,
}

impl RequestId {
    /// Returns whether this is the id of the pin made at `created`.
    pub(super) fn is_of(&self, created: Time) -> bool {
        created.unix_nanos() == self.nanos
    }

    /// Checks that a status is of this request.
    ///
    /// # Errors
    /// The pin was removed or replaced.
    pub(super) fn check(&self, status: &GlobalPinInfo) -> Result<(), Failure> {
        if self.is_of(status.created) {
            Ok(())
        } else {
            let gone = "the request was removed or replaced";
            Err(Failure::new(StatusCode::NOT_FOUND, gone))
        }
    }

    fn text(created: Time, cid: &str) -> String {
        format!("{:x}-{cid}", created.unix_nanos())
    }
}

impl FromStr for RequestId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (nanos, cid) = text.split_once('-').ok_or(())?;
        Ok(Self {
            nanos: i128::from_str_radix(nanos, 16).map_err(|_| ())?,
            cid: cid.parse().map_err(|_| ())?,
        })
    }
}

/// Body of a request for a pin: `Pin` of the specification.
#[derive(Debug, Deserialize)]
pub(super) struct PinRequest {
    pub(super) cid: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) origins: Vec<String>,
    #[serde(default)]
    pub(super) meta: BTreeMap<String, String>,
}

/// Status of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// No peer has begun.
    Queued,
    /// A peer fetches the content.
    Pinning,
    /// Held by all peers that can hold it.
    Pinned,
    /// All peers have failed; they try again.
    Failed,
}

impl Status {
    /// All statuses, with their names.
    pub(super) const ALL: [(&str, Self); 4] = [
        ("queued", Self::Queued),
        ("pinning", Self::Pinning),
        ("pinned", Self::Pinned),
        ("failed", Self::Failed),
    ];

    /// Combines the statuses of all peers. Copies that are missing count before those that are there; failed
    /// ones count if there is no other.
    fn of(status: &GlobalPinInfo) -> Self {
        let any =
            |wanted: &[TrackerStatus]| status.peer_map.values().any(|info| wanted.contains(&info.status));
        if any(&[TrackerStatus::Pinning]) {
            Self::Pinning
        } else if any(&[TrackerStatus::PinQueued]) {
            Self::Queued
        } else if any(&[TrackerStatus::Pinned]) {
            Self::Pinned
        } else if any(&[TrackerStatus::PinError, TrackerStatus::UnexpectedlyUnpinned]) {
            Self::Failed
        } else {
            Self::Queued
        }
    }
}

/// `Pin` of the specification, in answers.
#[derive(Debug, Serialize)]
pub(super) struct Pin {
    cid: String,
    /// Absent if empty: validators of the specification refuse empty texts.
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    origins: Vec<String>,
    meta: BTreeMap<String, String>,
}

/// `PinStatus` of the specification.
#[derive(Debug, Serialize)]
pub(super) struct PinStatus {
    requestid: String,
    pub(super) status: Status,
    created: Time,
    pin: Pin,
    delegates: Vec<String>,
    /// Errors by peer name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    info: BTreeMap<String, String>,
}

impl PinStatus {
    pub(super) fn new(status: &GlobalPinInfo) -> Self {
        let holds = |peer: &&String| status.allocations.is_empty() || status.allocations.contains(peer);
        let holders = status.peer_map.iter().filter(|(peer, _)| holds(peer));
        let addresses = holders.flat_map(|(_, info)| &info.ipfs_peer_addresses);
        let error = |info: &PinInfoShort| {
            (!info.error.is_empty()).then(|| (format!("error_{}", info.peername), info.error.clone()))
        };
        Self {
            requestid: RequestId::text(status.created, &status.cid),
            status: Status::of(status),
            created: status.created,
            pin: Pin {
                cid: status.cid.clone(),
                name: status.name.clone(),
                origins: status.origins.clone(),
                meta: without_owners(&status.metadata),
            },
            delegates: addresses.take(DELEGATES_MAX).cloned().collect(),
            info: status.peer_map.values().filter_map(error).collect(),
        }
    }

    /// Replaces the status `failed` by `queued`.
    pub(super) fn or_queued(mut self) -> Self {
        if self.status == Status::Failed {
            self.status = Status::Queued;
        }
        self
    }
}

/// `PinResults` of the specification.
#[derive(Debug, Serialize)]
pub(super) struct PinResults {
    /// Number of all matches.
    pub(super) count: u64,
    /// The newest of them.
    pub(super) results: Vec<PinStatus>,
}

/// An error answer.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    details: String,
}

#[derive(Serialize)]
struct FailureBody<'a> {
    error: FailureReason<'a>,
}

#[derive(Serialize)]
struct FailureReason<'a> {
    reason: &'a str,
    details: &'a str,
}

impl Failure {
    pub(super) fn new(status: StatusCode, details: impl Into<String>) -> Self {
        Self {
            status,
            details: details.into(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response<Body> {
        let name = self.status.canonical_reason().unwrap_or("error");
        let reason = name.to_ascii_uppercase().replace(' ', "_");
        let mut response = answer::json(&FailureBody {
            error: FailureReason {
                reason: &reason,
                details: &self.details,
            },
        });
        *response.status_mut() = self.status;
        response
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        refusals::note_limit(Service::PinningService, &error);
        Self::new(answer::status(&error), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(statuses: &[TrackerStatus]) -> Status {
        let info = |(number, status): (usize, &TrackerStatus)| {
            let info = PinInfoShort {
                status: *status,
                ..PinInfoShort::default()
            };
            (number.to_string(), info)
        };
        Status::of(&GlobalPinInfo {
            peer_map: statuses.iter().enumerate().map(info).collect(),
            ..GlobalPinInfo::default()
        })
    }

    #[test]
    fn status_is_combined_from_all_peers() {
        use TrackerStatus::{ClusterError, PinError, PinQueued, Pinned, Pinning, Remote};
        assert_eq!(with(&[Pinned, Pinned, Remote]), Status::Pinned);
        assert_eq!(with(&[Pinned, Pinning]), Status::Pinning);
        assert_eq!(with(&[Pinned, PinQueued]), Status::Queued);
        assert_eq!(with(&[Pinned, PinError]), Status::Pinned);
        assert_eq!(with(&[PinError, Remote]), Status::Failed);
        assert_eq!(with(&[Remote, ClusterError]), Status::Queued);
    }

    #[test]
    fn request_ids_are_read_as_written() {
        let cid = "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN";
        let created: Time = "2026-11-29T10:00:00.123456789Z".parse().unwrap();
        let id: RequestId = RequestId::text(created, cid).parse().unwrap();
        assert!(id.is_of(created) && id.cid.to_string() == cid);
        for wrong in ["", "-", "12", "12-", "zz-Qm", cid] {
            assert_eq!(wrong.parse::<RequestId>(), Err(()), "{wrong}");
        }
    }
}
