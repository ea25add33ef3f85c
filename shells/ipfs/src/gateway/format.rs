//! Negotiation of the format of an answer: the parameter `format` wins over the header `Accept`
//! ([IPIP-523](https://specs.ipfs.tech/ipips/ipip-0523/)).

use hyper::header::{self, HeaderMap};

use super::failure::Refusal;

/// A format other than that of the content itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Raw,
    Car,
    Tar,
    Json,
    Cbor,
    DagJson,
    DagCbor,
    IpnsRecord,
}

const FORMATS: [(Format, &str, &str); 8] = [
    (Format::Raw, "raw", "application/vnd.ipld.raw"),
    (Format::Car, "car", "application/vnd.ipld.car"),
    (Format::Tar, "tar", "application/x-tar"),
    (Format::Json, "json", "application/json"),
    (Format::Cbor, "cbor", "application/cbor"),
    (Format::DagJson, "dag-json", "application/vnd.ipld.dag-json"),
    (Format::DagCbor, "dag-cbor", "application/vnd.ipld.dag-cbor"),
    (
        Format::IpnsRecord,
        "ipns-record",
        "application/vnd.ipfs.ipns-record",
    ),
];

impl Format {
    fn row(self) -> (Format, &'static str, &'static str) {
        let found = FORMATS.iter().find(|(format, ..)| *format == self);
        found.copied().unwrap_or(FORMATS[0])
    }

    /// Returns the value of the parameter `format`.
    pub(super) fn name(self) -> &'static str {
        self.row().1
    }

    pub(super) fn media_type(self) -> &'static str {
        self.row().2
    }
}

/// A requested format with the parameters of its media type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Requested {
    /// `None`: the content as it is.
    pub(super) format: Option<Format>,
    pub(super) parameters: Vec<(String, String)>,
}

impl Requested {
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Returns the format that a request asks for.
pub(super) fn requested(parameter: Option<&str>, headers: &HeaderMap) -> Result<Requested, Refusal> {
    let accepted = accepted(headers)?;
    let by_name = parameter.and_then(|name| FORMATS.iter().find(|(_, known, _)| *known == name));
    match by_name {
        Some((format, ..)) if accepted.format == Some(*format) => Ok(accepted),
        Some((format, ..)) => Ok(Requested {
            format: Some(*format),
            parameters: Vec::new(),
        }),
        None => Ok(accepted),
    }
}

/// Returns the first known format in `Accept`. Browsers accept `*/*` and the like, which means no format.
fn accepted(headers: &HeaderMap) -> Result<Requested, Refusal> {
    let values = headers.get_all(header::ACCEPT).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    for value in values.flat_map(|value| value.split(',')) {
        let mut parts = value.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        if let Some((format, ..)) = FORMATS.iter().find(|(.., known)| *known == media_type) {
            let parameter = |part: &str| {
                let (name, value) = part.split_once('=')?;
                let value = value.trim().trim_matches('"');
                Some((name.trim().to_ascii_lowercase(), value.to_owned()))
            };
            return Ok(Requested {
                format: Some(*format),
                parameters: parts.filter_map(parameter).collect(),
            });
        }
        if media_type.starts_with("application/vnd.ipld") || media_type.starts_with("application/vnd.ipfs") {
            return Err(Refusal::bad_request(format!("unsupported format {media_type:?}")));
        }
    }
    Ok(Requested::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())])
    }

    #[test]
    fn parameter_wins_over_accept_and_keeps_its_parameters_if_equal() {
        let accept = headers("text/html, application/vnd.ipld.car; order=dfs;dups=\"y\", */*");
        let car = requested(None, &accept).unwrap();
        assert_eq!(car.format, Some(Format::Car));
        assert_eq!(
            (car.parameter("order"), car.parameter("dups")),
            (Some("dfs"), Some("y"))
        );
        assert_eq!(requested(Some("car"), &accept).unwrap(), car);
        let raw = requested(Some("raw"), &accept).unwrap();
        assert_eq!((raw.format, raw.parameters.len()), (Some(Format::Raw), 0));
    }

    #[test]
    fn browsers_ask_for_no_format_and_unknown_ones_are_refused() {
        let browser = headers("text/html,application/xhtml+xml,*/*;q=0.8");
        assert_eq!(requested(None, &browser).unwrap(), Requested::default());
        assert_eq!(
            requested(Some("unknown"), &browser).unwrap(),
            Requested::default()
        );
        assert_eq!(
            requested(None, &headers("application/vnd.ipld.x"))
                .unwrap_err()
                .status,
            400
        );
    }
}
