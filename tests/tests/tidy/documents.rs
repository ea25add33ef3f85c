//! Markdown documents: the files that they name exist.

use std::path::{Path, PathBuf};

use super::{assert_none, folders, root, shown};

/// Lists the Markdown files of a folder.
fn documents(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect()
}

/// Returns the targets of relative links in a line.
fn links(line: &str) -> Vec<String> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let targets = targets.filter(|target| !target.contains("://"));
    let files = targets.filter_map(|target| target.split('#').next());
    files.filter(|file| !file.is_empty()).map(str::to_owned).collect()
}

/// Returns the paths of this repository that a line has between backquotes, patterns excepted.
fn quoted_paths<'a>(line: &'a str, top: &[String]) -> Vec<&'a str> {
    let quoted = line.split('`').skip(1).step_by(2);
    let words = quoted.flat_map(str::split_whitespace);
    words
        .filter(|word| !word.contains(['*', '…', '<', ':']))
        .filter(|word| {
            word.split_once('/')
                .is_some_and(|(first, _)| top.iter().any(|folder| folder == first))
        })
        .collect()
}

#[test]
fn files_named_in_documents_exist() {
    let mut wrong = Vec::new();
    let mut top: Vec<String> = folders(&root()).iter().map(|path| shown(path)).collect();
    top.extend([".ci", ".cargo"].map(str::to_owned));
    for folder in [root(), root().join("docs"), root().join("sim")] {
        for document in documents(&folder) {
            let text = std::fs::read_to_string(&document).unwrap();
            for (number, line) in text.lines().enumerate() {
                let at = format!("{}:{}", shown(&document), number + 1);
                let missing = links(line).into_iter().filter(|file| !folder.join(file).exists());
                wrong.extend(missing.map(|file| format!("{at}: the link to {file} leads nowhere")));
                let paths = quoted_paths(line, &top);
                let exists = |path: &&str| root().join(path).exists() || folder.join(path).exists();
                let missing = paths.into_iter().filter(|path| !exists(path));
                wrong.extend(missing.map(|path| format!("{at}: there is no {path}")));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn links_and_paths_are_found() {
    let top = ["core".to_owned()];
    assert_eq!(
        links("[a](b.md#c), [d](#e), [f](https://g.h), [i](j/k)"),
        ["b.md", "j/k"]
    );
    assert_eq!(
        quoted_paths("`core/a.rs`, `cat core/b`, core/c, `core/*`, `other/d`", &top),
        ["core/a.rs", "core/b"]
    );
}
