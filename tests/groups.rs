//! Groups of processes joined by channels.

mod lab;

use lab::Lab;
use std::os::unix::fs::PermissionsExt;

const MANDEL: &str = "\
P n1
T xmandel 1 1 1
T gmandel 2 1 1
L xmandel 0 . n1 -2.5
L gmandel 0 . n1
L gmandel 1 . n1
C xmandel 0 0 = gmandel 0 0 , gmandel 1 0
C gmandel 0 0 , gmandel 1 0 = xmandel 0 0
";

/// Writes an executable into the room.
fn script(lab: &Lab, name: &str, text: &str) {
    let path = lab.file(name, format!("#!/bin/sh\n{text}\n"));
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_file_is_checked_and_drawn_without_a_pool() {
    let lab = Lab::new();
    let file = lab.file("mandel.app", MANDEL);
    let file = file.to_str().unwrap();
    let check = |more: &[&str]| lab.run(["group", "check", file].iter().chain(more));
    let complaint = check(&[]).complaint();
    assert_eq!(complaint.lines().count(), 2, "each file once: {complaint}");
    assert!(complaint.contains("mandel.app:4:13: `./xmandel` is not there: build it"), "{complaint}");
    script(&lab, "xmandel", "");
    lab.file("gmandel", "");
    let said = check(&["--output", "json"]);
    assert_eq!(said.code, Some(1));
    let rows: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&rows["problems"][0]["line"], &rows["problems"][0]["column"]), (&5.into(), &13.into()));
    assert!(rows["problems"][0]["text"].as_str().unwrap().contains("chmod +x"), "{rows}");
    script(&lab, "gmandel", "");
    assert_eq!(check(&[]).well(), "");
    assert_eq!(check(&["--output", "json"]).json()["processes"], 3);
    assert!(
        check(&["--draw", "text"]).well().starts_with("xmandel.0 on n1\n└─ 0 ─▶ gmandel.0:0 | gmandel.1:0")
    );
    assert!(check(&["--draw", "dot"]).well().starts_with("digraph"));
    assert!(check(&["--draw", "svg"]).well().ends_with("</svg>\n"));
}
