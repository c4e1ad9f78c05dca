//! The steps from a started process to a confined plugin.

use crate::error::{Error, at};
use crate::level::{Level, Report, probe};
use crate::plan::{CHANNEL_FD, Plan};
use crate::{filter, landlocked, raw};
use rustix::process::Signal;
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The whole of `mutirao worker`: takes standard input for the channel, reads the plan from it,
/// confines this process and executes the plugin.
///
/// Returns never; an error is told on standard error, with [`Error::exit_code`].
pub fn worker_main() -> ! {
    let started = || -> Result<Infallible, Error> {
        let channel = io::stdin().as_fd().try_clone_to_owned().map_err(Error::PlanMissing)?;
        let mut reader = File::from(channel);
        let plan = Plan::receive(&mut reader)?;
        apply_and_exec(&plan, reader.into())
    };
    let Err(error) = started();
    eprintln!("mutirao worker: {error}");
    std::process::exit(error.exit_code())
}

/// Confines this process as `plan` says and executes the plugin, with `channel` as descriptor 3.
///
/// In this order:
/// 1. The plan is checked, and that this machine can reach its minimum.
/// 2. A session of its own, unless the node has already made this process a group leader; files are
///    made for this user only (umask 077).
/// 3. The kernel is told to kill this process when the *thread* that started it ends; then the
///    parent is checked to be the node still. Start workers from a thread that lives as long as the
///    node.
/// 4. Descriptors: 0 and 1 become `/dev/null`, 2 stays, 3 is the channel, all others are marked to be
///    closed by `execve`.
/// 5. The working directory becomes the current one.
/// 6. No new privileges: from here on set-uid bits and file capabilities do nothing.
/// 7. Capabilities: ambient, bounding, then effective, permitted and inheritable are emptied.
/// 8. Limits.
/// 9. Landlock, as much of it as the kernel has; then an attempt that must fail.
/// 10. The system-call filter, last, because it forbids some of the above.
/// 11. The level reached is compared with the minimum.
/// 12. `execve`, with the plan's environment only. It makes the process dumpable, which lets nobody
///     in: whoever may look is outside, and other workers have Landlock domains of their own. The
///     node should not be dumpable itself.
///
/// A plan that is not to confine leaves out 6, 7 and 9 to 11.
///
/// On an error the process is confined in part and must exit.
pub fn apply_and_exec(plan: &Plan, channel: OwnedFd) -> Result<Infallible, Error> {
    plan.check()?;
    let report = probe().capped(plan.landlock_abi_max);
    let possible = if plan.confined { report.level() } else { Level::None };
    require(plan.minimum, possible, &report)?;

    // Fails in a process that leads its group already, which is as good.
    let _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));

    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(at("tie this worker to its node"))?;
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if u32::try_from(parent) != Ok(plan.node_pid) {
        return Err(Error::NodeGone);
    }

    descriptors(channel)?;
    Plan::open_dir(&plan.plugin_dir)?;
    let entered = |source| Error::Path { path: plan.work_dir.clone(), source };
    std::env::set_current_dir(&plan.work_dir).map_err(entered)?;

    if !plan.confined {
        plan.limits.apply()?;
        return Err(execute(plan)?);
    }
    rustix::thread::set_no_new_privs(true).map_err(at("forbid new privileges"))?;
    drop_capabilities()?;
    plan.limits.apply()?;

    let files = report.files() && {
        landlocked::restrict(plan, report.landlock_abi)?;
        landlocked::verify()?
    };
    let filtered = report.seccomp && {
        filter::install(plan, &report)?;
        raw::seccomp_filtering()
    };
    let reached = match (filtered, files) {
        (true, true) => report.level(),
        (true, false) => Level::Basic,
        (false, _) => Level::None,
    };
    require(plan.minimum, reached, &report)?;
    Err(execute(plan)?)
}

/// Executes the plugin; gives back why it could not.
fn execute(plan: &Plan) -> Result<Error, Error> {
    let mut plugin = Command::new(&plan.executable);
    plugin.args(&plan.arguments).env_clear().envs(plan.whole_environment()?);
    Ok(Error::Exec { path: plan.executable.clone(), source: exec(&mut plugin) })
}

/// Executes, unless it fails. A file just written is "busy" while any process forked meanwhile still
/// holds the writer's descriptor, which its own `execve` closes: that is waited for.
fn exec(plugin: &mut Command) -> io::Error {
    const PATIENCE: Duration = Duration::from_secs(1);
    const PAUSE: Duration = Duration::from_millis(2);
    let begun = Instant::now();
    loop {
        let error = plugin.exec();
        if error.kind() != io::ErrorKind::ExecutableFileBusy || begun.elapsed() > PATIENCE {
            return error;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Keeps this process and all it starts from leaving its process group, so that a signal to the group
/// reaches every one of them. For the workers that a template forks, after each has got its group.
pub fn lock_group() -> Result<(), Error> {
    rustix::thread::set_no_new_privs(true).map_err(at("forbid new privileges"))?;
    filter::install_group_lock()
}

fn require(asked: Level, reached: Level, report: &Report) -> Result<(), Error> {
    if reached >= asked {
        return Ok(());
    }
    Err(Error::Level { asked, reached, why: report.words() })
}

fn descriptors(channel: OwnedFd) -> Result<(), Error> {
    let null = Path::new("/dev/null");
    let opened = OpenOptions::new().read(true).write(true).open(null);
    let null = opened.map_err(|source| Error::Path { path: null.to_owned(), source })?;
    raw::keep_as(channel, CHANNEL_FD).map_err(at("place the channel"))?;
    rustix::stdio::dup2_stdin(&null).map_err(at("empty standard input"))?;
    rustix::stdio::dup2_stdout(&null).map_err(at("empty standard output"))?;
    raw::close_on_exec_from(CHANNEL_FD + 1).map_err(at("close what the node had open"))
}

fn drop_capabilities() -> Result<(), Error> {
    // Kernels without ambient capabilities have none to clear.
    let _ = rustix::thread::clear_ambient_capability_set();
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        // An error marks the end of the capabilities this kernel knows.
        if !rustix::thread::capability_is_in_bounding_set(one).unwrap_or(false) {
            continue;
        }
        // An ordinary user may not, and cannot gain from the set either, with no new privileges.
        let _ = rustix::thread::remove_capability_from_bounding_set(one);
    }
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )
    .map_err(at("give up capabilities"))
}
