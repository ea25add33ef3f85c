//! Query strings, parsed and encoded as Go's `net/url` does.

use std::fmt::Write;

use cluster_http::query;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode, utf8_percent_encode};

/// Characters that Go's `url.QueryEscape` escapes.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b' ');

/// Characters that Go escapes in the path of a URL.
const PATH_ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// Parsed query string: names and values in their original order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

/// Error of a parameter. The REST API responds with its text and status 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The value is not of the parameter's type, or not one of its values.
    #[error("parameter {name} invalid: {value:?} is not {expected}")]
    Invalid {
        /// Name of the parameter.
        name: &'static str,
        /// Value as given.
        value: String,
        /// Description of valid values.
        expected: &'static str,
    },
    /// `expire-at` is not a time.
    #[error("expire-at cannot be parsed: {0}")]
    ExpireAt(crate::time::ParseTimeError),
    /// `expire-in` is not a duration.
    #[error("expire-in cannot be parsed: {0}")]
    ExpireIn(cluster_http::ParseDurationError),
    /// `expire-in` is below one second.
    #[error("expire-in duration too short")]
    ExpireInTooShort,
    /// An origin is not a multiaddress.
    #[error("error decoding multiaddress: {0:?} does not begin with a slash")]
    OriginNotMultiaddress(String),
    /// An origin has no peer id.
    #[error("multiaddress does not contain peer ID: {0:?} has no /p2p/ part")]
    OriginWithoutPeer(String),
}

impl Query {
    /// Parses the text after the question mark. Pairs with broken escapes are skipped, as in Go.
    pub fn parse(query: &str) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let decoded = query::pairs(query).map(|(name, value)| (text(name), text(value)));
        Self {
            pairs: decoded.collect(),
        }
    }

    /// Returns the first value of `name`, unless it is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let first = self.pairs.iter().find(|(n, _)| n == name)?;
        Some(first.1.as_str()).filter(|value| !value.is_empty())
    }

    /// Replaces all values of `name` with `value`.
    pub fn set(&mut self, name: impl Into<String>, value: impl ToString) {
        let name = name.into();
        self.pairs.retain(|(n, _)| *n != name);
        self.pairs.push((name, value.to_string()));
    }

    /// Iterates over all names and values in their original order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Encodes the text after the question mark, sorted by name.
    pub fn encode(&self) -> String {
        let mut sorted: Vec<_> = self.pairs.iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        let mut out = String::new();
        for (name, value) in sorted {
            if !out.is_empty() {
                out.push('&');
            }
            // Writing to a `String` cannot fail.
            let _ = write!(out, "{}={}", escape(name), escape(value));
        }
        out
    }

    /// Parses a boolean in any of Go's spellings; `default` if absent.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] for any other text.
    pub fn bool(&self, name: &'static str, default: bool) -> Result<bool, QueryError> {
        match self.get(name) {
            None => Ok(default),
            Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
            Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
            Some(value) => Err(QueryError::Invalid {
                name,
                value: value.to_owned(),
                expected: "true or false",
            }),
        }
    }

    /// Parses an integer; `default` if absent.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] if the value is not a number, or out of range.
    pub fn number<N: std::str::FromStr>(&self, name: &'static str, default: N) -> Result<N, QueryError> {
        self.get(name).map_or(Ok(default), |value| {
            let expected = "a whole number in range";
            value.parse().map_err(|_| QueryError::Invalid {
                name,
                value: value.to_owned(),
                expected,
            })
        })
    }
}

/// Escapes one name or value of a query: a space becomes `+`.
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string().replace(' ', "+")
}

/// Escapes bytes that need not be UTF-8, like [`escape`].
pub(crate) fn escape_bytes(bytes: &[u8]) -> String {
    percent_encode(bytes, ESCAPED).to_string().replace(' ', "+")
}

/// Escapes a URL's path, leaving its slashes.
pub fn escape_path(path: impl AsRef<[u8]>) -> String {
    percent_encode(path.as_ref(), PATH_ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn queries_are_parsed_as_in_go() {
        let query = Query::parse("a=1&b=x+y%2Fz&a=2&broken=%zz&empty=&c;d=1&lone&&%c3%28=v");
        assert_eq!(query.get("a"), Some("1"));
        assert_eq!(query.get("b"), Some("x y/z"));
        assert_eq!(query.get("broken"), None);
        assert_eq!(query.get("empty"), None);
        assert_eq!(query.get("lone"), None);
        assert_eq!(query.iter().count(), 6);
    }

    #[test]
    fn queries_are_written_sorted_and_escaped() {
        let mut query = Query::default();
        query.set("name", "a b&c=d/é~");
        query.set("local", false);
        query.set("name", "a b&c=d/é~");
        assert_eq!(query.encode(), "local=false&name=a+b%26c%3Dd%2F%C3%A9~");
    }

    #[test]
    fn invalid_numbers_and_booleans_name_the_parameter() {
        let query = Query::parse("n=abc&b=yes&i=-1");
        assert_eq!(query.number("i", 0_i32), Ok(-1));
        assert!(query.number("i", 0_u64).is_err());
        let error = query.number("n", 0_i32).unwrap_err().to_string();
        assert!(error.starts_with("parameter n invalid"), "{error}");
        assert!(
            query
                .bool("b", false)
                .unwrap_err()
                .to_string()
                .contains("\"yes\"")
        );
    }

    proptest! {
        #[test]
        fn every_query_reads_back(pairs in proptest::collection::btree_map(".{1,8}", ".{0,8}", 0..6)) {
            let mut query = Query::default();
            for (name, value) in &pairs {
                query.set(name.clone(), value);
            }
            let back = Query::parse(&query.encode());
            let got: Vec<_> = back.iter().collect();
            let expected: Vec<_> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            prop_assert_eq!(got, expected);
        }

        #[test]
        fn no_query_panics(text in "\\PC{0,60}") {
            let _ = Query::parse(&text).encode();
        }
    }
}
