//! Query strings as Go's `net/url` reads them.

use percent_encoding::percent_decode;

/// Decodes `%XX` and `+`. The result need not be UTF-8. Returns `None` when a percent sign is not followed by
/// two hexadecimal digits.
pub fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut after_percent = text.split(|byte| *byte == b'%').skip(1);
    if !after_percent.all(|rest| rest.len() >= 2 && rest[..2].iter().all(u8::is_ascii_hexdigit)) {
        return None;
    }
    let spaced: Vec<u8> = text
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    Some(percent_decode(&spaced).collect())
}

/// Yields the decoded names and values of a query, in order. As in Go's `url.ParseQuery`, a pair with a
/// broken escape or a semicolon is left out.
pub fn pairs(query: &str) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> + '_ {
    let pairs = query
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.contains(';'));
    pairs.filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((unescape(name.as_bytes())?, unescape(value.as_bytes())?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_go_reads_them() {
        let read: Vec<_> = pairs("a=1&b=x+y%2Fz&a=2&broken=%zz&empty=&c;d=1&lone&&f%E9=v%").collect();
        let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        let expected = [
            pair("a", "1"),
            pair("b", "x y/z"),
            pair("a", "2"),
            pair("empty", ""),
            pair("lone", ""),
        ];
        assert_eq!(read, expected);
        assert_eq!(unescape(b"caf%E9"), Some(b"caf\xe9".to_vec()));
    }
}
