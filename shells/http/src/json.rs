//! JSON with Go's escaping: `<`, `>`, `&`, U+2028 and U+2029 inside strings become `\uXXXX`.
//!
//! Scripts that compare output byte by byte, and pages that embed it in HTML, rely on it.

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};
use std::io;

/// Serialises `value` on one line, without a line feed.
///
/// # Errors
/// Fails if `value` cannot be JSON: a map whose keys are not strings, or a failing `Serialize`.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(256);
    write(&mut out, value)?;
    Ok(out)
}

/// Serialises `value` on one line into `writer`, without a line feed.
///
/// # Errors
/// As for [`to_vec`]; also if `writer` fails.
pub fn write<W: io::Write, T: Serialize + ?Sized>(writer: W, value: &T) -> serde_json::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(
        writer,
        GoFormatter(CompactFormatter),
    ))
}

/// Serialises `value` indented by `indent`, like Go's `json.MarshalIndent(value, "", indent)`.
///
/// # Errors
/// As for [`to_vec`].
pub fn to_string_indented<T: Serialize + ?Sized>(value: &T, indent: &str) -> serde_json::Result<String> {
    let mut out = Vec::with_capacity(512);
    let formatter = GoFormatter(PrettyFormatter::with_indent(indent.as_bytes()));
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))?;
    String::from_utf8(out).map_err(<serde_json::Error as serde::ser::Error>::custom)
}

/// Reformats JSON text, indented by `indent`: values keep their notation, Go's escaping is added. `text` must
/// be valid JSON; other text gives a meaningless result, but no panic.
pub fn indent(text: &str, indent: &str) -> String {
    let bytes = text.as_bytes();
    let mut layout = Layout {
        out: String::with_capacity(text.len() * 2),
        indent,
        depth: 0,
    };
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'"' => {
                at = end_of_string(bytes, at);
                push_escaped(&mut layout.out, &text[start..at]);
            }
            b'{' | b'[' => {
                let next = at + bytes[at..].iter().take_while(|b| is_space(**b)).count();
                layout.out.push(char::from(*byte));
                match bytes.get(next) {
                    Some(close @ (b'}' | b']')) => {
                        layout.out.push(char::from(*close));
                        at = next + 1;
                    }
                    Some(_) | None => layout.new_line(1),
                }
            }
            b'}' | b']' => {
                layout.new_line(-1);
                layout.out.push(char::from(*byte));
            }
            b',' => {
                layout.out.push(',');
                layout.new_line(0);
            }
            b':' => layout.out.push_str(": "),
            space if is_space(*space) => {}
            // A number, `true`, `false` or `null`, up to its delimiter.
            _ => {
                let ends =
                    |b: &u8| is_space(*b) || matches!(b, b',' | b':' | b'{' | b'[' | b'}' | b']' | b'"');
                at += bytes[at..].iter().take_while(|b| !ends(b)).count();
                layout.out.push_str(&text[start..at]);
            }
        }
    }
    layout.out
}

/// Output of [`indent`] under construction.
struct Layout<'a> {
    out: String,
    indent: &'a str,
    depth: usize,
}

impl Layout<'_> {
    fn new_line(&mut self, deeper: isize) {
        self.depth = self.depth.saturating_add_signed(deeper);
        self.out.push('\n');
        for _ in 0..self.depth {
            self.out.push_str(self.indent);
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// Returns the index after the closing quote of the string whose content begins at `at`.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    loop {
        match bytes.get(at) {
            Some(b'\\') => at = (at + 2).min(bytes.len()),
            Some(b'"') => return at + 1,
            Some(_) => at += 1,
            None => return bytes.len(),
        }
    }
}

/// Appends `text` with Go's escaping.
fn push_escaped(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some((at, length, escape)) = next_escape(rest) {
        out.push_str(&rest[..at]);
        out.push_str(escape);
        rest = &rest[at + length..];
    }
    out.push_str(rest);
}

/// Returns whether text may have a character that Go escapes. Most has none, and this is quick.
fn may_need_escapes(text: &str) -> bool {
    let bytes = text.as_bytes();
    memchr::memchr3(b'<', b'>', b'&', bytes).is_some() || memchr::memchr(0xe2, bytes).is_some()
}

/// Returns the position, length and replacement of the first character that Go escapes.
fn next_escape(text: &str) -> Option<(usize, usize, &'static str)> {
    // All of them begin with one of these rare bytes, so the rest need not be decoded.
    let suspicious = |b: &u8| matches!(b, b'<' | b'>' | b'&' | 0xe2);
    let mut from = 0;
    while let Some(found) = text.as_bytes()[from..].iter().position(suspicious) {
        let at = from + found;
        let c = text[at..].chars().next()?;
        if let Some(escape) = go_escape(c) {
            return Some((at, c.len_utf8(), escape));
        }
        from = at + c.len_utf8();
    }
    None
}

fn go_escape(c: char) -> Option<&'static str> {
    match c {
        '<' => Some("\\u003c"),
        '>' => Some("\\u003e"),
        '&' => Some("\\u0026"),
        '\u{2028}' => Some("\\u2028"),
        '\u{2029}' => Some("\\u2029"),
        _ => None,
    }
}

/// Formatter that escapes strings as Go does and delegates the layout to `F`.
struct GoFormatter<F>(F);

impl<F: Formatter> Formatter for GoFormatter<F> {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, w: &mut W, fragment: &str) -> io::Result<()> {
        if !may_need_escapes(fragment) {
            return w.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some((at, length, escape)) = next_escape(rest) {
            w.write_all(&rest.as_bytes()[..at])?;
            w.write_all(escape.as_bytes())?;
            rest = &rest[at + length..];
        }
        w.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.begin_array(w)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_array(w)
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(w, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_array_value(w)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.begin_object(w)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_object(w)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(w, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.begin_object_value(w)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_object_value(w)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_strings_is_escaped_as_go_escapes_it() {
        let out = to_vec(&["<a href=\"x\">&</a>", "\u{2028}é\u{2029}", "\u{8}\u{1}"]).unwrap();
        let expected = r#"["\u003ca href=\"x\"\u003e\u0026\u003c/a\u003e","\u2028é\u2029","\b\u0001"]"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn indenting_text_equals_indenting_the_value() {
        let text = r#" {"a":[] ,"b": {},"c":[1,2.50, {"d":"x, {y}: \" \\"}],"e":null,"f<":"a & b"}"#;
        let laid_out = indent(text, "    ");
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        // `2.50` stays as written.
        assert_eq!(
            laid_out.replace("2.50", "2.5"),
            to_string_indented(&value, "    ").unwrap()
        );
        assert!(laid_out.contains("2.50"));
    }

    proptest::proptest! {
        #[test]
        fn indenting_changes_no_value(texts in proptest::collection::vec(".{0,9}", 0..4), n in -9_i64..9) {
            let value = serde_json::json!({"a": texts, "b": {"<": [n, null, {}, []]}, "é\u{2028}€": ""});
            let laid_out = indent(&serde_json::to_string(&value).unwrap(), "  ");
            proptest::prop_assert_eq!(&laid_out, &to_string_indented(&value, "  ").unwrap());
            proptest::prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&laid_out).unwrap(), value);
        }

        #[test]
        fn indenting_any_text_does_not_panic(text in "\\PC{0,30}") {
            let _ = indent(&text, " ");
        }
    }

    #[test]
    fn indenting_nonsense_does_not_panic() {
        for text in [
            "",
            "}}}",
            "\"é\\",
            "\\\"é",
            "{\"\\\u{e9}",
            "é]",
            "[ ",
            "\"\u{2028}",
            "\"",
            "\"\\",
            "[",
            "{]",
            ",:",
        ] {
            let _ = indent(text, " ");
        }
    }
}
