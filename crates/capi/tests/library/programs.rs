//! C programs, compiled as users would, against the library as it is installed.

use crate::support::{Linking, Scene, compile, node, root, succeed};
use std::path::Path;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Compiles and runs one of the examples; what it prints.
fn example(name: &str, linking: Linking, arguments: &[&str]) -> String {
    run(&root().join("examples/c").join(name), linking, Some(&node()), arguments)
}

fn run(source: &Path, linking: Linking, node: Option<&Path>, arguments: &[&str]) -> String {
    let scene = Scene::new();
    let program = compile(source, scene.directory.path(), linking);
    succeed(scene.command(&program, node).args(arguments), LONG)
}

fn own(name: &str) -> std::path::PathBuf {
    root().join("crates/capi/tests/c").join(name)
}

#[test]
fn wrong_arguments_are_errors() {
    run(&own("arguments.c"), Linking::Shared, None, &[]);
}

#[test]
fn calls_and_pools_may_end_in_any_order() {
    run(&own("lifetimes.c"), Linking::Shared, Some(&node()), &[]);
}

#[test]
fn square() {
    for linking in [Linking::Shared, Linking::Static, Linking::Archive] {
        assert_eq!(example("square.c", linking, &[]), "12 squared is 144\n");
    }
}

#[test]
fn the_shared_library_travels_with_a_program_called_from_the_command_line() {
    let scene = Scene::new();
    let program = compile(&root().join("examples/c/square.c"), scene.directory.path(), Linking::Shared);
    let input = scene.directory.path().join("input");
    std::fs::write(&input, 5i32.to_ne_bytes()).unwrap();
    let mut command = scene.command(&node(), Some(&node()));
    command.arg("call").arg(&program).args(["square", "--input"]).arg(&input);
    assert_eq!(succeed(&mut command, LONG).as_bytes(), 25i32.to_ne_bytes());
}

#[test]
fn many() {
    assert!(example("many.c", Linking::Shared, &[]).ends_with("78498 primes below 1000000\n"));
}

#[test]
fn events() {
    assert_eq!(example("events.c", Linking::Shared, &[]), "by descriptor: 380\nby function: 380\n");
}

#[test]
fn errors() {
    let told = example("errors.c", Linking::Static, &[]);
    assert!(told.contains("division by zero"), "{told}");
    assert!(told.contains("this program has a fault"), "the worker's last words are missing: {told}");
}

#[test]
fn grow() {
    assert!(example("grow.c", Linking::Shared, &[]).contains("with one: 1 leases"));
}

#[test]
fn mandelbrot() {
    let arguments = ["--size", "240", "--frame", "30", "--iterations", "300"];
    let told = example("mandelbrot.c", Linking::Shared, &arguments);
    assert!(told.contains("mandelbrot.png equals the sequential picture: yes"), "{told}");
}
