//! What the documents name is there: the tests and items of SPECIFICATION.md, and the files that any page links to.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Files below a directory with one of these endings; what was built is left out.
fn below(directory: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            if name != "target" && !name.starts_with('.') {
                below(&path, endings, found);
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
}

/// What stands between two of these marks, of each line.
fn between<'a>(text: &'a str, open: &str, close: char) -> Vec<&'a str> {
    text.lines()
        .flat_map(|line| line.split(open).skip(1))
        .filter_map(|rest| Some(rest.split_once(close)?.0))
        .collect()
}

#[test]
fn the_specification_names_tests_and_items_that_exist() {
    let text = fs::read_to_string(root().join("SPECIFICATION.md")).unwrap();
    let (mut files, mut known) = (Vec::new(), BTreeSet::new());
    below(&root(), &[".rs", ".c", ".java", ".sh", "Makefile"], &mut files);
    for file in &files {
        known.insert(file.file_stem().unwrap().to_str().unwrap().to_owned());
        known.extend(file.parent().and_then(|parent| Some(parent.file_name()?.to_str()?.to_owned())));
        let source = fs::read_to_string(file).unwrap_or_default();
        let words = source.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
        known.extend(words.map(str::to_owned));
    }
    let is_name = |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c));
    // Every second piece is what stands between two ticks.
    let ticked = text.lines().filter(|line| line.starts_with('|'));
    let ticked = ticked.flat_map(|line| line.split('`').skip(1).step_by(2)).filter(is_name);
    let names: Vec<&str> = ticked.filter_map(|name| name.rsplit("::").next()).collect();
    assert!(names.len() > 100, "the table is not read as it is written any more");
    let missing: Vec<&&str> = names.iter().filter(|name| !known.contains(**name)).collect();
    assert!(missing.is_empty(), "SPECIFICATION.md names what is not there: {missing:?}");
}

#[test]
fn pages_link_to_files_that_exist() {
    let mut pages = Vec::new();
    below(&root(), &[".md"], &mut pages);
    let mut links = 0;
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for link in between(&text, "](", ')') {
            let path = link.split('#').next().unwrap_or_default();
            if path.is_empty() || link.contains("://") {
                continue;
            }
            links += 1;
            let there = page.parent().unwrap().join(path);
            assert!(there.exists(), "{} links to {link}, which is not there", page.display());
        }
    }
    assert!(links > 50, "links are not read as they are written any more");
}
