//! What is denied, each with its reason.

use libc::{EACCES, ENOSYS, EOPNOTSUPP, EPERM};
use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

/// What the list depends on.
pub(super) struct When {
    /// IP sockets are allowed.
    pub network: bool,
    /// The kernel does not keep signals inside the worker.
    pub old_signals: bool,
    /// The kernel does not hold truncation.
    pub old_truncate: bool,
    /// The worker's first process: the caller.
    pub own_pid: u32,
    /// The node.
    pub node_pid: u32,
}

/// One denied call.
pub(super) struct Entry {
    /// Its number.
    pub call: i64,
    /// What it answers: an error number, or 0 as if it were done.
    pub error: i32,
    /// Denied when any of them matches; always when there is none.
    pub rules: Vec<SeccompRule>,
}

fn always(error: i32, calls: &[i64]) -> impl Iterator<Item = Entry> {
    calls.iter().map(move |&call| Entry { call, error, rules: Vec::new() })
}

fn if_any(error: i32, call: i64, rules: Vec<SeccompRule>) -> Entry {
    Entry { call, error, rules }
}

/// A rule that matches when all the conditions hold. Each is (argument, comparison, value) on the low
/// 32 bits, which is all that the calls below look at.
fn all<const N: usize>(conditions: [(u8, SeccompCmpOp, u32); N]) -> SeccompRule {
    let conditions = conditions.map(|(argument, compare, value)| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, compare, u64::from(value))
            .expect("the list names arguments below six only")
    });
    SeccompRule::new(conditions.to_vec()).expect("the list has at least one condition a rule")
}

use SeccompCmpOp::{Eq, MaskedEq, Ne};

/// Calls that libc does not name on all architectures. Those since 2019 have one number everywhere.
mod number {
    #[cfg(target_arch = "x86_64")]
    pub const KEXEC_FILE_LOAD: i64 = 320;
    #[cfg(not(target_arch = "x86_64"))]
    pub const KEXEC_FILE_LOAD: i64 = 294;
    pub const PIDFD_SEND_SIGNAL: i64 = 424;
    pub const IO_URING_SETUP: i64 = 425;
    pub const IO_URING_ENTER: i64 = 426;
    pub const IO_URING_REGISTER: i64 = 427;
    pub const OPEN_TREE: i64 = 428;
    pub const MOVE_MOUNT: i64 = 429;
    pub const FSOPEN: i64 = 430;
    pub const FSCONFIG: i64 = 431;
    pub const FSMOUNT: i64 = 432;
    pub const FSPICK: i64 = 433;
    pub const CLONE3: i64 = 435;
    pub const OPENAT2: i64 = 437;
    pub const PIDFD_GETFD: i64 = 438;
    pub const PROCESS_MADVISE: i64 = 440;
    pub const MOUNT_SETATTR: i64 = 442;
    pub const QUOTACTL_FD: i64 = 443;
    pub const PROCESS_MRELEASE: i64 = 448;
    pub const FCHMODAT2: i64 = 452;
    pub const STATMOUNT: i64 = 457;
    pub const LISTMOUNT: i64 = 458;
    pub const SETXATTRAT: i64 = 463;
    pub const REMOVEXATTRAT: i64 = 466;
    pub const OPEN_TREE_ATTR: i64 = 467;
    pub const FILE_SETATTR: i64 = 469;
}

const NAMESPACES: [u32; 7] = [
    libc::CLONE_NEWNS as u32,
    libc::CLONE_NEWCGROUP as u32,
    libc::CLONE_NEWUTS as u32,
    libc::CLONE_NEWIPC as u32,
    libc::CLONE_NEWUSER as u32,
    libc::CLONE_NEWPID as u32,
    libc::CLONE_NEWNET as u32,
];

/// The whole list for a worker.
pub(super) fn entries(when: &When) -> Vec<Entry> {
    let mut list = Vec::new();
    list.extend(other_processes());
    list.extend(kernel());
    list.extend(namespaces());
    list.extend(metadata());
    list.extend(sockets(when));
    list.extend(scheduling());
    if when.old_signals {
        list.extend(signals(when));
    }
    if when.old_truncate {
        list.extend(truncation());
    }
    list
}

/// Leaving the process group, by which the node ends a worker with all it started.
pub(super) fn group_lock() -> Vec<Entry> {
    let mut list: Vec<Entry> = always(EPERM, &[libc::SYS_setsid, libc::SYS_setpgid]).collect();
    // A terminal of such a worker has the one group there can be. A shell that makes one of its own and gives it the
    // terminal is to go on: the kernel would give it to a group that is not there, from which nobody can read.
    const DONE: i32 = 0;
    const TIOCSPGRP: u32 = 0x5410;
    list.push(if_any(DONE, libc::SYS_ioctl, vec![all([(1, Eq, TIOCSPGRP)])]));
    list
}

/// Reaching into other processes.
fn other_processes() -> Vec<Entry> {
    let mut list: Vec<Entry> = always(
        EPERM,
        &[
            // Tracing, and reading or writing foreign memory.
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            number::PROCESS_MADVISE,
            number::PROCESS_MRELEASE,
            // Tells whether two processes share something, a hint for attacks on the kernel.
            libc::SYS_kcmp,
            // Takes a descriptor out of another process.
            number::PIDFD_GETFD,
            // Moves the memory of other processes between NUMA nodes; one's own has mbind.
            libc::SYS_migrate_pages,
            libc::SYS_move_pages,
            // System V memory, semaphores and queues, and POSIX queues, are found by number or name
            // across all processes of the user; Landlock does not see them.
            libc::SYS_shmget,
            libc::SYS_shmat,
            libc::SYS_shmctl,
            libc::SYS_semget,
            libc::SYS_semop,
            libc::SYS_semtimedop,
            libc::SYS_semctl,
            libc::SYS_msgget,
            libc::SYS_msgsnd,
            libc::SYS_msgrcv,
            libc::SYS_msgctl,
            libc::SYS_mq_open,
            libc::SYS_mq_unlink,
        ],
    )
    .collect();
    // Limits of another process of the user: a processor limit of a second would end the node.
    list.push(if_any(EPERM, libc::SYS_prlimit64, vec![all([(0, Ne, 0)])]));
    // Outliving the node: the death signal may be set to SIGKILL, as forked workers do, and to
    // nothing else.
    let death = libc::PR_SET_PDEATHSIG.unsigned_abs();
    let kill = libc::SIGKILL.unsigned_abs();
    list.push(if_any(EPERM, libc::SYS_prctl, vec![all([(0, Eq, death), (1, Ne, kill)])]));
    // Typing into the terminal of whoever started the node, and driving its console. Other ways of reading a
    // terminal than the ordinary one, which the kernel would load drivers for.
    const TIOCSTI: u32 = 0x5412;
    const TIOCLINUX: u32 = 0x541C;
    const TIOCSETD: u32 = 0x5423;
    list.push(if_any(
        EPERM,
        libc::SYS_ioctl,
        [TIOCSTI, TIOCLINUX, TIOCSETD].map(|command| all([(1, Eq, command)])).to_vec(),
    ));
    list
}

/// Parts of the kernel that a computation has no use for. Most need capabilities that the worker has
/// given up; the filter spares relying on each of those checks.
fn kernel() -> Vec<Entry> {
    let mut list: Vec<Entry> = always(
        EPERM,
        &[
            // Programs inside the kernel, and counters that see other processes.
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            // Stops the kernel in the middle of a copy, a common helper of exploits.
            libc::SYS_userfaultfd,
            // Key rings belong to the user, not to the process: the owner's keys would be in reach.
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            // Opens files by number, past every directory.
            libc::SYS_open_by_handle_at,
            // Watches whole file systems.
            libc::SYS_fanotify_init,
            // File systems.
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_quotactl,
            number::QUOTACTL_FD,
            number::OPEN_TREE,
            number::OPEN_TREE_ATTR,
            number::MOVE_MOUNT,
            number::FSOPEN,
            number::FSCONFIG,
            number::FSMOUNT,
            number::FSPICK,
            number::MOUNT_SETATTR,
            number::STATMOUNT,
            number::LISTMOUNT,
            // The machine itself: modules, another kernel, restart, accounting, kernel log, clock, names.
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_kexec_load,
            number::KEXEC_FILE_LOAD,
            libc::SYS_reboot,
            libc::SYS_acct,
            libc::SYS_syslog,
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_sethostname,
            libc::SYS_setdomainname,
            libc::SYS_vhangup,
            // Ports of devices and segments of 16-bit programs.
            #[cfg(target_arch = "x86_64")]
            libc::SYS_iopl,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_ioperm,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_modify_ldt,
        ],
    )
    .collect();
    // Its requests are carried out by the kernel without passing a filter: sockets would be open
    // again. Programs fall back when it is not there.
    list.extend(always(ENOSYS, &[number::IO_URING_SETUP, number::IO_URING_ENTER, number::IO_URING_REGISTER]));
    // Old execution domains. Asking, the ordinary ones, and a fixed address layout, which some
    // language runtimes insist on, are let through.
    const ADDR_NO_RANDOMIZE: u32 = 0x0004_0000;
    const ASK: u32 = u32::MAX;
    let other = all([(0, Ne, ASK), (0, Ne, 0), (0, Ne, ADDR_NO_RANDOMIZE)]);
    list.push(if_any(EPERM, libc::SYS_personality, vec![other]));
    list
}

/// Namespaces give capabilities inside, and with them most of what the kernel guards by capability.
fn namespaces() -> Vec<Entry> {
    const CLONE_NEWTIME: u32 = 0x80;
    let flag = |flag: u32| all([(0, MaskedEq(u64::from(flag)), flag)]);
    let mut clone: Vec<SeccompRule> = NAMESPACES.map(flag).to_vec();
    let mut unshare = clone.clone();
    // In clone this bit is part of the exit signal.
    unshare.push(flag(CLONE_NEWTIME));
    // A child of the node instead of the worker's.
    clone.push(flag(libc::CLONE_PARENT as u32));
    let mut list = vec![if_any(EPERM, libc::SYS_clone, clone), if_any(EPERM, libc::SYS_unshare, unshare)];
    list.extend(always(EPERM, &[libc::SYS_setns]));
    // Keeps its flags in memory, where a filter cannot look; every libc falls back to clone.
    list.extend(always(ENOSYS, &[number::CLONE3]));
    list
}

/// Modes, owners and attributes of files, which Landlock does not hold: the node's keys could be made
/// readable for all, its blobs unusable. The price: a plugin sets modes by creating, not by changing.
fn metadata() -> Vec<Entry> {
    let mut list: Vec<Entry> = always(
        EPERM,
        &[
            #[cfg(target_arch = "x86_64")]
            libc::SYS_chmod,
            libc::SYS_fchmod,
            libc::SYS_fchmodat,
            number::FCHMODAT2,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_chown,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_lchown,
            libc::SYS_fchown,
            libc::SYS_fchownat,
            number::FILE_SETATTR,
        ],
    )
    .collect();
    // As on a file system without attributes: copying programs go on without.
    list.extend(always(
        EOPNOTSUPP,
        &[
            libc::SYS_setxattr,
            libc::SYS_lsetxattr,
            libc::SYS_fsetxattr,
            libc::SYS_removexattr,
            libc::SYS_lremovexattr,
            libc::SYS_fremovexattr,
            number::SETXATTRAT,
            number::REMOVEXATTRAT,
        ],
    ));
    list
}

/// Sockets: the network, and the local sockets of the node and of everything else on the machine.
fn sockets(when: &When) -> Vec<Entry> {
    let [unix, inet, inet6] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6].map(i32::unsigned_abs);
    let [datagram, raw] = [libc::SOCK_DGRAM, libc::SOCK_RAW].map(i32::unsigned_abs);
    const TYPE_MASK: u64 = 0xf;
    // Pairs join processes of the worker. One of datagrams could still send to any address, and a
    // raw one of this family is made one of datagrams.
    let pair = vec![
        all([(0, Ne, unix)]),
        all([(1, MaskedEq(TYPE_MASK), datagram)]),
        all([(1, MaskedEq(TYPE_MASK), raw)]),
    ];
    let mut list = vec![if_any(EACCES, libc::SYS_socketpair, pair)];
    if when.network {
        // Local sockets stay closed: the node's is one of them. So do netlink, packets, key rings.
        list.push(if_any(EACCES, libc::SYS_socket, vec![all([(0, Ne, inet), (0, Ne, inet6)])]));
        return list;
    }
    // A socket that the node passed on carries data; it cannot be disconnected and turned elsewhere.
    list.extend(always(
        EACCES,
        &[
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_accept,
            libc::SYS_accept4,
        ],
    ));
    list
}

/// Priorities of other processes of the user: a starved node misses its beats. A thread changes its
/// own by naming itself with 0, as it must here.
fn scheduling() -> Vec<Entry> {
    let other = |argument| vec![all([(argument, Ne, 0)])];
    const PROCESS: u32 = 0;
    vec![
        if_any(EPERM, libc::SYS_sched_setaffinity, other(0)),
        if_any(EPERM, libc::SYS_sched_setscheduler, other(0)),
        if_any(EPERM, libc::SYS_sched_setparam, other(0)),
        if_any(EPERM, libc::SYS_sched_setattr, other(0)),
        if_any(EPERM, libc::SYS_setpriority, vec![all([(0, Ne, PROCESS)]), all([(1, Ne, 0)])]),
        // The first argument of ioprio_set is 1 for a process.
        if_any(EPERM, libc::SYS_ioprio_set, vec![all([(0, Ne, 1)]), all([(1, Ne, 0)])]),
    ]
}

/// Signals, where the kernel does not keep them inside (see the module's page).
fn signals(when: &When) -> Vec<Entry> {
    let own_or_group = vec![all([(0, Ne, when.own_pid), (0, Ne, 0)])];
    let node = vec![all([(0, Eq, when.node_pid)])];
    let mut list = vec![
        // The number may be that of any thread of the node, so only what is surely one's own passes.
        if_any(EPERM, libc::SYS_kill, own_or_group),
        if_any(EPERM, libc::SYS_rt_sigqueueinfo, vec![all([(0, Ne, when.own_pid)])]),
        // These name process and thread, and the kernel checks that they belong together.
        if_any(EPERM, libc::SYS_tgkill, node.clone()),
        if_any(EPERM, libc::SYS_rt_tgsigqueueinfo, node),
    ];
    list.extend(always(EPERM, &[libc::SYS_tkill, number::PIDFD_SEND_SIGNAL]));
    // A descriptor can be told to signal a process of one's choice when it becomes ready.
    let command = |command| all([(1, Eq, command)]);
    const F_SETOWN_EX: u32 = 15;
    const F_SETSIG: u32 = 10;
    let owner = [libc::F_SETOWN.unsigned_abs(), F_SETOWN_EX, F_SETSIG].map(command).to_vec();
    list.push(if_any(EPERM, libc::SYS_fcntl, owner));
    const FIOSETOWN: u32 = 0x8901;
    const SIOCSPGRP: u32 = 0x8902;
    list.push(if_any(EPERM, libc::SYS_ioctl, [FIOSETOWN, SIOCSPGRP].map(command).to_vec()));
    list
}

/// Emptying files that can be read, where Landlock does not hold that yet.
fn truncation() -> Vec<Entry> {
    let mask = (libc::O_TRUNC | libc::O_ACCMODE).unsigned_abs();
    let empties = |argument| vec![all([(argument, MaskedEq(u64::from(mask)), libc::O_TRUNC.unsigned_abs())])];
    let mut list: Vec<Entry> = always(EACCES, &[libc::SYS_truncate]).collect();
    #[cfg(target_arch = "x86_64")]
    list.push(if_any(EACCES, libc::SYS_open, empties(1)));
    list.push(if_any(EACCES, libc::SYS_openat, empties(2)));
    // Keeps its flags in memory; programs fall back to openat.
    list.extend(always(ENOSYS, &[number::OPENAT2]));
    list
}
