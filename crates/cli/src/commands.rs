//! Commands on leased slots: the operation that runs one in a worker, and how a command is put together here.

use mutirao::raw::{Failure, OperationEntry, retire};
use mutirao_runner::{Command, Ended, Home, Leaving, Place, Program, Runner};
use mutirao_wire::stream::failure;
use mutirao_wire::worker::PLACE_ENV;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The operation that runs a [`Command`] and returns how it [`Ended`].
pub const RUN_COMMAND: &str = "run_command";

/// The only shells that are taken from the environment: they understand what the quoting here says.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ksh", "mksh", "zsh", "ash"];
const SHELL: &str = "/bin/sh";

/// What a shell does itself, and may do otherwise than the program of that name.
const SHELLS_OWN: [&[u8]; 46] = [
    b".",
    b":",
    b"[",
    b"alias",
    b"bg",
    b"break",
    b"builtin",
    b"case",
    b"cd",
    b"command",
    b"continue",
    b"do",
    b"echo",
    b"eval",
    b"exec",
    b"exit",
    b"export",
    b"fg",
    b"for",
    b"function",
    b"getopts",
    b"hash",
    b"if",
    b"jobs",
    b"kill",
    b"let",
    b"local",
    b"printf",
    b"pwd",
    b"read",
    b"readonly",
    b"return",
    b"select",
    b"set",
    b"shift",
    b"source",
    b"test",
    b"time",
    b"times",
    b"trap",
    b"type",
    b"ulimit",
    b"umask",
    b"unset",
    b"until",
    b"while",
];

/// The operation, for the table of this program.
pub fn operation() -> OperationEntry {
    OperationEntry { name: RUN_COMMAND.into(), repeatable: false, run: Box::new(run) }
}

fn run(argument: &[u8], result: &mut Vec<u8>) -> Result<(), Failure> {
    static RUNNER: Mutex<Option<Runner>> = Mutex::new(None);
    let command = Command::decode(argument)
        .map_err(|error| Failure { code: failure::BAD_ARGUMENT, text: format!("no command: {error}") })?;
    let mut runner = RUNNER.lock().unwrap_or_else(PoisonError::into_inner);
    let ended = match &mut *runner {
        Some(runner) => runner.run(&command),
        none => match ready() {
            Ok(runner) => none.insert(runner).run(&command),
            Err(error) => Ended::not_started(format!("this worker cannot run commands: {error}")),
        },
    };
    if ended.left_behind {
        retire();
    }
    result.extend_from_slice(&ended.encode());
    Ok(())
}

/// The runner of this worker.
fn ready() -> io::Result<Runner> {
    let place = std::env::var(PLACE_ENV).map(|text| Place::parse(&text)).unwrap_or_default();
    Runner::new(std::env::current_dir()?, place, Leaving::Tells)
}

/// What a user who runs a command has around.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The directory and the environment.
    pub home: Home,
    shell: Vec<u8>,
}

impl Surroundings {
    /// Those of this process.
    pub fn here() -> io::Result<Surroundings> {
        let home = Home {
            directory: std::env::current_dir()?.as_os_str().as_bytes().to_vec(),
            environment: std::env::vars_os().collect(),
            umask: umask(),
        };
        let named = std::env::var_os("SHELL").filter(|shell| {
            let name = Path::new(shell).file_name().unwrap_or_default();
            SHELLS.iter().any(|known| name == *known)
        });
        let shell = named.map_or_else(|| SHELL.into(), |shell| shell.as_bytes().to_vec());
        Ok(Surroundings { home, shell })
    }

    /// How a command line is executed: by the shell, or at once where that would do nothing else.
    pub fn program(&self, line: &[u8]) -> Program {
        plain_words(line)
            .map_or_else(|| Program::Shell { shell: self.shell.clone(), text: line.to_vec() }, Program::Words)
    }
}

/// The words of a command line in which a shell has nothing to do but to split it at blanks and to take the
/// quotes off.
fn plain_words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words: Vec<Vec<u8>> = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut rest = line;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b' ' => words.extend(word.take()),
            b'\'' => {
                let end = rest.iter().position(|&byte| byte == b'\'')?;
                word.get_or_insert_default().extend_from_slice(&rest[..end]);
                rest = &rest[end + 1..];
            }
            byte if byte.is_ascii_alphanumeric() || b"_-.+/:,@%".contains(&byte) => {
                word.get_or_insert_default().push(byte);
            }
            _ => return None,
        }
    }
    words.extend(word.take());
    let own = SHELLS_OWN.contains(&words.first()?.as_slice());
    (!own && !words[0].is_empty()).then_some(words)
}

/// The mask for new files of this process, which the system tells without its being changed.
pub fn umask() -> Option<u32> {
    let facts = std::fs::read_to_string("/proc/self/status").ok()?;
    let mask = facts.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(mask.trim(), 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Option<Vec<String>> {
        let words = plain_words(line.as_bytes())?;
        Some(words.into_iter().map(|word| String::from_utf8(word).unwrap()).collect())
    }

    #[test]
    fn a_shell_is_left_out_only_where_it_would_do_nothing() {
        assert_eq!(words("true"), Some(vec!["true".into()]));
        assert_eq!(
            words("  gzip -9  a/b.c 'it is' "),
            Some(["gzip", "-9", "a/b.c", "it is"].map(Into::into).into())
        );
        assert_eq!(words("cp a'b c'd ''"), Some(["cp", "ab cd", ""].map(Into::into).into()));
        for shell in [
            "echo a", "cd /", "a | b", "A=1 b", "a > b", "a $HOME", "ls *", "a; b", "a\nb", "~/x", "a 'b",
            "", "\"a\"", "'' a",
        ] {
            assert_eq!(words(shell), None, "{shell}");
        }
    }
}
