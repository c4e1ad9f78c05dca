//! ipar applications in Java: how they are started, and the bridge that carries their reports.

use super::ipar::text;
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// The bridge, compiled where it is first used.
const SOURCES: [(&str, &str); 4] = [
    ("InterfaceGerente.java", include_str!("../../../../contrib/ipar-java/InterfaceGerente.java")),
    ("Bridge.java", include_str!("../../../../contrib/ipar-java/mutirao/ipar/Bridge.java")),
    ("MemorySockets.java", include_str!("../../../../contrib/ipar-java/mutirao/ipar/MemorySockets.java")),
    ("Report.java", include_str!("../../../../contrib/ipar-java/mutirao/ipar/Report.java")),
];

/// Whether a file is for Java to run.
pub fn runs(app: &Path) -> bool {
    app.extension().is_some_and(|kind| kind == "class" || kind == "jar")
}

/// The command that runs an application, and the files it needs beside it.
pub fn command(directory: &Path, file: &str) -> Result<(Vec<String>, Vec<String>)> {
    if file.contains(':') {
        bail!("{file}: Java reads `:` as the end of a name; give the application another");
    }
    let bridge = bridge(directory)?;
    let (found, mut files) = match file.ends_with(".jar") {
        true => (file, vec![file.to_owned()]),
        false => (".", classes(directory)?),
    };
    // The application comes first: its own classes are the ones it means.
    let words = ["java", "-cp", &format!("{found}:{bridge}"), "mutirao.ipar.Bridge", file].map(str::to_owned);
    files.push(bridge);
    Ok((words.to_vec(), files))
}

/// The classes of a directory, all of which an application may be made of.
fn classes(directory: &Path) -> Result<Vec<String>> {
    let failed = || format!("cannot list {}", directory.display());
    let mut classes = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(failed)? {
        let name = entry.with_context(failed)?.file_name();
        if Path::new(&name).extension() == Some(OsStr::new("class")) {
            classes.push(format!("./{}", text(&name)?));
        }
    }
    Ok(classes)
}

/// The bridge beside the application, compiled unless it is there.
fn bridge(directory: &Path) -> Result<String> {
    let mut hash = blake3::Hasher::new();
    SOURCES.iter().for_each(|(_, source)| {
        hash.update(source.as_bytes());
    });
    let name = format!("ipar-java-{}.jar", &hash.finalize().to_hex()[..8]);
    let jar = directory.join(&name);
    if !jar.is_file() {
        let failed = || format!("the bridge for Java cannot be put into {}", directory.display());
        let scratch = tempfile::tempdir_in(directory).with_context(failed)?;
        let made = scratch.path().join(&name);
        let classes = scratch.path().join("classes");
        let mut compile = Command::new("javac");
        compile.args(["--release", "11", "-d"]).arg(&classes);
        for (source, text) in SOURCES {
            let source = scratch.path().join(source);
            std::fs::write(&source, text).with_context(failed)?;
            compile.arg(source);
        }
        run(&mut compile)?;
        run(Command::new("jar").arg("cf").arg(&made).arg("-C").arg(&classes).arg("."))?;
        std::fs::rename(made, &jar).with_context(failed)?;
    }
    Ok(format!("./{name}"))
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let output = command.output().with_context(|| {
        format!("applications in Java need `java`, `javac` and `jar`, of a JDK 11 or later; {program} cannot be run")
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("the bridge for Java cannot be made, {program} says: {}", said.trim());
    }
    Ok(())
}
