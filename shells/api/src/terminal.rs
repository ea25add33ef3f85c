//! Escaping of foreign text for terminals.
//!
//! Names of pins and peers and error messages are chosen by others. Printed unescaped, an escape sequence
//! could recolour or erase the screen, a line feed could forge a line of output, and a bidirectional control
//! could reorder the characters around it. [`Escaping`] escapes all of them; [`json`] does so for JSON text
//! without changing its meaning.

use std::borrow::Cow;
use std::fmt;

/// Returns whether `c` controls a terminal instead of being shown: C0 controls, DEL, C1 controls, line and
/// paragraph separators, and the bidirectional controls ([Trojan Source](https://trojansource.codes)).
pub fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}')
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writer that escapes every control character: `\n`, `\r` and `\t` as such, all others like `\u001b`.
#[derive(Debug, Default)]
pub struct Escaping<W>(pub W);

impl<W: fmt::Write> fmt::Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_control(*c)) {
            self.0.write_str(&rest[..at])?;
            match c {
                '\n' => self.0.write_str("\\n")?,
                '\r' => self.0.write_str("\\r")?,
                '\t' => self.0.write_str("\\t")?,
                // All of them are below U+10000.
                c => write!(self.0, "\\u{:04x}", u32::from(c))?,
            }
            rest = &rest[at + c.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// Escapes all control characters, line feeds included: the result is one line.
pub fn line(text: impl fmt::Display) -> String {
    use fmt::Write;
    let mut out = Escaping(String::new());
    // Writing to a `String` cannot fail.
    let _ = write!(out, "{text}");
    out.0
}

/// Escapes all control characters but line feeds, for our own multi-line texts.
pub fn lines(text: impl fmt::Display) -> String {
    let text = text.to_string();
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Escapes the control characters that JSON allows inside strings. The meaning stays the same: outside
/// strings only line feeds, carriage returns and tabs occur, which are kept.
pub fn json(text: &str) -> Cow<'_, str> {
    let is_obeyed = |c: char| is_control(c) && !matches!(c, '\n' | '\r' | '\t');
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        if is_obeyed(c) {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_control_characters_are_escaped() {
        for (text, shown) in [
            ("a\nb\r\t", "a\\nb\\r\\t"),
            ("\u{1b}[2J\u{7}\u{0}", "\\u001b[2J\\u0007\\u0000"),
            ("\u{7f}\u{80}\u{9b}31m", "\\u007f\\u0080\\u009b31m"),
            ("\u{202e}gpj\u{2066}x\u{2069}", "\\u202egpj\\u2066x\\u2069"),
            ("\u{200f}\u{61c}\u{2028}", "\\u200f\\u061c\\u2028"),
            ("日本 é \\ \u{200d}👩‍💻", "日本 é \\ \u{200d}👩‍💻"),
        ] {
            assert_eq!(line(text), shown);
        }
        assert_eq!(lines("a\nb\u{1b}\n"), "a\nb\\u001b\n");
    }

    proptest::proptest! {
        #[test]
        fn escaped_json_means_the_same_without_controls(text in ".*[\u{7f}-\u{a0}\u{202a}-\u{2069}]?.*") {
            let written = serde_json::to_string(&text).unwrap();
            let escaped = json(&written);
            proptest::prop_assert!(!escaped.contains(is_control));
            proptest::prop_assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        }

        #[test]
        fn a_line_has_no_control_characters(text in proptest::arbitrary::any::<String>()) {
            proptest::prop_assert!(!line(&text).contains(is_control));
        }
    }
}
