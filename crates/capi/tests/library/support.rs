//! What the tests of the installed library share: an installation in a temporary directory, a compiler, a clock.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Where cargo puts what it builds with this profile.
pub fn build_directory() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).expect("tests are built in a directory below").to_owned()
}

/// A built file; panics with what to do if it is missing.
fn built(name: &str, package: &str) -> PathBuf {
    let file = build_directory().join(name);
    assert!(file.exists(), "{} is missing; build it first: cargo build -p {package}", file.display());
    file
}

/// The library as `contrib/install-library.sh` lays it out, once a test program.
pub fn prefix() -> &'static Path {
    static PREFIX: OnceLock<TempDir> = OnceLock::new();
    PREFIX.get_or_init(install).path()
}

fn install() -> TempDir {
    let library = built("libmutirao_c.so", "mutirao-capi");
    built("libmutirao_c.a", "mutirao-capi");
    let built_at = library.metadata().unwrap().modified().unwrap();
    assert!(
        newest(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) <= built_at,
        "{} is older than its sources; build it first: cargo build -p mutirao-capi",
        library.display()
    );
    let prefix = tempfile::tempdir().unwrap();
    let done = Command::new(root().join("contrib/install-library.sh"))
        .args([&build_directory(), prefix.path(), prefix.path()])
        .output()
        .unwrap();
    assert!(done.status.success(), "install-library.sh: {}", String::from_utf8_lossy(&done.stderr));
    prefix
}

fn newest(directory: &Path) -> SystemTime {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
    files.map(|facts| facts.modified().unwrap()).max().unwrap()
}

/// What pkg-config says about a package of the installation. Where it is not installed the file is read here
/// instead, and the test says so.
pub fn flags(package: &str, options: &[&str]) -> Vec<String> {
    let directory = prefix().join("lib/pkgconfig");
    let asked = Command::new("pkg-config")
        .env("PKG_CONFIG_PATH", &directory)
        .env("PKG_CONFIG_ALLOW_SYSTEM_CFLAGS", "1")
        .args(options)
        .arg(package)
        .output();
    let text = match asked {
        Ok(output) => {
            assert!(output.status.success(), "pkg-config: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        }
        Err(error) => {
            eprintln!("pkg-config cannot be run ({error}): {package}.pc is read without it");
            read_package(&directory.join(package).with_extension("pc"), options)
        }
    };
    text.split_whitespace().map(str::to_owned).collect()
}

fn read_package(file: &Path, options: &[&str]) -> String {
    let text = fs::read_to_string(file).unwrap();
    let mut variables: Vec<(String, String)> = Vec::new();
    let mut wanted = String::new();
    for line in text.lines() {
        let expanded = variables
            .iter()
            .fold(line.to_owned(), |line, (name, value)| line.replace(&format!("${{{name}}}"), value));
        if let Some((key, value)) = expanded.split_once(": ") {
            let is_wanted = match key {
                "Cflags" => options.contains(&"--cflags"),
                "Libs" => options.contains(&"--libs"),
                "Libs.private" => options.contains(&"--libs") && options.contains(&"--static"),
                _ => false,
            };
            if is_wanted {
                wanted += &format!("{value} ");
            }
        } else if let Some((name, value)) = expanded.split_once('=') {
            variables.push((name.to_owned(), value.to_owned()));
        }
    }
    wanted
}

/// The warnings that programs have to do without.
pub const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// The C compiler.
pub fn cc() -> Command {
    Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()))
}

/// How a program gets the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linking {
    /// From the shared library.
    Shared,
    /// From `mutirao-static`.
    Static,
    /// By naming the archive, and `--static` of the usual package for what it needs.
    Archive,
}

/// Compiles a program of one file.
pub fn compile(source: &Path, into: &Path, linking: Linking) -> PathBuf {
    let program = into.join(source.file_stem().unwrap());
    let mut command = cc();
    command.args(WARNINGS).args(["-std=c11", "-O2"]).arg(source).arg("-o").arg(&program);
    match linking {
        Linking::Shared => {
            let mut path = OsString::from("-Wl,-rpath,");
            path.push(prefix().join("lib"));
            command.args(flags("mutirao", &["--cflags", "--libs"])).arg(path)
        }
        Linking::Static => command.args(flags("mutirao-static", &["--cflags", "--libs"])),
        Linking::Archive => {
            let others = flags("mutirao", &["--cflags", "--libs", "--static"]);
            command
                .arg(prefix().join("lib/libmutirao.a"))
                .args(others.into_iter().filter(|flag| flag != "-lmutirao"))
        }
    };
    let done = command.output().expect("a C compiler is needed, `cc` or what CC names");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{} ({linking:?}): {said}", source.display());
    program
}

/// A directory of its own for a program and for the private node it starts.
pub struct Scene {
    pub directory: TempDir,
}

impl Scene {
    pub fn new() -> Scene {
        Scene { directory: tempfile::tempdir().unwrap() }
    }

    /// A program that finds no daemon, and this node for a private one; `None` for none at all.
    pub fn command(&self, program: &Path, node: Option<&Path>) -> Command {
        let here = self.directory.path();
        let mut command = Command::new(program);
        for variable in ["MUTIRAO_SOCKET", "MUTIRAO_NODE", "MUTIRAO_POOL"] {
            command.env_remove(variable);
        }
        command
            .current_dir(here)
            .env("MUTIRAO_HOME", here.join("home"))
            .env("MUTIRAO_RUNTIME_DIR", here.join("run"))
            .env("MUTIRAO_BIN", node.unwrap_or(Path::new("/nonexistent/mutirao")));
        command
    }
}

/// The program that is also the node.
pub fn node() -> PathBuf {
    match std::env::var_os("MUTIRAO_BIN") {
        Some(named) => named.into(),
        None => built("mutirao", "mutirao-cli"),
    }
}

/// Runs a program that is to succeed within this time.
pub fn succeed(command: &mut Command, within: Duration) -> String {
    let Output { status, stdout, stderr } = run(command, within);
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}{stderr}");
    stdout.into_owned()
}

fn run(command: &mut Command, within: Duration) -> Output {
    let output = tempfile::tempdir().unwrap();
    let file = |name: &str| fs::File::create(output.path().join(name)).unwrap();
    let mut child =
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap();
    let read = |name: &str| fs::read(output.path().join(name)).unwrap();
    let end = Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Output { status, stdout: read("stdout"), stderr: read("stderr") };
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            let (stdout, stderr) = (read("stdout"), read("stderr"));
            let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
            panic!("{command:?} took longer than {within:?}; it said:\n{said}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
