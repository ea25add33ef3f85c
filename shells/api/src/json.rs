//! JSON with Go's escaping: `<`, `>`, `&`, U+2028 and U+2029 inside strings become `\uXXXX`.
//!
//! Scripts that compare output byte for byte, and pages that embed it in HTML, rely on that.

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};
use std::io;

/// One line of JSON, without a line feed. Fails only if `value` cannot be JSON (a map with odd keys).
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(256);
    write(&mut out, value)?;
    Ok(out)
}

/// One line of JSON into `writer`, without a line feed.
pub fn write<W: io::Write, T: Serialize + ?Sized>(writer: W, value: &T) -> serde_json::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(
        writer,
        GoFormatter(CompactFormatter),
    ))
}

/// Many lines, nested by `indent`, as Go's `json.MarshalIndent(value, "", indent)` writes them.
pub fn to_string_indented<T: Serialize + ?Sized>(value: &T, indent: &str) -> serde_json::Result<String> {
    let mut out = Vec::with_capacity(512);
    let formatter = GoFormatter(PrettyFormatter::with_indent(indent.as_bytes()));
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))?;
    String::from_utf8(out).map_err(<serde_json::Error as serde::ser::Error>::custom)
}

/// Lays out JSON text anew, nested by `indent`, with every value kept as it is written and Go's escaping
/// added. `text` must be valid JSON; other text comes out garbled but never panics.
pub fn indent(text: &str, indent: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0_usize;
    let mut chars = text.chars().filter(NotSpace::default().keeper()).peekable();
    let mut in_string = false;
    let mut escaped = false;
    let new_line = |out: &mut String, depth: usize| {
        out.push('\n');
        (0..depth).for_each(|_| out.push_str(indent));
    };
    while let Some(c) = chars.next() {
        if in_string {
            match go_escape(c) {
                Some(escape) => out.push_str(escape),
                None => out.push(c),
            }
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '"' => {
                in_string = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                if let Some(close) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            other => out.push(other),
        }
    }
    out
}

/// Drops white space that stands outside strings.
#[derive(Default)]
struct NotSpace {
    in_string: bool,
    escaped: bool,
}

impl NotSpace {
    fn keeper(mut self) -> impl FnMut(&char) -> bool {
        move |c| {
            if self.in_string {
                self.in_string = self.escaped || *c != '"';
                self.escaped = !self.escaped && *c == '\\';
                return true;
            }
            self.in_string = *c == '"';
            !matches!(c, ' ' | '\n' | '\r' | '\t')
        }
    }
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

/// A formatter that escapes strings as Go does and leaves the layout to another.
struct GoFormatter<F>(F);

impl<F: Formatter> Formatter for GoFormatter<F> {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, w: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, escape)) = rest.char_indices().find_map(|(at, c)| Some((at, go_escape(c)?))) {
            w.write_all(&rest.as_bytes()[..at])?;
            w.write_all(escape.as_bytes())?;
            let mut after = rest[at..].chars();
            after.next();
            rest = after.as_str();
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

    #[test]
    fn indenting_nonsense_does_not_panic() {
        for text in ["", "}}}", "\"", "\"\\", "[", "{]", ",:"] {
            let _ = indent(text, " ");
        }
    }
}
