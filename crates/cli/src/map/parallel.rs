//! Options of GNU parallel and `xargs` that `mutirao map` has not: what there is instead.

/// Their names, and what to do.
const INSTEAD: [(&[&str], &str); 17] = [
    (
        &["-u", "--ungroup", "--lb", "--line-buffer"],
        "what a job writes is printed when it has ended, whole, so that jobs do not mix",
    ),
    (&["-X", "-m", "--xargs", "-L", "-l", "--max-lines"], "`-n N` gives N arguments to each job"),
    (
        &["-S", "--sshlogin", "--slf", "--sshloginfile", "--onall", "--nonall"],
        "jobs run on the nodes of a pool, which `mutirao up --hosts FILE` makes over ssh",
    ),
    (
        &["-q", "--quote", "--shellquote"],
        "arguments are quoted for the shell already; quote the command once, as one word",
    ),
    (&["-I", "-i", "--replace"], "an argument is put where {} stands, or at the end"),
    (
        &["-d", "--delimiter"],
        "arguments are lines, or end with a zero byte (`-0`); `--colsep` splits them into {1}, {2}",
    ),
    (&["-v", "-t", "--verbose"], "`--joblog FILE` writes down each command; `--dry-run` prints them all"),
    (
        &["--load", "--memfree", "--memsuspend", "--noswap", "--nice"],
        "owners of nodes say when and how much they lend, in node.toml; `mutirao bag` has tasks with `memory`",
    ),
    (&["--pipepart", "--pipe-part", "--cat", "--fifo"], "`--pipe` gives each job its part on standard input"),
    (&["--files", "--compress", "--tmpdir"], "`--results DIR` puts outputs into files"),
    (&["--will-cite", "--no-notice", "--group"], "leave it out: that is how it is anyway"),
    (&["--link", "--xapply"], "`:::+` and `::::+` go in step with the source before"),
    (
        &["-s", "--max-chars", "-E"],
        "a command is as long as its arguments make it, which are taken up to the last",
    ),
    (
        &["--round-robin", "--recstart", "--recend"],
        "`--pipe` cuts its input at line ends, a part for each job",
    ),
    (
        &["--rpl", "--plus"],
        "there are {} {.} {/} {//} {/.} {#} {%} and {1}, {2.}, ...; the shell can do more",
    ),
    (
        &["--tmux", "--semaphore", "--sem", "--fg", "--bg", "--wait"],
        "this is not there; `mutirao alloc` holds slots while a command runs",
    ),
    (&["--shuf", "--header", "--trim"], "prepare the arguments before, with `shuf`, `tail -n +2` or `sed`"),
];

/// What to do instead of an option that there is not; nothing for one that GNU parallel has not either.
pub fn instead(option: &str) -> Option<&'static str> {
    let option = option.split('=').next().unwrap_or_default();
    INSTEAD.iter().find(|(names, _)| names.contains(&option)).map(|(_, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::Parser;

    #[test]
    fn what_is_explained_is_not_there() {
        for name in INSTEAD.iter().flat_map(|(names, _)| *names) {
            let parsed = Cli::try_parse_from(["mutirao", "map", name, "echo"]);
            assert_eq!(
                parsed.map(drop).unwrap_err().kind(),
                clap::error::ErrorKind::UnknownArgument,
                "{name}"
            );
            assert!(instead(name).is_some());
        }
        assert!(instead("--delimiter=,").is_some());
        assert_eq!(instead("--no-such-option"), None);
    }
}
