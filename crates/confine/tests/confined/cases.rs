//! What must be refused and what must work.

use crate::node::Node;
use crate::{NOBODY, SET_UID_ROOT};
use mutirao_confine::{Error, Level, probe};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Each case by name.
pub const CASES: &[(&str, fn())] = &[
    ("the_attempts_succeed_unconfined", the_attempts_succeed_unconfined),
    ("forbidden_files_stay_closed", forbidden_files_stay_closed),
    ("the_plugin_directory_does_not_change", the_plugin_directory_does_not_change),
    ("nothing_is_made_outside_the_working_directory", nothing_is_made_outside_the_working_directory),
    ("modes_and_sizes_of_foreign_files_stay", modes_and_sizes_of_foreign_files_stay),
    ("the_node_cannot_be_signalled", the_node_cannot_be_signalled),
    ("the_node_cannot_be_looked_into", the_node_cannot_be_looked_into),
    ("the_node_cannot_be_slowed", the_node_cannot_be_slowed),
    ("sockets_are_closed", sockets_are_closed),
    ("the_network_opens_when_asked_for", the_network_opens_when_asked_for),
    ("privileges_do_not_come_back", privileges_do_not_come_back),
    ("the_kernel_is_out_of_reach", the_kernel_is_out_of_reach),
    ("other_architectures_are_no_way_round", other_architectures_are_no_way_round),
    ("the_process_group_holds", the_process_group_holds),
    ("only_what_is_listed_is_inherited", only_what_is_listed_is_inherited),
    ("computations_work", computations_work),
    ("ordinary_programs_work", ordinary_programs_work),
    ("abort_ends_by_its_signal", abort_ends_by_its_signal),
    ("limits_hold", limits_hold),
    ("a_level_not_reached_is_said", a_level_not_reached_is_said),
    ("bad_plans_are_refused", bad_plans_are_refused),
    ("a_program_still_being_written_is_waited_for", a_program_still_being_written_is_waited_for),
    ("a_worker_dies_with_its_node", a_worker_dies_with_its_node),
];

fn path_in(node: &Node, inside: &str) -> String {
    node.path(inside).to_str().expect("text").to_owned()
}

/// What the other cases find refused must be refused by the confinement, not by a slip in the attempt.
fn the_attempts_succeed_unconfined() {
    let node = Node::new();
    let (key, data) = (path_in(&node, "state/key"), path_in(&node, "plugin/data"));
    let stray = path_in(&node, "work/stray");
    let stream = libc::AF_UNIX.to_string();
    let new_user = (libc::CLONE_NEWUSER).to_string();
    let mut attempts: Vec<Vec<&str>> = vec![
        vec!["read", &key],
        vec!["write", &key],
        vec!["chmod", &key],
        vec!["link", &key, "key"],
        vec!["fchmod", &data],
        vec!["create", &stray],
        vec!["truncate", &key],
        vec!["truncate-open", &data],
        vec!["signal-parent", "0"],
        vec!["signal-parent-thread", "0"],
        vec!["signal-parent-tkill", "0"],
        vec!["signal-parent-queue", "18"],
        vec!["signal-parent-pidfd", "0"],
        vec!["parent-file", "environ"],
        vec!["parent-file", "maps"],
        vec!["read-parent-memory"],
        vec!["limit-parent"],
        vec!["socket", &stream],
        vec!["clone-parent"],
        vec!["shared-memory"],
        vec!["outlive"],
        vec!["new-session"],
        vec!["new-group"],
    ];
    if io_uring_is_there() {
        attempts.push(vec!["io-uring"]);
    }
    if probe().user_namespaces {
        attempts.extend([vec!["clone-user-namespace"], vec!["unshare", &new_user]]);
    }
    if rustix::process::getuid().is_root() {
        attempts.extend([vec!["mount"], vec!["ptrace-parent"], vec!["read", "/proc/1/cmdline"]]);
    }
    for what in attempts {
        assert_eq!(node.unconfined(&what), "done", "{what:?}");
    }
}

/// Whether the kernel has it and its owner has not turned it off.
fn io_uring_is_there() -> bool {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled").is_ok_and(|text| text.trim() == "0")
}

fn forbidden_files_stay_closed() {
    let node = Node::new();
    let key = path_in(&node, "state/key");
    node.refused(&["read", &key]);
    node.refused(&["write", &key]);
    node.refused(&["list", &path_in(&node, "state")]);
    node.refused(&["link", &key, "key"]);
    node.refused(&["rename", &key, "key"]);
    node.refused(&["shell", &format!("cat {key}")]);
    for path in ["/etc/passwd", "/proc/1/cmdline", "/root", "/home", "/dev/shm"] {
        if Path::new(path).exists() {
            node.refused(&[if Path::new(path).is_dir() { "list" } else { "read" }, path]);
        }
    }
    assert_eq!(fs::read_to_string(&key).expect("still there"), "the node's key");
}

fn the_plugin_directory_does_not_change() {
    let node = Node::new();
    let data = path_in(&node, "plugin/data");
    node.allowed(&["read", &data]);
    node.allowed(&["list", &path_in(&node, "plugin")]);
    node.refused(&["write", &data]);
    node.refused(&["create", &path_in(&node, "plugin/new")]);
    node.refused(&["rename", &data, &path_in(&node, "plugin/moved")]);
    assert_eq!(fs::read_to_string(&data).expect("still there"), "data");
}

fn nothing_is_made_outside_the_working_directory() {
    let node = Node::new();
    node.refused(&["create", &path_in(&node, "work/stray")]);
    node.refused(&["create", "/tmp/mutirao-stray"]);
    node.refused(&["create", "../stray"]);
    node.refused(&["create", "/dev/shm/mutirao-stray"]);
    assert!(!node.path("work/stray").exists());
}

fn modes_and_sizes_of_foreign_files_stay() {
    let node = Node::new();
    let (key, data) = (path_in(&node, "state/key"), path_in(&node, "plugin/data"));
    node.refused(&["chmod", &key]);
    node.refused(&["fchmod", &data]);
    node.refused(&["truncate", &key]);
    node.refused(&["truncate", &data]);
    node.refused(&["truncate-open", &data]);
    assert_eq!(fs::read_to_string(&data).expect("still there"), "data");
}

fn the_node_cannot_be_signalled() {
    let node = Node::new();
    // SIGCONT would do no harm here; signal 0 asks for the right only.
    for number in ["0", "18"] {
        for way in ["", "-thread", "-tkill", "-queue", "-pidfd"] {
            node.refused(&[&format!("signal-parent{way}"), number]);
        }
    }
    // From Landlock 6 on the kernel leaves out whoever is outside, and calls that a success.
    for (abi, end) in node.attempt(&["signal-all", "0"]) {
        assert!(abi >= 6 || end.channel.starts_with("refused"), "Landlock {abi}: {}", end.words());
    }
    // Either refused at once, or never delivered: this process would not live to see it.
    node.attempt(&["own-parent-descriptor"]);
}

fn the_node_cannot_be_looked_into() {
    let node = Node::new();
    for name in ["mem", "environ", "cmdline", "maps", "status"] {
        node.refused(&["parent-file", name]);
    }
    node.refused(&["ptrace-parent"]);
    node.refused(&["read-parent-memory"]);
}

fn the_node_cannot_be_slowed() {
    let node = Node::new();
    node.refused(&["limit-parent"]);
    node.refused(&["renice-parent"]);
    node.refused(&["schedule-parent"]);
}

fn sockets_are_closed() {
    let node = Node::new();
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK] {
        node.refused(&["socket", &family.to_string()]);
    }
    node.allowed(&["socketpair", &libc::SOCK_STREAM.to_string()]);
    node.allowed(&["socketpair", &libc::SOCK_SEQPACKET.to_string()]);
    node.refused(&["socketpair", &libc::SOCK_DGRAM.to_string()]);
    node.refused(&["socketpair", &libc::SOCK_RAW.to_string()]);
    node.refused(&["socketpair", &(libc::SOCK_DGRAM | libc::SOCK_CLOEXEC).to_string()]);
}

fn the_network_opens_when_asked_for() {
    let node = Node::new();
    let said = |family: i32| {
        let mut plan = node.plan(&["socket", &family.to_string()]);
        plan.network = true;
        node.run(&plan).channel
    };
    assert_eq!(said(libc::AF_INET), "done");
    assert!(said(libc::AF_UNIX).starts_with("refused"), "the node's socket stays closed");
    assert!(said(libc::AF_NETLINK).starts_with("refused"));
}

fn privileges_do_not_come_back() {
    let node = Node::new();
    node.allowed(&["no-privileges"]);
    let Some((program, user)) = set_uid_program(&node) else {
        println!("SKIPPED: no set-uid program can be made or works here");
        return;
    };
    let plan = node.program(&program, &["attempt", "be-user", &user.to_string()]);
    let end = node.run(&plan);
    assert!(end.channel.starts_with("refused: still user"), "{}", end.words());
}

/// A program that makes whoever starts it another user, and which; tried first without confinement.
fn set_uid_program(node: &Node) -> Option<(PathBuf, u32)> {
    let (program, user) = match std::env::var_os(SET_UID_ROOT) {
        Some(prepared) => (PathBuf::from(prepared), 0),
        None => {
            let program = node.path("plugin/set-uid");
            fs::copy(node.path("plugin/program"), &program).ok()?;
            std::os::unix::fs::chown(&program, Some(NOBODY), None).ok()?;
            fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).ok()?;
            (program, NOBODY)
        }
    };
    let works = Command::new(&program).arg("effective-user").output().ok()?;
    (String::from_utf8_lossy(&works.stdout).trim() == user.to_string()).then_some((program, user))
}

fn the_kernel_is_out_of_reach() {
    let node = Node::new();
    for what in
        ["mount", "clone-user-namespace", "clone-parent", "io-uring", "key-ring", "shared-memory", "outlive"]
    {
        node.refused(&[what]);
    }
    for flag in
        [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWNET, libc::CLONE_NEWPID | libc::CLONE_NEWUSER]
    {
        node.refused(&["unshare", &flag.to_string()]);
    }
    for number in
        [libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd, libc::SYS_setns, libc::SYS_clone3]
    {
        node.refused(&["call", &number.to_string()]);
    }
    node.allowed(&["unshare", &libc::CLONE_FS.to_string()]);
    node.allowed(&["die-with-parent"]);
}

fn other_architectures_are_no_way_round() {
    let node = Node::new();
    // A call of the future, and the x32 entry, whose numbers a list of calls does not hold.
    node.refused(&["call", "1000"]);
    if cfg!(target_arch = "x86_64") {
        node.refused(&["x32-getpid"]);
    }
}

fn the_process_group_holds() {
    let node = Node::new();
    node.refused(&["new-session"]);
    node.refused(&["new-group"]);
    let free = |what: &str| {
        let mut plan = node.plan(&[what]);
        plan.lock_group = false;
        node.run(&plan).channel
    };
    assert_eq!(free("new-group"), "done");
    assert_eq!(free("lock-group-then-new-group"), "refused: Operation not permitted (os error 1)");
}

fn only_what_is_listed_is_inherited() {
    let node = Node::new();
    node.allowed(&["no-descriptors"]);
    node.allowed(&["environment"]);
    let mut plan = node.plan(&["shell", "test \"$EXTRA\" = value && test -z \"$SECRET\""]);
    plan.environment = vec![("EXTRA".into(), "value".into())];
    plan.library_dirs = vec![node.path("plugin")];
    assert_eq!(node.run(&plan).channel, "done");
}

fn computations_work() {
    let node = Node::new();
    node.allowed(&["compute"]);
    node.allowed(&["read", "/proc/self/maps"]);
    node.allowed(&["read", "/proc/cpuinfo"]);
    node.allowed(&["execute", "/bin/ls"]);
    node.allowed(&["shell", "echo text > file && sort < file | cat > /dev/null && rm file"]);
}

fn ordinary_programs_work() {
    let node = Node::new();
    let end = node.run(&node.program(Path::new("/bin/ls"), &["/usr/share"]));
    assert!(end.status.success(), "ls: {}", end.words());

    let python = Path::new("/usr/bin/python3");
    if python.exists() {
        let script = "import hashlib, json, os, random, subprocess, tempfile, threading\n\
            subprocess.run(['/bin/true'], check=True)\n\
            tempfile.TemporaryFile().write(b'x')\n\
            os.write(3, hashlib.sha256(b'x').hexdigest().encode())";
        let end = node.run(&node.program(python, &["-c", script]));
        assert!(end.channel.starts_with("2d711642") && end.status.success(), "python: {}", end.words());
    } else {
        println!("SKIPPED: no {python:?}");
    }

    let source = "#include <unistd.h>\nint main(void) { return write(3, \"static\", 6) != 6; }\n";
    fs::write(node.path("program.c"), source).expect("written");
    let output = node.path("plugin/static");
    let built = Command::new("cc")
        .arg("-static")
        .arg("-o")
        .arg(&output)
        .arg(node.path("program.c"))
        .stderr(Stdio::null())
        .status();
    if built.is_ok_and(|status| status.success()) {
        let end = node.run(&node.program(&output, &[]));
        assert_eq!(end.channel, "static", "{}", end.words());
    } else {
        println!("SKIPPED: no C compiler that links statically");
    }
}

fn abort_ends_by_its_signal() {
    let node = Node::new();
    for (abi, end) in node.attempt(&["abort"]) {
        assert_eq!(end.status.signal(), Some(libc::SIGABRT), "Landlock {abi}: {}", end.words());
        assert!(!end.status.core_dumped());
    }
    node.allowed(&["abort-in-fork"]);
}

fn limits_hold() {
    let node = Node::new();
    let mut plan = node.plan(&["shell", "head -c 100000 /dev/zero > file"]);
    plan.limits.file_bytes = Some(10_000);
    let end = node.run(&plan);
    assert!(end.channel.starts_with("refused"), "{}", end.words());
    let mut plan = node.plan(&["compute"]);
    plan.limits.memory_bytes = Some(32 << 20);
    let end = node.run(&plan);
    assert!(!end.status.success() && end.channel.is_empty(), "64 MiB in 32: {}", end.words());
}

fn a_level_not_reached_is_said() {
    let node = Node::new();
    let mut plan = node.plan(&["environment"]);
    plan.landlock_abi_max = Some(0);
    let end = node.run(&plan);
    assert_eq!(end.status.code(), Some(Error::EXIT_LEVEL), "{}", end.words());
    assert!(end.stderr.contains("\"basic\"") && end.stderr.contains("\"files\""), "{}", end.stderr);
    plan.minimum = Level::Basic;
    assert_eq!(node.run(&plan).channel, "done");
    plan.landlock_abi_max = Some(5);
    plan.minimum = Level::Full;
    assert_eq!(node.run(&plan).status.code(), Some(Error::EXIT_LEVEL));
    if probe().level() == Level::Full {
        plan.landlock_abi_max = None;
        assert_eq!(node.run(&plan).channel, "done");
    }
}

fn bad_plans_are_refused() {
    let node = Node::new();
    let refused = |change: &dyn Fn(&mut mutirao_confine::Plan), code: i32| {
        let mut plan = node.plan(&["environment"]);
        change(&mut plan);
        let end = node.run(&plan);
        assert_eq!(end.status.code(), Some(code), "{}", end.words());
        assert!(end.stderr.starts_with("mutirao worker: "), "{}", end.stderr);
    };
    refused(&|plan| plan.readable.push("/".into()), Error::EXIT_PLAN);
    refused(&|plan| plan.readable.push("/usr/..".into()), Error::EXIT_PLAN);
    refused(&|plan| plan.readable.push("relative".into()), Error::EXIT_PLAN);
    refused(&|plan| plan.work_dir = plan.plugin_dir.join("inside"), Error::EXIT_PLAN);
    refused(&|plan| plan.environment.push(("LD_PRELOAD=x".into(), "y".into())), Error::EXIT_PLAN);
    refused(&|plan| plan.environment.push(("HOME".into(), "/".into())), Error::EXIT_PLAN);
    refused(&|plan| plan.node_pid = 1, Error::EXIT_PLAN);
    refused(&|plan| plan.work_dir = node.path("nowhere"), Error::EXIT_STEP);
    refused(&|plan| plan.executable = node.path("plugin/none"), Error::EXIT_STEP);
    refused(&|plan| plan.executable = node.path("plugin/data"), Error::EXIT_EXEC);
}

fn a_program_still_being_written_is_waited_for() {
    let node = Node::new();
    let program = node.path("plugin/fresh");
    fs::copy(node.path("plugin/program"), &program).expect("copied");
    let plan = node.program(&program, &["attempt", "environment"]);
    let writer = fs::OpenOptions::new().append(true).open(&program).expect("opened");
    let end = std::thread::scope(|scope| {
        let worker = scope.spawn(|| node.run(&plan));
        std::thread::sleep(std::time::Duration::from_millis(200));
        drop(writer);
        worker.join().expect("it ends")
    });
    assert_eq!(end.channel, "done", "{}", end.words());
}

/// The thread that starts a worker stands for the node: when it ends, so does the worker.
fn a_worker_dies_with_its_node() {
    let node = Node::new();
    let plan = node.program(Path::new("/bin/sleep"), &["600"]);
    let end = std::thread::scope(|scope| {
        let started = scope.spawn(|| {
            let (mut mine, its) = std::os::unix::net::UnixStream::pair().expect("a pair");
            let child = Command::new(node.path("plugin/program"))
                .arg("worker")
                .stdin(std::os::fd::OwnedFd::from(its))
                .spawn()
                .expect("the worker starts");
            plan.send(&mut mine).expect("sent");
            let name = format!("/proc/{}/comm", child.id());
            let patience = std::time::Instant::now();
            while fs::read_to_string(&name).expect("it runs").trim() != "sleep" {
                assert!(patience.elapsed().as_secs() < 60, "the plugin is not executed");
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            child
        });
        started.join().expect("started").wait().expect("it ends")
    });
    assert_eq!(end.signal(), Some(libc::SIGKILL));
}
