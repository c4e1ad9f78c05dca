//! C programs, compiled as users would, against the library as it is installed.

use crate::support::{Linking, Scene, compile, node, root, succeed};
use std::path::Path;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(180);

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
fn a_program_doubles_its_slots_and_halves_them_again() {
    let scene = Scene::new();
    let source = root().join("examples/c/resize.c");
    let program = compile(&source, scene.directory.path(), Linking::Shared);
    let told = succeed(scene.command(&program, Some(&node())).arg("4"), LONG);
    assert!(told.contains("; see resize.svg"), "{told}");
    let picture = std::fs::read_to_string(scene.directory.path().join("resize.svg")).unwrap();
    assert_eq!(picture.matches("<polyline").count(), 2, "{picture}");
    assert!(
        picture.ends_with("</svg>\n") && !picture.contains("nan") && !picture.contains("inf"),
        "{picture}"
    );
}

#[test]
fn a_running_program_grows_and_shrinks_by_order_and_hears_of_it_if_it_wants() {
    let scene = Scene::new();
    let program = compile(&own("resized.c"), scene.directory.path(), Linking::Shared);
    let run = |arguments: &[&str]| {
        let mut command = scene.command(&node(), Some(&node()));
        succeed(command.args(arguments).env("MUTIRAO_NODE", "n1"), LONG)
    };
    run(&["up", "--local", "2", "--slots", "2"]);
    let outcome = std::panic::catch_unwind(|| {
        let mut command = scene.command(&program, None);
        // It waits for the orders, which come from the very command line.
        command.env("MUTIRAO_NODE", "n1").arg(node());
        succeed(&mut command, LONG)
    });
    run(&["down", "--all"]);
    let told = outcome.unwrap();
    assert!(told.ends_with("every call was answered\n"), "{told}");
}

#[test]
fn mandelbrot() {
    let arguments = ["--size", "240", "--frame", "30", "--iterations", "300"];
    let told = example("mandelbrot.c", Linking::Shared, &arguments);
    assert!(told.contains("mandelbrot.png equals the sequential picture: yes"), "{told}");
}
