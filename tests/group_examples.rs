//! The examples of groups, in C and in Rust, with their application files, over real daemons.

mod lab;

use lab::Lab;
use std::path::{Path, PathBuf};

/// An application file of the examples, put beside the programs that it names.
fn application(lab: &Lab, name: &str) -> String {
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/groups").join(name).with_extension("toml");
    let file = lab.file(&format!("{name}.toml"), std::fs::read(source).unwrap());
    file.to_str().unwrap().to_owned()
}

/// Puts the Rust program of that name, built with the workspace, beside the application file.
fn in_rust(lab: &Lab, name: &str) -> PathBuf {
    let built = Path::new(Lab::binary()).with_file_name(name);
    assert!(built.exists(), "{} is missing: run `cargo build --workspace` first", built.display());
    let program = lab.path(name);
    std::os::unix::fs::symlink(built, &program).unwrap();
    program
}

fn in_c(lab: &Lab, name: &str) -> PathBuf {
    lab.compile(&format!("group/{name}"))
}

/// Runs the examples in a language, and judges what each says.
fn run_all(lab: &Lab, language: impl Fn(&Lab, &str) -> PathBuf) {
    let examples: [(&str, &[&str], &str); 3] = [
        ("pipeline", &["--", "2000"], "sum.0: sum of squares: 2668667000\n"),
        ("ring", &[], "first.0: 4 processes\n"),
        ("farm", &["--", "30"], "master.0: 3245 primes below 30000\n"),
    ];
    for (name, more, says) in examples {
        language(lab, name);
        let file = application(lab, name);
        let said = lab.run(["group", "run", &file].iter().chain(more));
        assert_eq!((said.code, said.out.as_str()), (Some(0), says), "{}", said.err);
    }
}

#[test]
fn a_pipeline_a_ring_and_a_farm_run_in_c() {
    run_all(&Lab::with_pool(2, 3), in_c);
}

#[test]
fn a_pipeline_a_ring_and_a_farm_run_in_rust() {
    run_all(&Lab::with_pool(2, 3), in_rust);
}

#[test]
fn stages_in_c_and_in_rust_are_of_one_pipeline() {
    let lab = Lab::with_pool(2, 2);
    std::fs::rename(in_c(&lab, "pipeline"), lab.path("in-c")).unwrap();
    std::fs::rename(in_rust(&lab, "pipeline"), lab.path("in-rust")).unwrap();
    let text = std::fs::read_to_string(application(&lab, "pipeline")).unwrap();
    let stages = text.split("[program.").enumerate();
    let language = |i: usize| if i.is_multiple_of(2) { "\"in-c\"" } else { "\"in-rust\"" };
    let mixed: Vec<String> = stages.map(|(i, stage)| stage.replace("\"pipeline\"", language(i))).collect();
    let file = lab.file("mixed.toml", mixed.join("[program."));
    let said = lab.run(["group", "run", file.to_str().unwrap()]);
    assert_eq!(said.out, "sum.0: sum of squares: 333833500\n", "{}", said.err);
}

#[test]
fn collectives_and_supersteps_run_in_c() {
    let lab = Lab::with_pool(2, 3);
    in_c(&lab, "pi");
    let said = lab.run(["group", "run", &application(&lab, "pi")]);
    assert_eq!(said.out, "pi.0: pi is 3.141592654\n", "{}", said.err);
    assert_eq!(said.err.matches(" of waiting\n").count(), 4, "{}", said.err);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/capi/tests/c/collectives.c");
    lab.compile(source.to_str().unwrap());
    for size in [1, 2, 5] {
        let text = format!(
            "[group]\ncollectives = true\n[program.all]\nexecutable = \"collectives\"\ninstances = {size}\n"
        );
        let said = lab.run(["group", "run", lab.file("all.toml", text).to_str().unwrap()]);
        assert_eq!(said.code, Some(0), "{size}: {}\n{}", said.out, said.err);
    }
}
