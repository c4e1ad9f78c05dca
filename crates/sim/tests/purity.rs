//! `text`, `wire`, `tree`, `schedule`, `group`, `bag` and `sim` do no I/O, read no clock, draw no random numbers and start
//! no threads: held by what they depend on, and by what of the standard library their sources name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const PURE: [&str; 7] = ["text", "wire", "tree", "schedule", "group", "bag", "sim"];

/// Crates they may use, procedural macros aside (those run in the compiler). Each is without I/O.
const CRATES: [&str; 28] = [
    "mutirao-text",
    "mutirao-wire",
    "mutirao-tree",
    "mutirao-schedule",
    "mutirao-group",
    "mutirao-bag",
    "mutirao-sim",
    "arrayvec",
    "blake3",
    "cfg-if",
    "cobs",
    "constant_time_eq",
    "cpufeatures",
    "itoa",
    "memchr",
    "postcard",
    "serde",
    "serde_core",
    "serde_json",
    "serde_spanned",
    "thiserror",
    "toml",
    "toml_datetime",
    "toml_parser",
    "toml_writer",
    "winnow",
    "zerocopy",
    "zmij",
];

/// Modules of `std` they may use. `core` has nothing else, and is not looked at.
const MODULES: [&str; 21] = [
    "any",
    "array",
    "borrow",
    "boxed",
    "cell",
    "cmp",
    "collections",
    "convert",
    "error",
    "fmt",
    "hash",
    "iter",
    "marker",
    "mem",
    "num",
    "ops",
    "rc",
    "slice",
    "str",
    "string",
    "vec",
];

/// Single things out of other modules.
const ITEMS: [&str; 6] =
    ["time::Duration", "net::IpAddr", "net::Ipv4Addr", "net::Ipv6Addr", "net::SocketAddr", "sync::Arc"];

/// What reaches outside without a path through `std`, or opens another way to it.
const WORDS: [&str; 11] = [
    "unsafe",
    "extern",
    "print!",
    "println!",
    "eprint!",
    "eprintln!",
    "dbg!",
    "thread_local!",
    "env!",
    "option_env!",
    "RandomState",
];

#[test]
fn the_pure_crates_depend_on_nothing_that_does_io() {
    for name in PURE {
        let package = format!("mutirao-{name}");
        let found = dependencies(&package);
        assert!(found.contains(&package), "cargo says nothing about {package}: {found:?}");
        let foreign: Vec<&String> = found.iter().filter(|one| !CRATES.contains(&one.as_str())).collect();
        assert!(foreign.is_empty(), "{package} must stay pure, but depends on {foreign:?}");
    }
}

#[test]
fn the_sources_of_the_pure_crates_name_nothing_that_does_io() {
    for name in PURE {
        let sources = root().join("crates").join(name).join("src");
        let files = rust_files(&sources);
        assert!(!files.is_empty(), "no sources below {}", sources.display());
        for file in files {
            let text = std::fs::read_to_string(&file).expect("the file was just listed");
            let found = impure(&text);
            assert!(found.is_empty(), "{} must stay pure, but names {found:?}", file.display());
        }
        // Without it, foreign functions could be called behind the list of words.
        let library = std::fs::read_to_string(sources.join("lib.rs")).expect("each has a lib.rs");
        assert!(library.contains("#![forbid(unsafe_code)]"), "{name} must forbid unsafe code");
    }
}

#[test]
fn impure_sources_are_found() {
    for (text, what) in [
        ("use std::fs;", "std::fs"),
        ("use std::{fmt, fs::File};", "std::fs::File"),
        ("use std::{\n    collections::{self, BTreeMap},\n    io::{Read},\n};", "std::io::Read"),
        ("let now = std::time::Instant::now();", "std::time::Instant::now"),
        ("use std::time::{Duration, SystemTime};", "std::time::SystemTime"),
        ("use std::net::TcpStream;", "std::net::TcpStream"),
        ("use std::net::UdpSocket as Anything;", "std::net::UdpSocket"),
        ("::std::thread::spawn(|| ());", "std::thread::spawn"),
        ("std::process::exit(1)", "std::process::exit"),
        ("std::env::var(\"HOME\")", "std::env::var"),
        ("use std::*;", "std::*"),
        ("use std as s;", "std"),
        ("use std::collections::hash_map::RandomState;", "RandomState"),
        ("places: HashMap<u32, u32>,", "HashMap<u32, u32>"),
        ("HashSet::<(u8, u8)>::default()", "HashSet<(u8, u8)>"),
        ("HashMap::new()", "HashMap::new"),
        ("println!(\"{x}\");", "println!"),
        ("unsafe { read() }", "unsafe"),
        ("let a = 1; // harmless\nlet b = std::os::fd::AsFd;", "std::os::fd::AsFd"),
    ] {
        assert_eq!(impure(text), [what], "{text}");
    }
}

#[test]
fn pure_sources_pass() {
    for text in [
        "use std::collections::{BTreeMap, VecDeque};",
        "use core::time::Duration; use std::{fmt, mem::take, time::Duration};",
        "use std::net::{IpAddr, SocketAddr};",
        "// std::fs would not do here\n/// nor `Instant::now`",
        "places: HashMap<u32, u32, BuildHasherDefault<Spread>>,",
        "let understood = the_std(threads); #![forbid(unsafe_code)]",
    ] {
        assert_eq!(impure(text), [""; 0], "{text}");
    }
}

/// All that `package` links, itself included. `cargo tree` rather than `cargo metadata`, which would
/// also want what other platforms and other crates of the workspace need to be there.
fn dependencies(package: &str) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--offline", "--package", package, "--edges", "normal,no-proc-macro"])
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names are UTF-8");
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("the directory of sources can be read") {
        let path = entry.expect("its entries too").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// What in a source text is not pure.
fn impure(text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let token = tokens[at];
        let next = |ahead: usize| tokens.get(at + ahead).copied().unwrap_or_default();
        let is_macro = next(1) == "!";
        if WORDS.contains(&token) || is_macro && WORDS.contains(&format!("{token}!").as_str()) {
            found.push(if is_macro { format!("{token}!") } else { token.to_owned() });
        } else if token == "std" && next(1) == "::" {
            let mut paths = Vec::new();
            at = read_paths(&tokens, at + 2, "", &mut paths);
            let forbidden = paths.into_iter().filter(|path| !may(path));
            found.extend(forbidden.map(|path| match path.contains("RandomState") {
                true => "RandomState".into(),
                false => format!("std::{path}"),
            }));
            continue;
        } else if token == "std" {
            found.push("std".into());
        } else if ["HashMap", "HashSet"].contains(&token) {
            found.extend(drawn_order(token, &tokens[at + 1..]));
        }
        at += 1;
    }
    found
}

fn may(path: &str) -> bool {
    let module = path.split("::").next().unwrap_or_default();
    MODULES.contains(&module) && !path.contains("RandomState") || ITEMS.contains(&path)
}

/// Reads the paths that begin at `tokens[at]`, in braces or not; returns where they end.
fn read_paths(tokens: &[&str], mut at: usize, before: &str, paths: &mut Vec<String>) -> usize {
    if tokens.get(at) == Some(&"{") {
        at += 1;
        while at < tokens.len() && tokens[at] != "}" {
            at = read_paths(tokens, at, before, paths);
            if tokens.get(at) == Some(&"as") {
                at += 2;
            }
            if tokens.get(at) == Some(&",") {
                at += 1;
            }
        }
        return at + 1;
    }
    let Some(token) = tokens.get(at) else { return at };
    let path = if before.is_empty() { (*token).to_owned() } else { format!("{before}::{token}") };
    if tokens.get(at + 1) == Some(&"::") && tokens.get(at + 2) != Some(&"<") {
        return read_paths(tokens, at + 2, &path, paths);
    }
    paths.push(path);
    at + 1
}

/// A hash table whose order is drawn at random: made by `new`, or without a hasher among its types.
fn drawn_order(table: &str, after: &[&str]) -> Option<String> {
    let after = match after {
        ["::", "<", ..] => &after[1..],
        ["::", "new" | "with_capacity", ..] => return Some(format!("{table}::{}", after[1])),
        _ => after,
    };
    if after.first() != Some(&"<") {
        return None;
    }
    let (mut depth, mut commas, mut types) = (0, 0, String::new());
    for token in after {
        match *token {
            "<" | "(" | "[" => depth += 1,
            ">" | ")" | "]" => depth -= 1,
            "," if depth == 1 => commas += 1,
            _ => {}
        }
        types += token;
        if *token == "," {
            types.push(' ');
        }
        if depth == 0 {
            break;
        }
    }
    let with_hasher = if table == "HashMap" { 2 } else { 1 };
    (commas < with_hasher).then(|| format!("{table}{types}"))
}

/// Words, `::` and single signs; comments left out. Texts in quotes count as code, which errs on the
/// strict side.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    for line in text.lines() {
        // A slash pair after a colon is an address in a text.
        let end = line.match_indices("//").find(|(i, _)| !line[..*i].ends_with(':')).map(|(i, _)| i);
        let mut rest = line[..end.unwrap_or(line.len())].trim_start();
        while let Some(first) = rest.chars().next() {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let length = match first {
                c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
                ':' if rest.starts_with("::") => 2,
                c => c.len_utf8(),
            };
            let (token, after) = rest.split_at(length);
            tokens.push(token);
            rest = after.trim_start();
        }
    }
    tokens
}
