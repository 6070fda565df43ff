//! Links between the documents of this repository lead somewhere.

use crate::cargo;
use std::path::{Path, PathBuf};

/// Links to files that do not exist, as "document: target".
pub(crate) fn broken() -> Vec<String> {
    let root = cargo::root();
    let mut documents = documents(root);
    for folder in ["docs", "docs/api", "docs/flags", "deploy", "deploy/chart"] {
        documents.extend(self::documents(&root.join(folder)));
    }
    documents.iter().flat_map(|document| broken_in(document)).collect()
}

fn documents(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.extension().is_some_and(|it| it == "md")).collect()
}

fn broken_in(document: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(document).unwrap_or_default();
    let folder = document.parent().unwrap_or(document);
    let elsewhere = |target: &&str| target.contains("://") || target.starts_with("mailto:");
    let targets = targets(&text).into_iter().filter(|target| !elsewhere(target));
    targets
        .filter(|target| {
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() { document.to_owned() } else { folder.join(path) };
            !path.exists() || !heading.is_empty() && !headings(&path).iter().any(|it| it == heading)
        })
        .map(|target| format!("{}: {target}", document.display()))
        .collect()
}

/// The headings of a document, as links name them.
fn headings(document: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(document).unwrap_or_default();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let name = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|it| it.is_alphanumeric() || " -_".contains(*it));
        kept.map(|it| if it == ' ' { '-' } else { it }).collect()
    };
    headings.map(name).collect()
}

/// What is between `](` and `)`.
fn targets(text: &str) -> Vec<&str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_a_missing_file_is_found() {
        assert_eq!(targets("see [a](b.md#c) and [d](https://e) and (f)"), ["b.md#c", "https://e"]);
        let dir = std::env::temp_dir().join(format!("holdfast-links-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let document = dir.join("a.md");
        std::fs::write(
            &document,
            "# It's `Here` 2\n[x](a.md) [y](b.md) [z](#its-here-2) [n](a.md#x)",
        )
        .unwrap();
        let broken = ["b.md", "a.md#x"].map(|it| format!("{}: {it}", document.display()));
        assert_eq!(broken_in(&document), broken);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
