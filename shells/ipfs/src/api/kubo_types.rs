//! Kubo's request and answer types that this API shares with the cluster's IPFS proxy.

use serde::Serialize;

/// Maximum length of a pin's name, in bytes. Kubo's limit; clients rely on the error.
pub const PIN_NAME_MAX: usize = 255;

/// Answer to `pin/add`, `pin/rm` and `pin/update`.
#[derive(Debug, Serialize)]
pub struct Pins {
    /// CIDs, in the base that the caller wants.
    #[serde(rename = "Pins")]
    pub pins: Vec<String>,
}

/// Kinds of pin that a listing includes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinKinds {
    /// Pins of whole DAGs.
    pub recursive: bool,
    /// Pins of single blocks.
    pub direct: bool,
    /// Blocks held because of a recursive pin above them.
    pub indirect: bool,
}

impl PinKinds {
    /// Parses the option `type`; `""` means all kinds.
    ///
    /// # Errors
    /// The kind is unknown; the text is Kubo's.
    pub fn parse(kind: &str) -> Result<Self, String> {
        let (recursive, direct, indirect) = match kind {
            "" | "all" | "any" => (true, true, true),
            "recursive" => (true, false, false),
            "direct" => (false, true, false),
            "indirect" => (false, false, true),
            other => {
                return Err(format!(
                    "invalid type '{other}', must be one of {{direct, indirect, recursive, all}}"
                ));
            }
        };
        Ok(Self {
            recursive,
            direct,
            indirect,
        })
    }
}

/// One pin in a streamed answer.
#[derive(Debug, Serialize)]
pub struct PinLine {
    /// CID, in the base that the caller wants.
    #[serde(rename = "Cid")]
    pub cid: String,
    /// Name of the pin; empty if the caller does not want names.
    #[serde(rename = "Name", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `recursive`, `direct`, `indirect`, or `indirect through <CID>`.
    #[serde(rename = "Type")]
    pub kind: String,
}

/// One pin in an answer of one object, where its CID is the key.
#[derive(Debug, Serialize)]
pub struct PinKey {
    /// As [`PinLine::kind`].
    #[serde(rename = "Type")]
    pub kind: String,
    /// As [`PinLine::name`].
    #[serde(rename = "Name")]
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_kinds_are_parsed_like_in_kubo() {
        let kinds = |recursive, direct, indirect| PinKinds {
            recursive,
            direct,
            indirect,
        };
        assert_eq!(PinKinds::parse(""), Ok(kinds(true, true, true)));
        assert_eq!(PinKinds::parse("all"), Ok(kinds(true, true, true)));
        assert_eq!(PinKinds::parse("indirect"), Ok(kinds(false, false, true)));
        let why = PinKinds::parse("x").unwrap_err();
        assert_eq!(
            why,
            "invalid type 'x', must be one of {direct, indirect, recursive, all}"
        );
    }
}
