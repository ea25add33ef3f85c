//! What Kubo asks and answers, for whoever speaks in its place: this API, and the cluster's proxy.

use serde::Serialize;

/// The longest name of a pin, in bytes: Kubo's limit, which clients rely on being told.
pub const PIN_NAME_MAX: usize = 255;

/// An error.
#[derive(Debug, Serialize)]
pub struct ErrorBody<'a> {
    #[serde(rename = "Message")]
    message: &'a str,
    #[serde(rename = "Code")]
    code: u8,
    #[serde(rename = "Type")]
    kind: &'static str,
}

impl<'a> ErrorBody<'a> {
    /// Of a command that was understood, and failed.
    pub fn failed(message: &'a str) -> Self {
        ErrorBody {
            message,
            code: 0,
            kind: "error",
        }
    }
}

/// The answer to `pin/add`, `pin/rm` and `pin/update`.
#[derive(Debug, Serialize)]
pub struct Pins {
    /// In the base that the caller wants.
    #[serde(rename = "Pins")]
    pub pins: Vec<String>,
}

/// Which kinds of pin a listing is to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinKinds {
    /// Pins of whole DAGs.
    pub recursive: bool,
    /// Pins of single blocks.
    pub direct: bool,
    /// What is held because a recursive pin above holds it.
    pub indirect: bool,
}

impl PinKinds {
    /// Reads the option `type`; without one, all kinds are meant.
    ///
    /// # Errors
    /// There is no such kind, in Kubo's words.
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

/// One pin of an answer in lines.
#[derive(Debug, Serialize)]
pub struct PinLine {
    /// In the base that the caller wants.
    #[serde(rename = "Cid")]
    pub cid: String,
    /// Empty when the caller does not want names.
    #[serde(rename = "Name", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `recursive`, `direct`, `indirect`, or `indirect through <CID>`.
    #[serde(rename = "Type")]
    pub kind: String,
}

/// One pin of an answer in one piece, where its CID is the key.
#[derive(Debug, Serialize)]
pub struct PinKey {
    /// As in [`PinLine`].
    #[serde(rename = "Type")]
    pub kind: String,
    /// As in [`PinLine`].
    #[serde(rename = "Name")]
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_those_of_kubo() {
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
