//! A topology file of either form: one tree, which both forms give back, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mutirao_topology::{Topology, columns, document, draw};

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
            assert_eq!(columns::parse(&columns::write(&tree)).as_ref(), Ok(&tree));
            assert_eq!(document::parse(&document::write(&tree)).as_ref(), Ok(&tree));
            assert!(draw::svg(&tree).ends_with("</svg>\n"));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
