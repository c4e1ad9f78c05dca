//! A topology file: one tree, or an error that names the line.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// The daemon's own module, taken by itself, so that the daemon need not be built.
#[path = "../../crates/node/src/topology.rs"]
#[allow(dead_code)]
mod topology;

use topology::Topology;

fuzz_target!(|text: &str| {
    match Topology::parse(text) {
        Ok(tree) => {
            let mut seen = std::collections::BTreeSet::new();
            for node in tree.nodes() {
                assert!(tree.contains(node) && seen.insert(node), "{node} is there twice");
                match tree.parent(node) {
                    Some(parent) => assert!(seen.contains(parent), "{node} comes before its parent"),
                    None => assert_eq!(node, tree.root()),
                }
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
