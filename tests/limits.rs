//! Bad input and hard times: each gets a clear error, and nothing else is lost.

mod lab;

use lab::{Lab, Running, Said};
use mutirao_wire::frame::{Decoder, HEADER_BYTES, Header, flags};
use mutirao_wire::kind::Kind;
use mutirao_wire::limits::{CALL_BYTES_MAX, DATA_BODY_MAX, HANDSHAKE, PROTOCOL};
use mutirao_wire::local::{Allocate, ClientHello, LocalMessage, Query};
use mutirao_wire::node::Want;
use mutirao_wire::query::{Question, Topic};
use mutirao_wire::{AppId, Epoch};
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A program waits so long for its node to come back.
const RECONNECT: Duration = Duration::from_secs(10);
/// Who says nothing is not hung up on before: a busy node counts from when it woke, not from when it accepted.
const TIME_TO_SPEAK: Duration = HANDSHAKE.checked_sub(Duration::from_secs(2)).unwrap();

fn start(lab: &Lab, args: &[&str]) -> Running {
    let mut command = lab.command(Lab::program());
    command.env("MUTIRAO_NODE", "n1").args(args);
    lab.spawn(command)
}

fn run(lab: &Lab, args: &[&str]) -> Said {
    start(lab, args).wait()
}

/// Holds slots until it is dropped.
fn hold(lab: &Lab, slots: u32) -> Running {
    let free = lab.free_slots();
    let mut command = lab.command(Lab::program());
    command.env("MUTIRAO_NODE", "n1").args(["stay", &slots.to_string()]).stdin(Stdio::piped());
    let held = lab.spawn(command);
    lab.until("the slots are held", || lab.free_slots() + u64::from(slots) == free);
    held
}

fn sum(map: &Value) -> u64 {
    map.as_object().unwrap().values().filter_map(Value::as_u64).sum()
}

/// The pool works: calls give their results, and all slots are free afterwards.
#[track_caller]
fn works(lab: &Lab, slots: u64) {
    let said = run(lab, &["calls", "sleep", "12", "5"]).json();
    assert_eq!((said["results"].as_u64(), sum(&said["failures"])), (Some(12), 0), "{said}");
    lab.until("all slots are free", || lab.free_slots() == slots);
}

/// Starts calls on `slots` slots and waits until `node` works.
fn start_and_see(lab: &Lab, node: &str, args: &[&str]) -> Running {
    let calls = start(lab, args);
    lab.until("workers work", || lab.rows(["ps"]).iter().any(|row| row["node"] == node && row["pid"] != 0));
    calls
}

// ---- starting ----

#[test]
fn a_port_that_is_taken_is_named() {
    let lab = Lab::with_pool(1, 1);
    lab.run(["down"]).well();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = taken.local_addr().unwrap().to_string();
    let complaint = lab.run(["up", "--name", "n1", "--listen", &place]).complaint();
    assert!(complaint.contains(&format!("cannot listen on {place}")), "{complaint}");
    assert!(complaint.contains("choose another"), "{complaint}");
    drop(taken);
    lab.run(["up", "--name", "n1", "--slots", "1", "--listen", &place]).well();
    works(&lab, 1);
}

#[test]
fn a_certificate_of_another_pool_is_refused_and_harms_nothing() {
    let (lab, other) = (Lab::with_pool(1, 1), Lab::with_pool(1, 1));
    lab.run(["down"]).well();
    let files = ["nodes/n1/node.crt", "nodes/n1/node.key", "authority.crt"].map(PathBuf::from);
    let kept: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(lab.home().join(file)).unwrap()).collect();
    let put = |i: usize, bytes: &[u8]| std::fs::write(lab.home().join(&files[i]), bytes).unwrap();
    for (swapped, named) in
        [(&[0, 1][..], "node.crt"), (&[0], "node.crt"), (&[1], "node.crt"), (&[2], "authority.crt")]
    {
        for &i in swapped {
            put(i, &std::fs::read(other.home().join(&files[i])).unwrap());
        }
        let complaint = lab.run(["up", "--name", "n1"]).complaint();
        assert!(complaint.contains(named), "{swapped:?}: {complaint}");
        for &i in swapped {
            put(i, &kept[i]);
        }
    }
    put(0, b"-----BEGIN CERTIFICATE-----\nnonsense\n");
    let complaint = lab.run(["up", "--name", "n1"]).complaint();
    assert!(complaint.contains("node.crt"), "{complaint}");
    put(0, &kept[0]);
    lab.run(["up", "--name", "n1", "--slots", "1", "--listen", "127.0.0.1:0"]).well();
    works(&lab, 1);
    works(&other, 1);
}

#[test]
fn of_two_daemons_of_one_name_one_serves() {
    let lab = Lab::with_pool(1, 1);
    let complaint = lab.run(["up", "--name", "n1"]).complaint();
    assert!(complaint.contains("`n1` runs already"), "{complaint}");
    works(&lab, 1);
    lab.run(["down"]).well();
    let up = || lab.spawn(lab.mutirao(["up", "--name", "n1", "--slots", "1", "--listen", "127.0.0.1:0"]));
    let racers: Vec<Running> = (0..4).map(|_| up()).collect();
    let said: Vec<Said> = racers.into_iter().map(Running::wait).collect();
    assert_eq!(said.iter().filter(|said| said.code == Some(0)).count(), 1);
    for loser in said.into_iter().filter(|said| said.code != Some(0)) {
        assert!(loser.complaint().contains("runs already"));
    }
    works(&lab, 1);
}

#[test]
fn two_users_of_one_machine_do_not_meet() {
    if !rustix::process::getuid().is_root() {
        eprintln!("SKIPPED: only root can be two users");
        return;
    }
    let lab = Lab::new();
    // Below /tmp of a mount namespace: the usual directories of both users, without anybody else's.
    let place = lab.path("tmp");
    std::fs::create_dir(&place).unwrap();
    for (path, mode) in [(&place, 0o1777), (&place.parent().unwrap().to_path_buf(), 0o755)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    for source in [Path::new(Lab::binary()), &Lab::program()] {
        std::fs::copy(source, place.join(source.file_name().unwrap())).unwrap();
    }
    let mut keeper = Command::new("unshare");
    let script = "mount --bind \"$1\" /tmp && touch /tmp/ready && exec sleep 600";
    keeper.args(["--mount", "--", "sh", "-c", script, "sh"]).arg(&place).stdin(Stdio::null());
    let keeper = lab.spawn(keeper);
    lab.until("the namespace is made", || place.join("ready").exists());
    let (root, nobody) = (0, 65534);
    let as_user = |uid: u32, socket: Option<&str>, args: &[&str]| {
        let mut command = Command::new("nsenter");
        command.args(["--target", &keeper.pid().to_string(), "--mount", "--"]);
        let id = uid.to_string();
        command.args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--"]);
        command.arg(format!("/tmp/{}", args[0])).args(&args[1..]);
        command.env_clear().env("MUTIRAO_HOME", format!("/tmp/home-{uid}")).stdin(Stdio::null());
        command.env("MUTIRAO_BIN", "/tmp/mutirao");
        command.envs(socket.map(|path| ("MUTIRAO_SOCKET", path)));
        lab.spawn(command).wait()
    };
    let socket = |uid: u32| {
        let pools = std::fs::read_dir(place.join(format!("mutirao-{uid}"))).unwrap();
        let pool = pools.flatten().next().unwrap().file_name().into_string().unwrap();
        format!("/tmp/mutirao-{uid}/{pool}/n1.sock")
    };
    let up = |uid| as_user(uid, None, &["mutirao", "up", "--local", "1", "--slots", "1"]);
    let nodes = |uid, at: Option<&str>| as_user(uid, at, &["mutirao", "--output", "json", "nodes"]);

    // A directory that somebody else has put where root's is to be.
    as_user(nobody, None, &["mutirao", "doctor"]);
    let squatted = place.join("mutirao-0");
    std::fs::create_dir(&squatted).unwrap();
    std::os::unix::fs::chown(&squatted, Some(nobody), None).unwrap();
    let complaint = up(root).complaint();
    assert!(complaint.contains("/tmp/mutirao-0"), "{complaint}");
    std::fs::remove_dir(&squatted).unwrap();

    up(nobody).well();
    assert!(nodes(root, None).complaint().contains("no node of this machine is running"));
    up(root).well();
    let ids = [root, nobody].map(|uid| {
        let rows = nodes(uid, None).json();
        assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows}");
        rows[0]["id"].clone()
    });
    assert_ne!(ids[0], ids[1]);
    let [roots, nobodys] = [root, nobody].map(socket);
    assert!(nodes(nobody, Some(&roots)).complaint().contains("ermission denied"));
    let complaint = nodes(root, Some(&nobodys)).complaint();
    assert!(complaint.contains("user 65534") && complaint.contains("not trusted"), "{complaint}");
    for uid in [root, nobody] {
        let said = as_user(uid, None, &["mutirao-test-program", "calls", "sleep", "3", "5"]).json();
        assert_eq!(said["results"], 3, "{said}");
    }
    as_user(root, None, &["mutirao", "down"]).well();
    assert_eq!(nodes(nobody, None).json()[0]["id"], ids[1], "the other user's node goes on");
    as_user(nobody, None, &["mutirao", "down"]).well();
}

// ---- strangers on the network ----

/// Reads until the other side closes; what it said. Fails if it does not close in time.
fn read_to_close(stream: &mut impl Read) -> Vec<u8> {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the node did not close: {error}"),
    }
    said
}

#[test]
fn strangers_that_send_nonsense_or_nothing_disturb_nobody() {
    let lab = Lab::with_pool(2, 1);
    let place = lab.node("n1")["addresses"][0].as_str().unwrap().to_owned();
    let connect = || {
        let stream = TcpStream::connect(&place).unwrap();
        stream.set_read_timeout(Some(lab::PATIENCE)).unwrap();
        stream
    };
    let calls = start_and_see(&lab, "n2", &["calls", "sleep", "200", "20", "2"]);
    let silent: Vec<TcpStream> = (0..200).map(|_| connect()).collect();
    let since = Instant::now();

    // A hello that announces 512 bytes and stops; then one byte of a record, a record too long, no TLS at all.
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 100]].concat();
    let noise: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut record_too_long = vec![0x16, 3, 3, 0xff, 0xff];
    record_too_long.extend_from_slice(&noise[..0xffff]);
    let mut loud = Vec::new();
    for bytes in [&hello[..], &[0x16], &record_too_long, &noise, b"GET / HTTP/1.1\r\nHost: n1\r\n\r\n"] {
        for ends in [true, false] {
            let mut stream = connect();
            // The node may close before it has read all.
            let _ = stream.write_all(bytes);
            if ends {
                let _ = stream.shutdown(Shutdown::Write);
            }
            loud.push(stream);
        }
    }
    for stream in &mut loud {
        read_to_close(stream);
    }
    for mut stream in silent {
        assert_eq!(read_to_close(&mut stream), b"");
    }
    assert!(since.elapsed() >= TIME_TO_SPEAK, "the silent had {:?}", since.elapsed());
    let said = calls.wait().json();
    assert_eq!(said["results"], 200, "{said}");
    works(&lab, 2);
}

// ---- programs that do not speak properly ----

/// A program that writes what it likes.
struct Rogue {
    stream: UnixStream,
}

impl Rogue {
    fn new(lab: &Lab) -> Rogue {
        let stream = UnixStream::connect(lab.socket("n1")).unwrap();
        stream.set_read_timeout(Some(lab::PATIENCE)).unwrap();
        Rogue { stream }
    }

    fn send(&mut self, bytes: &[u8]) -> &mut Rogue {
        self.stream.write_all(bytes).unwrap();
        self
    }

    fn say(&mut self, message: impl Into<LocalMessage>) -> &mut Rogue {
        let mut bytes = Vec::new();
        message.into().put(&mut bytes);
        self.send(&bytes)
    }

    /// The next message of the node.
    fn hear(&mut self) -> LocalMessage {
        let mut decoder = Decoder::new(DATA_BODY_MAX);
        loop {
            if let Some((header, body)) = decoder.next_frame().unwrap() {
                return LocalMessage::read(&header, body).unwrap();
            }
            let mut byte = [0];
            assert_eq!(self.stream.read(&mut byte).unwrap(), 1, "the node closed");
            decoder.push(&byte);
        }
    }

    /// The node turns the program away and closes; why.
    fn refusal(&mut self) -> String {
        let text = match self.hear() {
            LocalMessage::ClientRefused(refused) => refused.text,
            other => panic!("{other:?}"),
        };
        assert_eq!(read_to_close(&mut self.stream), b"");
        text
    }
}

fn hello(app: u128) -> ClientHello {
    ClientHello {
        protocol: PROTOCOL,
        app: AppId(app),
        name: "rogue".into(),
        epoch: Epoch(0),
        homes: Vec::new(),
        leases: Vec::new(),
        plugin: None,
        as_user: false,
    }
}

fn allocate(sequence: u32, count: u32) -> Allocate {
    let want = Want { count, ..Want::default() };
    Allocate { sequence, want, at_least: 1, workers: false, wait: None }
}

#[test]
fn a_program_of_another_version_is_told_so() {
    let lab = Lab::with_pool(1, 1);
    for protocol in [(9, 9), (0, 0)] {
        let text = Rogue::new(&lab).say(ClientHello { protocol, ..hello(1) }).refusal();
        let theirs = format!("{}-{}", protocol.0, protocol.1);
        assert!(text.contains(&theirs) && text.contains("n1") && text.contains("upgrade"), "{text}");
    }
    // A newer program that still speaks this version is welcome.
    let mut newer = Rogue::new(&lab);
    match newer.say(ClientHello { protocol: (PROTOCOL.0, 9), ..hello(1) }).hear() {
        LocalMessage::ClientWelcome(welcome) => assert_eq!(welcome.protocol, PROTOCOL.1),
        other => panic!("{other:?}"),
    }
    works(&lab, 1);
}

#[test]
fn broken_frames_of_a_program_end_that_program_only() {
    let lab = Lab::with_pool(1, 2);
    let holder = hold(&lab, 1);

    // Cut off in the middle of a header, and in the middle of a body.
    let mut whole = Vec::new();
    LocalMessage::from(hello(2)).put(&mut whole);
    for cut in [1, HEADER_BYTES - 1, HEADER_BYTES + 3, whole.len() - 1] {
        let mut rogue = Rogue::new(&lab);
        rogue.send(&whole[..cut]).stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_close(&mut rogue.stream), b"", "cut at {cut}");
    }
    // Longer than allowed: refused before the body comes.
    let text = Rogue::new(&lab).send(Header::new(Kind::ClientHello, DATA_BODY_MAX + 1).bytes()).refusal();
    assert!(text.contains("65537") && text.contains("65536"), "{text}");
    // A body that is not what the kind says.
    let text = Rogue::new(&lab).send(Header::new(Kind::ClientHello, 0).bytes()).refusal();
    assert!(text.contains("ClientHello") && text.contains("malformed"), "{text}");
    // Kinds that nobody knows.
    let mut unknown = Header::new(Kind::ClientHello, 0);
    unknown.kind.set(0x05ff);
    let text = Rogue::new(&lab).send(unknown.bytes()).refusal();
    assert!(text.contains("0x05ff") && text.contains("newer"), "{text}");
    unknown.flags.set(flags::OPTIONAL);
    let heard = Rogue::new(&lab).send(unknown.bytes()).say(hello(3)).hear();
    assert!(matches!(heard, LocalMessage::ClientWelcome(_)), "{heard:?}");
    // Out of turn.
    let text = Rogue::new(&lab).say(allocate(1, 1)).refusal();
    assert!(text.contains("Allocate") && text.contains("out of place"), "{text}");
    // Frames that only nodes send one another.
    let text = Rogue::new(&lab).send(Header::new(Kind::Attach, 0).bytes()).refusal();
    assert!(!text.is_empty());
    // Somebody else's identity, while its program is there.
    let mut first = Rogue::new(&lab);
    assert!(matches!(first.say(hello(4)).hear(), LocalMessage::ClientWelcome(_)));
    let text = Rogue::new(&lab).say(hello(4)).refusal();
    assert!(text.contains("connected already"), "{text}");

    // One that holds a slot and then speaks nonsense loses it.
    first.say(allocate(1, 1));
    match first.hear() {
        LocalMessage::Allocated(allocated) => assert_eq!(allocated.leases.len(), 1),
        other => panic!("{other:?}"),
    }
    lab.until("all slots are held", || lab.free_slots() == 0);
    first.say(hello(4));
    assert!(first.refusal().contains("ClientHello"));
    lab.until("the slot is free again", || lab.free_slots() == 1);

    // One that asks without end, and reads nothing, is stopped at a limit.
    let mut greedy = Rogue::new(&lab);
    greedy.say(hello(5));
    greedy.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut question = Vec::new();
    let nodes = Question { topic: Topic::Nodes, to: None, user: String::new(), order: Vec::new() };
    LocalMessage::from(Query { number: 1, question: nodes }).put(&mut question);
    for _ in 0..100_000 {
        if greedy.stream.write_all(&question).is_err() {
            break;
        }
    }
    assert!(memory_mib(lab.pid("n1")) < 128, "{} MiB", memory_mib(lab.pid("n1")));
    drop(greedy);
    drop(holder);
    works(&lab, 2);
}

#[test]
fn a_program_that_never_says_who_it_is_is_hung_up_on() {
    let lab = Lab::with_pool(1, 1);
    let mut silent = Rogue::new(&lab);
    let since = Instant::now();
    assert_eq!(read_to_close(&mut silent.stream), b"");
    assert!(since.elapsed() >= TIME_TO_SPEAK, "{:?}", since.elapsed());
    works(&lab, 1);
}

/// Resident memory of a process.
fn memory_mib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

// ---- calls ----

#[test]
fn calls_wait_for_slots_and_run_when_some_are_free() {
    let lab = Lab::with_pool(2, 1);
    let held = hold(&lab, 2);
    let calls = start(&lab, &["calls", "sleep", "10", "5"]);
    lab.until("the program waits", || {
        lab.rows(["apps"]).iter().any(|app| app["name"] == "mutirao-test-program" && app["slots"] == 0)
    });
    drop(held);
    let said = calls.wait().json();
    assert_eq!(said["results"], 10, "{said}");
}

#[test]
fn a_call_that_cannot_be_made_is_explained() {
    let lab = Lab::with_pool(1, 1);
    let program = Lab::program();
    let program = program.to_str().unwrap();
    let complaint = lab.run(["call", program, "no-such-operation"]).complaint();
    assert!(complaint.contains("no-such-operation") && complaint.contains("echo"), "{complaint}");
    let large = lab.path("large");
    std::fs::File::create(&large).unwrap().set_len(CALL_BYTES_MAX + 1).unwrap();
    let complaint = lab.run(["call", program, "echo", "--input", large.to_str().unwrap()]).complaint();
    assert!(complaint.contains("at most 67108864"), "{complaint}");
    let complaint = lab.run(["call", program, "echo", "--input", "/no/such/file"]).complaint();
    assert!(complaint.contains("/no/such/file"), "{complaint}");
    let complaint = lab.run(["call", "/no/such/program", "echo"]).complaint();
    assert!(complaint.contains("/no/such/program"), "{complaint}");
    let script = lab.file("script", "#!/bin/sh\necho hello\n");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    for other in ["/bin/sleep", script.to_str().unwrap(), "/etc/passwd"] {
        let complaint = lab.run(["call", other, "x"]).complaint();
        assert!(complaint.contains(other), "{complaint}");
    }
    let complaint = lab.run(["call", "/bin/sleep", "x"]).complaint();
    assert!(complaint.contains("mutirao_init"), "{complaint}");
    works(&lab, 1);
}

#[test]
fn a_program_deleted_while_it_runs_still_travels() {
    let lab = Lab::with_pool(2, 1);
    let copy = lab.path("vanishing");
    std::fs::copy(Lab::program(), &copy).unwrap();
    // Another program than the one that holds the slots.
    std::fs::OpenOptions::new().append(true).open(&copy).unwrap().write_all(b"!").unwrap();
    // Only when it is gone does the far node get a slot free for it.
    let held = hold(&lab, 2);
    let mut command = lab.command(&copy);
    command.env("MUTIRAO_NODE", "n1").args(["calls", "sleep", "100", "30"]);
    let calls = lab.spawn(command);
    lab.until("the program waits", || {
        lab.rows(["apps"]).iter().any(|app| app["name"] == "vanishing" && app["slots"] == 0)
    });
    lab.until("the node has it", || {
        lab.rows(["plugin", "ls"]).iter().any(|row| row["name"] == "vanishing" && row["kept"] == true)
    });
    std::fs::remove_file(&copy).unwrap();
    drop(held);
    let said = calls.wait().json();
    assert_eq!(said["results"], 100, "{said}");
    assert!(said["nodes"]["n2"].as_u64().is_some_and(|share| share > 0), "{said}");
}

#[test]
fn a_worker_that_floods_standard_error_fills_nothing() {
    let lab = Lab::with_pool(1, 1);
    let before = memory_mib(lab.pid("n1"));
    let said = run(&lab, &["one", "attempt", "flood", "64"]).json();
    assert_eq!(said["done"], "flooded", "{said}");
    let after = memory_mib(lab.pid("n1"));
    assert!(after < before + 16, "{before} MiB became {after} MiB");
    let log = std::fs::metadata(lab.home().join("nodes/n1/log")).unwrap().len();
    assert!(log < 1 << 20, "the log has {log} bytes");
    works(&lab, 1);
}

// ---- no room for programs ----

#[test]
fn a_program_larger_than_the_cache_is_refused_where_it_is_so() {
    let lab = Lab::with_pool(2, 1);
    lab.run(["down", "--all"]).well();
    std::fs::write(lab.home().join("nodes/n2/node.toml"), "cache_mib = 1\n").unwrap();
    lab.up_local(2, 1, &[]);
    let said = run(&lab, &["calls", "sleep", "100", "30"]).json();
    assert_eq!(said["results"], 100, "{said}");
    let notes = said["notes"].to_string();
    assert!(notes.contains("n2") && notes.contains("cache"), "{said}");
    lab.until("all slots are free", || lab.free_slots() == 2);
    // Through the node that has no room itself, the program is not even taken in.
    let mut command = lab.command(Lab::program());
    command.env("MUTIRAO_NODE", "n2").args(["calls", "sleep", "1", "1"]);
    let said = lab.spawn(command).wait();
    let text = format!("{}{}", said.out, said.err);
    assert!(text.contains("cache") && !text.contains("panicked"), "{text}");
    works(&lab, 2);
}

#[test]
fn a_disk_that_is_full_is_told_to_the_caller() {
    let lab = Lab::with_pool(2, 1);
    lab.run(["--node", "n2", "down"]).well();
    let mut command = lab.command("unshare");
    if !rustix::process::getuid().is_root() {
        command.arg("--map-root-user");
    }
    let script = "mount -t tmpfs -o size=2m none \"$1\" && exec \"$2\" up --name n2 --slots 1 --parent n1 \
                  --listen 127.0.0.1:0";
    command.args(["--mount", "--", "sh", "-c", script, "sh"]);
    command.arg(lab.home().join("cache/n2")).arg(Lab::binary());
    let said = lab.spawn(command).wait();
    if said.err.contains("unshare:") || said.err.contains("mount:") {
        eprintln!("SKIPPED: no small file system can be mounted here: {}", said.err.trim());
        return;
    }
    said.well();
    lab.until("n2 is back", || lab.nodes().len() == 2);
    let said = run(&lab, &["calls", "sleep", "100", "30"]).json();
    assert_eq!(said["results"], 100, "{said}");
    let notes = said["notes"].to_string();
    assert!(notes.contains("n2") && notes.contains("full"), "{said}");
    works(&lab, 2);
}

// ---- the local daemon killed ----

fn up_again(lab: &Lab) {
    lab.run(["up", "--name", "n1", "--slots", "2", "--listen", "127.0.0.1:0"]).well();
}

#[test]
fn local_calls_survive_the_death_of_the_daemon_if_it_comes_back() {
    let lab = Lab::with_pool(1, 2);
    let repeatable = start_and_see(&lab, "n1", &["calls", "sleep", "60", "50"]);
    lab.kill("n1");
    up_again(&lab);
    let said = repeatable.wait().json();
    assert_eq!(said["results"], 60, "{said}");
    assert_eq!(said["wrong"], 0, "{said}");
    lab.until("all slots are free", || lab.free_slots() == 2);

    let once = start_and_see(&lab, "n1", &["calls", "sleep_once", "60", "50"]);
    lab.kill("n1");
    up_again(&lab);
    let said = once.wait().json();
    let failed = sum(&said["failures"]);
    assert_eq!(said["results"].as_u64().unwrap() + failed, 60, "{said}");
    assert!(failed <= 2, "only what may have run is lost: {said}");
    assert_eq!(said["wrong"], 0, "{said}");
    works(&lab, 2);
}

#[test]
fn calls_end_with_a_clear_error_when_the_daemon_stays_away() {
    let labs = [Lab::with_pool(1, 1), Lab::with_pool(1, 1)];
    let started = ["sleep", "sleep_once"].iter().zip(&labs).map(|(operation, lab)| {
        let calls = start_and_see(lab, "n1", &["calls", operation, "4000", "50"]);
        let killed = Instant::now();
        lab.kill("n1");
        (calls, killed)
    });
    for (calls, killed) in started.collect::<Vec<_>>() {
        let said = calls.wait().json();
        assert!(killed.elapsed() >= RECONNECT, "it was waited for: {:?}", killed.elapsed());
        assert_eq!(said["results"].as_u64().unwrap() + sum(&said["failures"]), 4000, "{said}");
        let lost = said["failures"].as_object().unwrap().iter();
        let lost = lost.filter(|(text, _)| text.contains("went away and did not come back in 10 s"));
        assert!(lost.filter_map(|(_, count)| count.as_u64()).sum::<u64>() > 1000, "{said}");
    }
}
