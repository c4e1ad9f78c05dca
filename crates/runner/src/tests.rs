use crate::{
    Around, Command, Content, Ended, Fetched, File, Home, How, KEPT_BYTES_MIN, Keep, Kept, Leaving, Limits,
    Lying, Place, Placed, Program, Runner, Site, Unseen,
};
use proptest::prelude::*;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

fn runner(directory: &tempfile::TempDir) -> Runner {
    Runner::new(directory.path(), Place::Playpen, Leaving::Kills).unwrap()
}

fn playpen() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn is_empty(directory: &tempfile::TempDir) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn every_end_is_called_what_it_is() {
    let directory = playpen();
    let mut runner = runner(&directory);
    assert_eq!(runner.run(&Command::shell("exit 7")).how, How::Code(7));
    assert_eq!(runner.run(&Command::words(["true"])).how, How::Code(0));
    assert_eq!(runner.run(&Command::shell("kill -USR1 $$")).how, How::Signal(10));
    let long = Command { time_limit_ms: Some(50), ..Command::words(["sleep", "600"]) };
    assert_eq!(runner.run(&long).how, How::TimeLimit);
    let deaf =
        Command { time_limit_ms: Some(50), ..Command::shell("trap '' TERM; while :; do sleep 1; done") };
    assert_eq!(runner.run(&deaf).how, How::TimeLimit);
    let absent = runner.run(&Command::words(["no-such-program-here"])).how;
    assert!(matches!(&absent, How::NotStarted(why) if why.contains("no-such-program-here")), "{absent}");
    let absent = runner.run(&Command::words(["/no/such/program"])).how;
    assert!(matches!(&absent, How::NotStarted(why) if why.contains("/no/such/program")), "{absent}");
    assert!(matches!(runner.run(&Command::default()).how, How::NotStarted(_)));
}

#[test]
fn whatever_is_written_comes_whole_and_apart_and_is_not_seen_again() {
    let directory = playpen();
    let mut runner = runner(&directory);
    let many = "i=0; while [ $i -lt 2000 ]; do echo out-$i; echo err-$i >&2; i=$((i+1)); done; head -c 3000000 /dev/zero";
    let ended = runner.run(&Command::shell(many));
    let out: String = (0..2000).map(|i| format!("out-{i}\n")).collect();
    let err: String = (0..2000).map(|i| format!("err-{i}\n")).collect();
    assert!(ended.stdout.starts_with(out.as_bytes()));
    assert_eq!(ended.stdout.len(), out.len() + 3_000_000);
    assert_eq!(ended.stderr, err.as_bytes());
    let next = runner.run(&Command::shell("printf x"));
    assert_eq!((next.stdout, next.stderr, next.lost_bytes), (b"x".to_vec(), Vec::new(), 0));
}

#[test]
fn standard_input_is_what_was_given_and_nothing_otherwise() {
    let directory = playpen();
    let mut runner = runner(&directory);
    let given = vec![b'z'; 1_000_000];
    let copied = runner.run(&Command { stdin: given.clone(), ..Command::words(["cat"]) });
    assert_eq!(copied.stdout, given);
    assert_eq!(runner.run(&Command::words(["cat"])).stdout, b"");
}

#[test]
fn nothing_that_a_command_starts_outlives_it() {
    let directory = playpen();
    let mut runner = runner(&directory);
    let ended = runner.run(&Command::shell("sleep 600 & echo $!"));
    assert_eq!(ended.how, How::Code(0));
    let pid = String::from_utf8(ended.stdout).unwrap();
    // Killed; it may take its new parent a moment to notice.
    let stat = Path::new("/proc").join(pid.trim()).join("stat");
    let ends = |text: String| text.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
    while !fs::read_to_string(&stat).map_or(true, ends) {
        std::thread::yield_now();
    }
}

#[test]
fn files_are_brought_and_taken_and_the_playpen_is_empty_after() {
    let directory = playpen();
    let mut runner = runner(&directory);
    let command = Command {
        bring: vec![
            File { name: "in/a.txt".into(), executable: false, bytes: b"hello".to_vec() },
            File { name: "tool".into(), executable: true, bytes: b"#!/bin/sh\ncat in/a.txt\n".to_vec() },
        ],
        take: vec!["in/b.txt".into(), "absent".into(), "link".into(), "../escape".into()],
        ..Command::shell("./tool > in/b.txt; ln -s /etc/passwd link; touch left")
    };
    let ended = runner.run(&command);
    assert_eq!(ended.how, How::Code(0), "{}", String::from_utf8_lossy(&ended.stderr));
    let name_and_bytes = |file: File| (file.name, file.bytes);
    let taken: Vec<_> = ended.files.into_iter().map(name_and_bytes).collect();
    assert_eq!(taken, [("in/b.txt".to_owned(), b"hello".to_vec())]);
    assert!(is_empty(&directory));
    for name in ["../up", "/etc/x", "..", ""] {
        let file = File { name: name.into(), ..File::default() };
        let how = runner.run(&Command { bring: vec![file], ..Command::shell("true") }).how;
        assert!(matches!(how, How::NotStarted(_)), "{name}: {how}");
    }
}

#[test]
fn what_is_fetched_is_copied_and_stays_as_it_is_whatever_the_command_does_to_its_copy() {
    let (directory, elsewhere) = (playpen(), playpen());
    let (mut runner, path) = (runner(&directory), elsewhere.path().join("blob"));
    fs::write(&path, "content").unwrap();
    let file = |name: &str, executable| Fetched { name: name.into(), executable, hash: [1; 32] };
    let command = Command {
        fetch: vec![file("a/b", false), file("run", true)],
        ..Command::shell("cat a/b; test -x run -a ! -x a/b && echo x > a/b; cat a/b")
    };
    for _ in 0..2 {
        // The same open file for both: where it was read to does not matter.
        let opened = fs::File::open(&path).unwrap();
        let files = [opened.try_clone().unwrap(), opened];
        assert_eq!(
            runner.run_with(&command, Around { fetched: &files, ..Around::default() }).stdout,
            b"contentx\n"
        );
        assert!(is_empty(&directory));
    }
    let how = runner.run(&command).how;
    assert!(matches!(&how, How::NotStarted(why) if why.contains("not fetched")), "{how}");
}

#[test]
fn large_files_of_a_command_that_succeeds_are_kept_and_travel_where_that_cannot_be() {
    let directory = playpen();
    let mut runner = runner(&directory);
    let take = vec!["large".into(), "small".into()];
    let text = format!("head -c {KEPT_BYTES_MIN} /dev/zero > large; echo 1 > small");
    let command = |more| Command { take: take.clone(), ..Command::shell(format!("{text}; {more}")) };
    let keep = |file: fs::File| {
        let bytes = file.metadata().unwrap().len();
        Ok(Content { bytes, ..Content::default() })
    };
    let mut files = |command: &Command, keep: Option<&Keep<'_>>| {
        let ended = runner.run_with(command, Around { keep, ..Around::default() });
        assert!(is_empty(&directory));
        (ended.kept.len(), ended.files.len(), ended.lost_bytes, ended.lost_why)
    };
    assert_eq!(files(&command("true"), Some(&keep)), (1, 1, 0, String::new()));
    assert_eq!(files(&command("true"), None), (0, 2, 0, String::new()));
    assert_eq!(files(&command("false"), Some(&keep)), (0, 2, 0, String::new()));
    let full = files(&command("true"), Some(&|_| Err("no room".into())));
    assert_eq!(full, (0, 2, 0, "`large`: no room".into()));
}

#[test]
fn at_home_a_command_has_its_users_directory_and_environment() {
    let (directory, home) = (playpen(), playpen());
    let there = home.path().canonicalize().unwrap();
    let home_bytes = there.to_str().unwrap().as_bytes().to_vec();
    let environment = [("MINE", "yes"), ("PATH", "/usr/bin:/bin")].into_iter().collect();
    let command = Command {
        environment: vec![(b"ADDED".to_vec(), b"1".to_vec())],
        home: Some(Home { directory: home_bytes, environment, umask: Some(0o027) }),
        ..Command::shell("pwd; echo $MINE $ADDED ${HOME-none} $(umask); touch here")
    };
    let mut own = Runner::new(directory.path(), Place::Own, Leaving::Kills).unwrap();
    let ended = own.run(&command);
    assert_eq!(String::from_utf8(ended.stdout).unwrap(), format!("{}\nyes 1 none 0027\n", there.display()));
    assert!(there.join("here").exists() && is_empty(&directory));

    // A shared directory shares the files, and not the environment.
    let shared = Place::Shared(vec![there.clone()]);
    let ended = Runner::new(directory.path(), shared, Leaving::Kills).unwrap().run(&command);
    assert!(ended.stdout.starts_with(format!("{}\n1 ", there.display()).as_bytes()));
    let elsewhere = Place::Shared(vec!["/nowhere".into()]);
    let ended = Runner::new(directory.path(), elsewhere, Leaving::Kills).unwrap().run(&command);
    assert!(ended.stdout.starts_with(format!("{}\n1 ", directory.path().display()).as_bytes()));

    let gone = Home { directory: b"/no/such/directory".to_vec(), ..Home::default() };
    let how = own.run(&Command { home: Some(gone), ..Command::shell("true") }).how;
    assert!(matches!(&how, How::NotStarted(why) if why.contains("/no/such/directory")), "{how}");
}

#[test]
fn limits_hold_for_the_command_alone() {
    let directory = playpen();
    let mut runner = runner(&directory);
    let limits = Limits { memory_mib: Some(64), cpu_s: Some(100) };
    let ended = runner.run(&Command { limits, ..Command::shell("ulimit -d; ulimit -t") });
    assert_eq!(ended.stdout, b"65536\n100\n");
    assert_ne!(runner.run(&Command::shell("ulimit -t")).stdout, b"100\n");
}

#[test]
fn what_was_used_is_counted() {
    let directory = playpen();
    let ended = runner(&directory).run(&Command::shell("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"));
    assert!(ended.cpu_us > 0 && ended.wall_us > 0 && ended.peak_kib > 0 && ended.started_us > 0);
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..40)
}

fn files() -> impl Strategy<Value = Vec<File>> {
    let file = ("[a-z/]{1,8}", any::<bool>(), bytes());
    let file = file.prop_map(|(name, executable, bytes)| File { name, executable, bytes });
    proptest::collection::vec(file, 0..4)
}

fn variables() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    proptest::collection::vec((bytes(), bytes()), 0..4)
}

fn fetched(file: &File) -> Fetched {
    Fetched { name: file.name.clone(), executable: file.executable, hash: [file.bytes.len() as u8; 32] }
}

fn site_of(file: &File) -> Site {
    let (name, bytes) = (file.name.clone(), file.bytes.clone());
    let links = vec![Lying { name: name.clone(), path: bytes.clone(), bytes: 3, modified_s: -5 }];
    Site {
        directory: bytes.clone(),
        mark: name.clone(),
        room: name.clone(),
        umask: file.executable.then_some(0o22),
        sender: bytes.len() as u64,
        moves: vec![(bytes.clone(), bytes.clone())],
        links,
        places: vec![(name, bytes)],
    }
}

fn command() -> impl Strategy<Value = Command> {
    let program = prop_oneof![
        proptest::collection::vec(bytes(), 0..4).prop_map(Program::Words),
        (bytes(), bytes()).prop_map(|(shell, text)| Program::Shell { shell, text }),
    ];
    let home = proptest::option::of((bytes(), variables(), any::<Option<u32>>()));
    let take = proptest::collection::vec("[a-z]{1,5}".prop_map(String::from), 0..3);
    let limits = (any::<Option<u32>>(), any::<Option<u32>>(), any::<Option<u64>>());
    (program, variables(), bytes(), home, files(), take, limits).prop_map(
        |(program, environment, stdin, home, bring, take, (memory_mib, cpu_s, time_limit_ms))| Command {
            program,
            environment,
            stdin,
            home: home.map(|(directory, environment, umask)| {
                let text =
                    |(name, value): (Vec<u8>, Vec<u8>)| (OsString::from_vec(name), OsString::from_vec(value));
                let environment = environment.into_iter().map(text).collect();
                Home { directory, environment, umask }
            }),
            site: bring.first().map(site_of),
            fetch: bring.iter().map(fetched).collect(),
            bring,
            take,
            limits: Limits { memory_mib, cpu_s },
            time_limit_ms,
        },
    )
}

fn kept(file: &File) -> Kept {
    let content = Content { hash: [1; 32], bytes: file.bytes.len() as u64, word: [2; 16] };
    Kept { name: file.name.clone(), executable: file.executable, content }
}

fn placed(file: &File) -> Placed {
    Placed { name: file.name.clone(), sender: 1 << 40, bytes: file.bytes.len() as u64, modified_s: -5 }
}

fn ended() -> impl Strategy<Value = Ended> {
    let how = prop_oneof![
        any::<u8>().prop_map(How::Code),
        any::<u8>().prop_map(How::Signal),
        Just(How::TimeLimit),
        Just(How::OutOfMemory),
        ".{0,9}".prop_map(How::NotStarted),
    ];
    (how, bytes(), bytes(), files(), any::<[u64; 5]>(), any::<bool>()).prop_map(
        |(how, stdout, stderr, files, numbers, left_behind)| Ended {
            how,
            stdout,
            stderr,
            lost_bytes: numbers[0],
            lost_why: format!("{:x}", numbers[0]),
            kept: files.iter().map(kept).collect(),
            placed: files.iter().map(placed).collect(),
            unseen: left_behind.then_some(Unseen::File),
            files,
            cpu_us: numbers[1],
            peak_kib: numbers[2],
            wall_us: numbers[3],
            started_us: numbers[4],
            left_behind,
        },
    )
}

proptest! {
    #[test]
    fn commands_arrive_as_they_were_sent(command in command()) {
        prop_assert_eq!(Command::decode(&command.encode()).unwrap(), command);
    }

    #[test]
    fn ends_arrive_as_they_were_sent(ended in ended()) {
        prop_assert_eq!(Ended::decode(&ended.encode()).unwrap(), ended);
    }

    #[test]
    fn no_bytes_upset_the_readers(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Command::decode(&bytes);
        let _ = Ended::decode(&bytes);
    }

    #[test]
    fn what_was_cut_short_is_not_read(command in command(), ended in ended(), cut in 1usize..60) {
        let (command, ended) = (command.encode(), ended.encode());
        prop_assert!(Command::decode(&command[..command.len().saturating_sub(cut)]).is_err());
        prop_assert!(Ended::decode(&ended[..ended.len().saturating_sub(cut)]).is_err());
    }
}

/// A directory that several machines share, with a mark and an input, and a command for it.
fn site(shared: &Path, text: &str) -> Command {
    fs::write(shared.join(".mark"), "").unwrap();
    fs::write(shared.join("in"), "input\n").unwrap();
    let bytes_of = |path: std::path::PathBuf| path.into_os_string().into_encoded_bytes();
    let site = Site {
        directory: bytes_of(shared.to_owned()),
        mark: ".mark".into(),
        room: ".mark-7".into(),
        umask: Some(0o027),
        sender: 5,
        moves: vec![],
        links: vec![Lying {
            name: "data/in".into(),
            path: bytes_of(shared.join("in")),
            bytes: 6,
            modified_s: fs::metadata(shared.join("in")).unwrap().mtime(),
        }],
        places: vec![("out".into(), bytes_of(shared.join("results/out.attempt-7")))],
    };
    Command { site: Some(site), take: vec!["out".into(), "other".into()], ..Command::shell(text) }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_command_works_where_its_files_lie_if_its_worker_sees_them() {
    let (own, shared) = (playpen(), playpen());
    let reached = Place::Shared(vec![shared.path().to_owned()]);
    let mut runner = Runner::new(own.path(), reached, Leaving::Kills).unwrap();
    let command = site(shared.path(), "pwd; cat data/in; readlink data/in; cp data/in out; echo x > other");
    let command = Command::decode(&command.encode()).unwrap();
    let ended = Ended::decode(&runner.run(&command).encode()).unwrap();
    let room = shared.path().join(".mark-7");
    let said = format!("{}\ninput\n{}\n", room.display(), shared.path().join("in").display());
    assert_eq!((ended.how, ended.stdout), (How::Code(0), said.into_bytes()));
    let facts = fs::metadata(shared.path().join("results/out.attempt-7")).unwrap();
    let placed = Placed { name: "out".into(), sender: 5, bytes: 6, modified_s: facts.mtime() };
    assert_eq!(ended.placed, [placed]);
    let taken: Vec<&str> = ended.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(taken, ["other"], "what has no place there travels");
    let placed = shared.path().join("results/out.attempt-7");
    assert_eq!(fs::read(&placed).unwrap(), b"input\n");
    assert_eq!(fs::metadata(&placed).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(names(shared.path()), [".mark", "in", "results"], "and its directory is gone");
    // The next one works in the playpen.
    let next = runner.run(&Command::shell("pwd"));
    assert_eq!(next.stdout, format!("{}\n", own.path().display()).into_bytes());

    let failed = runner.run(&site(shared.path(), "echo worse > out; exit 3"));
    assert_eq!((failed.how, failed.placed, failed.files), (How::Code(3), vec![], vec![]));
    assert_eq!(fs::read(shared.path().join("results/out.attempt-7")).unwrap(), b"input\n");
    assert!(is_empty(&own));
}

#[test]
fn a_result_that_lies_under_another_name_still_is_moved_to_its_own_by_whoever_needs_it() {
    let (own, shared) = (playpen(), playpen());
    let mut runner = Runner::new(own.path(), Place::Own, Leaving::Kills).unwrap();
    let mut command = site(shared.path(), "cat data/in");
    let (waiting, path) = (shared.path().join(".in.attempt-3"), shared.path().join("in"));
    fs::write(&waiting, "latest").unwrap();
    let bytes_of = |path: &Path| path.as_os_str().as_encoded_bytes().to_vec();
    let site = command.site.as_mut().unwrap();
    site.moves = vec![(bytes_of(&waiting), bytes_of(&path))];
    site.links[0].modified_s = fs::metadata(&waiting).unwrap().mtime();
    // The second finds it moved.
    for _ in 0..2 {
        let ended = runner.run(&command);
        assert_eq!((ended.unseen, ended.stdout), (None, b"latest".to_vec()));
        assert!(!waiting.exists());
    }
    // What is no file cannot take its place.
    fs::create_dir(&waiting).unwrap();
    assert_eq!(runner.run(&command).unseen, Some(Unseen::File));
}

#[test]
fn a_command_does_not_start_where_its_worker_sees_other_files_or_none() {
    let (own, shared) = (playpen(), playpen());
    let mut runner = Runner::new(own.path(), Place::Playpen, Leaving::Kills).unwrap();
    let command = || site(shared.path(), "echo it ran");
    assert_eq!(runner.run(&command()).unseen, Some(Unseen::Site), "it cannot be reached");

    let mut runner = Runner::new(own.path(), Place::Own, Leaving::Kills).unwrap();
    assert_eq!(runner.run(&command()).unseen, None);
    let changed = |change: &dyn Fn(&mut Site)| {
        let mut command = command();
        command.site.iter_mut().for_each(change);
        command
    };
    let another = changed(&|site| site.mark = ".other-mark".into());
    assert_eq!(runner.run(&another).unseen, Some(Unseen::Site), "the mark is not there");
    for other in [
        changed(&|site| site.links[0].bytes = 5),
        changed(&|site| site.links[0].modified_s -= 1),
        changed(&|site| site.links[0].path.extend(b"-not")),
    ] {
        let ended = runner.run(&other);
        assert_eq!(ended.unseen, Some(Unseen::File));
        assert!(matches!(ended.how, How::NotStarted(_)) && ended.stdout.is_empty());
    }
    assert_eq!(names(shared.path()), [".mark", "in"]);
}
