//! The header by itself, and beside what the library exports.

use crate::support::{WARNINGS, cc, prefix, root};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

fn header() -> String {
    text_of("mutirao.h")
}

fn text_of(header: &str) -> String {
    fs::read_to_string(root().join("crates/capi/include").join(header)).unwrap()
}

/// Compiles a text; what the compiler says against it.
fn complaints(mut compiler: Command, language: &str, standard: &str, text: &str) -> String {
    let mut child = compiler
        .args(WARNINGS)
        .args(["-x", language, standard, "-fsyntax-only", "-I"])
        .arg(root().join("crates/capi/include"))
        .arg("-")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{compiler:?} cannot be run: {error}"));
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.success(), output.stderr.is_empty());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Uses every macro that fills something.
const USE: &str = "#include <mutirao.h>\n#include <mutirao.h>\n\
    static int f(const void *arg, size_t size, mutirao_result *result) { return mutirao_result_set(result, arg, size); }\n\
    static void join(void *into, const void *from, size_t size, void *context) { (void)from; (void)size; (void)context; *(char *)into = 0; }\n\
    static int in_group(void)\n\
    {\n\
        mutirao_group *group; mutirao_channel *channel[1]; mutirao_bytes bytes; size_t index; char data[8];\n\
        mutirao_error_delete(mutirao_group_open(&group));\n\
        mutirao_error_delete(mutirao_group_input(group, 0, channel));\n\
        mutirao_error_delete(mutirao_channel_select(channel, 1, 100, &index));\n\
        mutirao_error_delete(mutirao_channel_receive(channel[0], -1, &bytes));\n\
        mutirao_bytes_delete(&bytes);\n\
        mutirao_error_delete(mutirao_group_reduce(group, 0, data, sizeof data, join, NULL));\n\
        mutirao_error_delete(mutirao_group_close(group));\n\
        return 0;\n\
    }\n\
    int main(int argc, char **argv)\n\
    {\n\
        static const mutirao_operation operations[] = {{\"f\", f, MUTIRAO_REPEATABLE}};\n\
        mutirao_options options = MUTIRAO_OPTIONS_INIT;\n\
        mutirao_request request = MUTIRAO_REQUEST_INIT;\n\
        mutirao_call_options call = MUTIRAO_CALL_OPTIONS_INIT;\n\
        mutirao_error_delete(mutirao_init(&argc, &argv, operations, 1));\n\
        return (int)(options.size + request.size + call.size) + in_group();\n\
    }\n";

/// Uses all of `spd.h`, as the sources have it.
const USE_SPD: &str = "#include <spd.h>\n#include <spd.h>\n\
    int main(void)\n\
    {\n\
        msg_type m = {0, 0};\n\
        if (open_spd() != 0 || sendc(0, &m) != 0 || a_sendc(1, &m) == SPD_EMODE) return spd_error()[0];\n\
        if (receivec(0, &m) != 0 || a_receivec(1, &m) == SPD_EMPTY) return 1;\n\
        return close_spd();\n\
    }\n";

/// Uses all of `ipar.h`.
const USE_IPAR: &str = "#include <ipar.h>\n#include <ipar.h>\n\
    int main(int argc, char **argv)\n\
    {\n\
        const char *tasks[] = {\"a\", \"b\"};\n\
        if (ipar_lista_tarefas(argv[1], tasks, 2) == IPAR_EMANAGER) return ipar_error()[0];\n\
        return ipar_tarefa(argv[1], argc, 1) + ipar_finaliza(argv[1], 1);\n\
    }\n";

#[test]
fn it_compiles_as_c_and_as_cpp_without_a_warning() {
    for standard in ["-std=c99", "-std=c11"] {
        assert_eq!(complaints(cc(), "c", standard, USE), "", "{standard}");
        assert_eq!(complaints(cc(), "c", standard, USE_SPD), "", "{standard}");
        assert_eq!(complaints(cc(), "c", standard, USE_IPAR), "", "{standard}");
    }
    let cxx = || Command::new(std::env::var_os("CXX").unwrap_or_else(|| "c++".into()));
    for standard in ["-std=c++11", "-std=c++17"] {
        assert_eq!(complaints(cxx(), "c++", standard, USE), "", "{standard}");
        assert_eq!(complaints(cxx(), "c++", standard, USE_SPD), "", "{standard}");
        assert_eq!(complaints(cxx(), "c++", standard, USE_IPAR), "", "{standard}");
    }
}

#[test]
fn a_wrong_use_is_noticed() {
    let wrong = USE.replace("mutirao_error_delete", "mutirao_close");
    assert!(complaints(cc(), "c", "-std=c11", &wrong).contains("mutirao_close"));
}

/// The functions that a header declares: names before a parenthesis, outside comments and macros.
fn declared(mut text: String) -> BTreeSet<String> {
    while let Some(start) = text.find("/*") {
        let end = text[start..].find("*/").expect("a comment ends") + start + 2;
        text.replace_range(start..end, "");
    }
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut names = BTreeSet::new();
    for line in lines {
        for (place, _) in line.match_indices('(') {
            let name = line[..place].rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
            if !name.is_empty() && line.starts_with(|c: char| c.is_ascii_lowercase()) {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

#[test]
fn the_shared_library_exports_what_the_header_declares_and_nothing_else() {
    let output = Command::new("nm")
        .args(["-D", "--defined-only", "-P"])
        .arg(prefix().join("lib/libmutirao.so"))
        .output()
        .expect("`nm` comes with the compiler");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let exported: BTreeSet<String> =
        text.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    let mut both = declared(header());
    both.extend(declared(text_of("spd.h")));
    both.extend(declared(text_of("ipar.h")));
    assert_eq!(exported, both);
    assert!(exported.contains("mutirao_call_start_many"));
}

#[test]
fn the_shared_library_is_asked_for_by_its_interface_version() {
    let output = Command::new("readelf").arg("-d").arg(prefix().join("lib/libmutirao.so")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("Library soname: [libmutirao.so.0]"), "{text}");
}

#[test]
fn its_version_is_that_of_the_package() {
    let header = header();
    let number = |part: &str| {
        let define = format!("#define MUTIRAO_VERSION_{part} ");
        header.lines().find_map(|line| line.strip_prefix(&define)).unwrap()
    };
    let version = format!("{}.{}.{}", number("MAJOR"), number("MINOR"), number("PATCH"));
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    assert!(prefix().join(format!("lib/libmutirao.so.{version}")).exists());
    assert_eq!(crate::support::flags("mutirao", &["--modversion"]).first(), Some(&version));
}
