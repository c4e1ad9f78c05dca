//! A host file, or a matrix of round trips: what `ssh` is given is a host and no option, and every matrix
//! gives a tree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mutirao_topology::hosts::{HostFile, NameFrom};
use mutirao_topology::matrix::Matrix;
use mutirao_topology::{Topology, near};

fuzz_target!(|text: &str| {
    for from in [NameFrom::Host, NameFrom::Full, NameFrom::Number] {
        if let Ok(file) = HostFile::parse(text, from) {
            for host in &file.hosts {
                let strange = |c: char| c.is_whitespace() || c.is_control() || ";'\"$`\\&|<>".contains(c);
                assert!(!host.target.starts_with('-') && !host.host().starts_with('-'));
                assert!(!host.target.contains(strange));
            }
        }
    }
    if let Ok(matrix) = Matrix::parse(text) {
        let parents = near::by_latency(&matrix, None, 4);
        let tree = Topology::of(matrix.names(), &parents).expect("a tree");
        assert!(tree.fan_out() <= 4);
    }
});
