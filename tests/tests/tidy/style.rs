//! Style of code and documentation, as CONTRIBUTING.md describes it. The sources are read line by line, as
//! rustfmt lays them out.

use std::path::Path;

use super::{assert_none, root, shown, sources};

/// Columns of a line, so that two files fit side by side.
const COLUMNS_MAX: usize = 110;

/// Lines of a file.
const LINES_MAX: usize = 800;

/// Lines of a function, so that it fits on a screen.
const FUNCTION_LINES_MAX: usize = 70;

/// Doc comments that may open with a question word, in percent. Some sentences need it.
const QUESTIONS_MAX: usize = 1;

const QUESTION_WORDS: [&str; 10] = [
    "what", "who", "whom", "whose", "which", "how", "when", "where", "why", "whether",
];

/// Order of the standard derives. Others follow.
const DERIVES: [&str; 9] = [
    "Debug",
    "Clone",
    "Copy",
    "Default",
    "PartialEq",
    "Eq",
    "PartialOrd",
    "Ord",
    "Hash",
];

/// Folders of the library crates, whose public functions document their errors.
const LIBRARIES: [&str; 6] = [
    "core/src/",
    "shells/api/src/",
    "shells/ipfs/src/",
    "shells/service/src/",
    "sim/src/",
    "tests/src/",
];

/// A Rust file.
struct Source {
    /// Path below the root.
    path: String,
    lines: Vec<String>,
}

impl Source {
    /// Reads all files of the workspace.
    fn all() -> Vec<Self> {
        let read = |path: &std::path::PathBuf| Self {
            path: shown(path),
            lines: std::fs::read_to_string(path)
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect(),
        };
        sources(&root()).iter().map(read).collect()
    }

    fn of(lines: &[&str]) -> Self {
        Self {
            path: "core/src/example.rs".to_owned(),
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        }
    }

    /// Formats the place of a line, given by its index.
    fn at(&self, index: usize) -> String {
        format!("{}:{}", self.path, index + 1)
    }

    /// Returns the doc comments: the index of the first line, its text, and the number of lines.
    fn docs(&self) -> Vec<(usize, &str, usize)> {
        let mut found: Vec<(usize, &str, usize)> = Vec::new();
        let mut inside = false;
        for (index, line) in self.lines.iter().enumerate() {
            match (doc_text(line), inside) {
                (Some(text), false) if !text.is_empty() => found.push((index, text, 1)),
                (Some(_), true) => found.iter_mut().last().into_iter().for_each(|doc| doc.2 += 1),
                (Some(_), false) | (None, _) => {}
            }
            inside = doc_text(line).is_some();
        }
        found
    }

    /// Returns the functions with a body or a declaration.
    fn functions(&self) -> Vec<Function> {
        let lines = self.lines.iter().enumerate();
        lines
            .filter_map(|(index, line)| self.function(index, line))
            .collect()
    }

    fn function(&self, start: usize, line: &str) -> Option<Function> {
        let (indent, code) = split_indent(line);
        let (qualifiers, rest) = code.split_once("fn ")?;
        let is_qualifier =
            |word: &str| matches!(word, "pub" | "const" | "async" | "unsafe") || word.starts_with("pub(");
        if !qualifiers.split_whitespace().all(is_qualifier) {
            return None;
        }
        let name = rest.split(['(', '<']).next().unwrap_or_default().to_owned();
        let ends = |line: &String| {
            let (depth, code) = split_indent(line);
            depth == indent && (code.ends_with('}') || code.ends_with(';'))
        };
        let length = self.lines[start..].iter().position(ends)? + 1;
        let all = self.lines[start..start + length].join(" ");
        let signature = all.split(['{', ';']).next().unwrap_or_default();
        Some(Function {
            start,
            public: qualifiers.split_whitespace().next() == Some("pub"),
            length,
            returns: return_type(signature).unwrap_or_default(),
            documents_errors: self.lines[..start]
                .iter()
                .rev()
                .take_while(|line| {
                    doc_text(line).is_some() || !line.is_empty() && !line.ends_with(['{', '}', ';'])
                })
                .any(|line| line.contains("# Errors")),
            name,
        })
    }
}

/// A function, with what the rules need.
struct Function {
    /// Index of its first line.
    start: usize,
    name: String,
    public: bool,
    length: usize,
    returns: String,
    documents_errors: bool,
}

impl Function {
    /// Returns whether it returns a `Result` with a value or an error of its own, unlike `fmt::Result`.
    fn can_fail(&self) -> bool {
        let path = self.returns.split('<').next().unwrap_or_default().trim();
        path.ends_with("Result") && !path.ends_with("fmt::Result")
    }
}

/// Splits a line into the length of its indentation and its code.
fn split_indent(line: &str) -> (usize, &str) {
    let code = line.trim_start();
    (line.len() - code.len(), code.trim_end())
}

/// Returns the text of a line of a doc comment.
fn doc_text(line: &str) -> Option<&str> {
    let code = line.trim_start();
    let text = code.strip_prefix("///").or(code.strip_prefix("//!"))?;
    (!text.starts_with('/')).then(|| text.trim())
}

/// Returns the text after the parameter list's arrow, without a `where` clause.
fn return_type(signature: &str) -> Option<String> {
    let (_, rest) = signature.split_once("fn ")?;
    let (mut angles, mut parentheses) = (0, 0);
    let mut previous = ' ';
    for (at, character) in rest.char_indices() {
        match character {
            '<' if parentheses == 0 => angles += 1,
            '>' if parentheses == 0 && previous != '-' => angles -= 1,
            '(' if angles == 0 => parentheses += 1,
            ')' if angles == 0 => {
                parentheses -= 1;
                if parentheses == 0 {
                    let after = rest[at + 1..].trim().strip_prefix("->")?;
                    return after.split(" where ").next().map(|text| text.trim().to_owned());
                }
            }
            _ => {}
        }
        previous = character;
    }
    None
}

fn is_test_or_example(path: &str) -> bool {
    Path::new(path).components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        matches!(&*part, "tests" | "examples" | "tests.rs" | "testing.rs")
    })
}

#[test]
fn lines_and_files_are_not_too_long() {
    let mut wrong = Vec::new();
    for source in Source::all() {
        let lines = source.lines.len();
        if lines > LINES_MAX {
            wrong.push(format!("{}: {lines} lines, at most {LINES_MAX}", source.path));
        }
        for (index, line) in source.lines.iter().enumerate() {
            let columns = line.chars().count();
            // Tests and examples quote responses, which rustfmt does not break.
            let quotes = line.contains('"') && is_test_or_example(&source.path);
            if columns > COLUMNS_MAX && !quotes {
                let at = source.at(index);
                wrong.push(format!("{at}: {columns} columns, at most {COLUMNS_MAX}"));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn functions_are_not_too_long() {
    let mut wrong = Vec::new();
    for source in Source::all() {
        let functions = source.functions().into_iter();
        for function in functions.filter(|function| function.length > FUNCTION_LINES_MAX) {
            let (at, name, length) = (source.at(function.start), &function.name, function.length);
            wrong.push(format!(
                "{at}: {name} has {length} lines, at most {FUNCTION_LINES_MAX}"
            ));
        }
    }
    assert_none(&wrong);
}

/// Docs open with a noun phrase or a verb: "Deadline of the request", "Returns …".
#[test]
fn docs_do_not_open_with_question_words() {
    let (mut total, mut questions) = (0, Vec::new());
    for source in Source::all() {
        for (index, text, _) in source.docs() {
            total += 1;
            let word: String = text.chars().take_while(|letter| letter.is_alphabetic()).collect();
            if QUESTION_WORDS.contains(&word.to_lowercase().as_str()) {
                questions.push(format!("{}: {text}", source.at(index)));
            }
        }
    }
    if questions.len() * 100 > total * QUESTIONS_MAX {
        questions.push(format!("of {total}, at most {QUESTIONS_MAX} %"));
        assert_none(&questions);
    }
}

/// A single word only repeats the name. A link or a code span may be enough.
#[test]
fn docs_have_more_than_one_word() {
    let mut wrong = Vec::new();
    for source in Source::all() {
        for (index, text, lines) in source.docs() {
            if lines == 1 && text.split_whitespace().count() < 2 && !text.contains(['`', '[']) {
                wrong.push(format!("{}: {text}", source.at(index)));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn public_functions_of_libraries_document_their_errors() {
    let mut wrong = Vec::new();
    for source in Source::all() {
        if !LIBRARIES.iter().any(|folder| source.path.starts_with(folder)) {
            continue;
        }
        let functions = source.functions().into_iter();
        let functions = functions.filter(|function| function.public && function.can_fail());
        for function in functions.filter(|function| !function.documents_errors) {
            let at = source.at(function.start);
            wrong.push(format!("{at}: {} has no section `# Errors`", function.name));
        }
    }
    assert_none(&wrong);
}

/// Returns the derived traits of a line, if they are not in the order of [`DERIVES`].
fn disordered(line: &str) -> Option<&str> {
    let derived = line.trim().strip_prefix("#[derive(")?.strip_suffix(")]")?;
    let names = derived.split(',').map(|path| path.trim().rsplit("::").next());
    let ranks: Vec<usize> = names
        .map(|name| {
            DERIVES
                .iter()
                .position(|known| Some(*known) == name)
                .unwrap_or(DERIVES.len())
        })
        .collect();
    (!ranks.is_sorted()).then_some(derived)
}

#[test]
fn derives_are_in_one_order() {
    let mut wrong = Vec::new();
    for source in Source::all() {
        for (index, line) in source.lines.iter().enumerate() {
            let derived = disordered(line).into_iter();
            wrong.extend(derived.map(|derived| format!("{}: derives {derived}", source.at(index))));
        }
    }
    assert_none(&wrong);
}

/// Limits sort beside what they limit: `FRAME_MAX`, not `MAX_FRAME`.
#[test]
fn limits_end_in_max() {
    let mut wrong = Vec::new();
    for source in Source::all() {
        for (index, line) in source.lines.iter().enumerate() {
            let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
            let declares = matches!(words.next(), Some("const" | "static"));
            if declares && words.next().is_some_and(|name| name.starts_with("MAX_")) {
                wrong.push(format!("{}: {}", source.at(index), line.trim()));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn functions_and_docs_are_parsed() {
    let lines = [
        "/// Opens it.",
        "///",
        "/// # Errors",
        "/// Fails;",
        "#[must_use]",
        "pub fn open<F: Fn() -> u8>(",
        "    f: F,",
        ") -> io::Result<u8>",
        "where",
        "    F: Copy,",
        "{",
        "    f()",
        "}",
        "",
        "pub(crate) fn none(a: (u8, u8)) {}",
        "impl A {",
        "    /// Text.",
        "    pub async fn next(&self) -> Option<Result<u8, E>> {",
        "    }",
        "}",
    ];
    let source = Source::of(&lines);
    let functions = source.functions();
    let seen: Vec<_> = functions
        .iter()
        .map(|it| {
            (
                it.name.as_str(),
                it.public,
                it.length,
                it.can_fail(),
                it.documents_errors,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("open", true, 8, true, true),
            ("none", false, 1, false, false),
            ("next", true, 2, false, false),
        ]
    );
    assert_eq!(source.docs(), [(0, "Opens it.", 4), (16, "Text.", 1)]);
    assert_eq!(disordered("#[derive(Clone, Debug)]"), Some("Clone, Debug"));
    assert_eq!(disordered("#[derive(Debug, Eq, serde::Serialize)]"), None);
}
