//! A manifest of a plugin: what is accepted keeps the limits, and its canonical bytes mean the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mutirao_wire::PluginId;
use mutirao_wire::limits::{OPERATIONS_MAX, PLUGIN_FILES_MAX};
use mutirao_wire::plugin::{Manifest, is_plain_name};

fuzz_target!(|data: &[u8]| {
    let Ok(manifest) = Manifest::read(data) else { return };
    assert!((1..=PLUGIN_FILES_MAX).contains(&manifest.files.len()));
    assert!(manifest.operations.len() <= OPERATIONS_MAX);
    for file in &manifest.files {
        // It becomes the name of a file: never a way out of its directory.
        assert!(is_plain_name(&file.name) && !file.name.contains('/') && file.name != "..");
    }
    assert_eq!(Manifest::read(&manifest.canonical_bytes()).unwrap(), manifest);
    let _ = manifest.summary(PluginId([0; 32]));
});
