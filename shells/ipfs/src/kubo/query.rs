//! Query strings.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// All characters but those that no server can misread.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Builder of `?key=value&…`, with escaped values.
#[derive(Debug, Default)]
pub(super) struct Query(String);

impl Query {
    pub(super) fn new() -> Self {
        Query(String::new())
    }

    /// Adds one pair; keys may repeat.
    pub(super) fn with(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(key);
        self.0.push('=');
        self.0.extend(percent_encode(value.as_ref(), ESCAPED));
        self
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_and_keys_may_repeat() {
        let query = Query::new().with("arg", "/ip4/1.2.3.4").with("arg", "a&b=c d");
        assert_eq!(query.as_str(), "?arg=%2Fip4%2F1.2.3.4&arg=a%26b%3Dc%20d");
    }
}
