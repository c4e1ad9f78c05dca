//! Bags with a keeper: what a task costs there, what the journal takes of it, how soon the first task starts, and how
//! much memory the keeper of a large one needs.

use crate::bench::idle::status_kib;
use crate::bench::pool::TestPool;
use anyhow::{Context, Result, bail, ensure};
use mutirao_wire::session::{FromKeeper, TaskEnd, ToKeeper, decode, encode, length};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::net::sockopt::socket_peercred;
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where files lie in memory, on most systems.
const IN_MEMORY: &str = "/dev/shm";
/// Tasks that go before those that are counted, so that workers are there.
const WARM_UP: u64 = 200;
/// A first task starts within so long, and a bag that is closed is gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at whether it is.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Seconds that so many commands take which do nothing: `bag run`, from its start to its end.
pub fn run_commands(test: &TestPool, tasks: u64) -> Result<f64> {
    let file = write_file(test, &format!("[task.nothing]\ncommand = ['true']\nrepeat = {tasks}\n"))?;
    let begin = Instant::now();
    let done = bag(test, &["run", &file])?.stdout(Stdio::null()).output()?;
    ensure!(done.status.success(), "`bag run`: {}", String::from_utf8_lossy(&done.stderr));
    Ok(begin.elapsed().as_secs_f64())
}

/// Operations a second that do nothing, as tasks that a program pushes; from the first to the end of the last.
pub fn push_operations(test: &TestPool, tasks: u64) -> Result<f64> {
    let mut program = Program::open(test)?;
    program.run(WARM_UP)?;
    let begin = Instant::now();
    program.run(tasks)?;
    Ok(tasks as f64 / begin.elapsed().as_secs_f64())
}

/// The same while the bag lies in memory: nothing waits for a disk. Nothing where there is no place for that.
pub fn push_operations_in_memory(test: &TestPool, tasks: u64) -> Result<Option<f64>> {
    let Ok(memory) = tempfile::Builder::new().prefix("mutirao-bench-").tempdir_in(IN_MEMORY) else {
        return Ok(None);
    };
    let (bags, aside) = (bags(test), test.home().join("bags-on-disk"));
    std::fs::create_dir_all(&bags)?;
    std::fs::rename(&bags, &aside)?;
    std::os::unix::fs::symlink(memory.path(), &bags)?;
    let rate = push_operations(test, tasks);
    std::fs::remove_file(&bags)?;
    std::fs::rename(aside, bags)?;
    rate.map(Some)
}

/// Whether the bags of the pool lie on a disk.
pub fn is_on_disk(test: &TestPool) -> Result<bool> {
    /// `TMPFS_MAGIC`
    const IN_MEMORY: i64 = 0x0102_1994;
    Ok(rustix::fs::statfs(test.directory())?.f_type as i64 != IN_MEMORY)
}

/// Microseconds from the start of `bag submit` until the only task of the bag runs, once each round.
pub fn first_task(test: &TestPool, rounds: u32) -> Result<Vec<f64>> {
    let mut times_us = Vec::new();
    for round in 0..rounds {
        let name = format!("began-{round}");
        let path = test.directory().join(&name);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let began = open(&path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
        let file = write_file(test, &format!("[task.first]\ncommand = 'echo > {}'\n", path.display()))?;
        let begin = Instant::now();
        let number = submit(test, &file)?;
        let heard = poll(&mut [PollFd::new(&began, PollFlags::IN)], Some(&Timespec::try_from(PATIENCE)?))?;
        ensure!(heard == 1, "no task began in {} s", PATIENCE.as_secs());
        times_us.push(begin.elapsed().as_secs_f64() * 1e6);
        ensure!(bag(test, &["wait", &number])?.status()?.success(), "a task that only says so failed");
    }
    times_us.sort_by(f64::total_cmp);
    Ok(times_us)
}

/// A bag none of whose tasks can run.
pub struct Large {
    /// From the start of `bag submit` until its keeper has it.
    pub seconds: f64,
    /// What the keeper holds.
    pub resident_kib: u64,
}

/// Submits a bag of so many tasks, an argument each, and looks at its keeper.
pub fn large(test: &TestPool, tasks: u64) -> Result<Large> {
    let lines: String = (0..tasks).map(|line| format!("{line:07}\n")).collect();
    std::fs::write(test.directory().join("lines"), lines)?;
    let text = "nodes = ['nobody']\n[task.solve]\ncommand = ['true', '{line}']\nlines = 'lines'\n";
    let file = write_file(test, text)?;
    let begin = Instant::now();
    let number = submit(test, &file)?;
    let keeper = UnixStream::connect(bags(test).join(&number).join("keeper"));
    let keeper = socket_peercred(&keeper.context("the keeper is not there")?)?.pid;
    let seconds = begin.elapsed().as_secs_f64();
    Ok(Large { seconds, resident_kib: status_kib(keeper, "VmRSS:")? })
}

fn bags(test: &TestPool) -> PathBuf {
    test.home().join("bags")
}

fn write_file(test: &TestPool, text: &str) -> Result<String> {
    std::fs::write(test.directory().join("bag.toml"), text)?;
    Ok("bag.toml".into())
}

fn bag(test: &TestPool, words: &[&str]) -> Result<Command> {
    let mut command = test.command("n1")?;
    command.arg("bag").args(words).current_dir(test.directory()).stderr(Stdio::piped());
    Ok(command)
}

/// The number of the bag that is submitted.
fn submit(test: &TestPool, file: &str) -> Result<String> {
    let submitted = bag(test, &["submit", file])?.output()?;
    ensure!(submitted.status.success(), "`bag submit`: {}", String::from_utf8_lossy(&submitted.stderr));
    Ok(String::from_utf8(submitted.stdout)?.trim_end().to_owned())
}

/// A program that has a bag of its own open, as one does with the library: this one, whose environment cannot be that of
/// the pool.
struct Program {
    stream: UnixStream,
    session: Child,
    /// Where its bag lies, which its keeper removes.
    bag: PathBuf,
}

impl Program {
    fn open(test: &TestPool) -> Result<Program> {
        let (stream, its) = UnixStream::pair()?;
        let mut command = test.command("n1")?;
        command.arg("session").arg("--program").arg(std::env::current_exe()?);
        command.args(crate::operations().iter().map(|operation| format!("--operation={}", operation.name)));
        let session = command.stdin(OwnedFd::from(its)).stdout(Stdio::null()).spawn()?;
        // The other end is that process's alone.
        drop(command);
        let mut program = Program { stream, session, bag: bags(test) };
        match read(&mut program.stream)? {
            FromKeeper::Begun { bag, .. } => {
                program.bag.push(bag.to_string());
                Ok(program)
            }
            FromKeeper::Failed(why) => bail!(why),
            FromKeeper::Ended { .. } => bail!("the keeper did not begin"),
        }
    }

    /// Pushes so many tasks while their results are read.
    fn run(&mut self, tasks: u64) -> Result<()> {
        let mut to_keeper = BufWriter::new(self.stream.try_clone()?);
        let mut from_keeper = BufReader::new(&self.stream);
        std::thread::scope(|scope| {
            let pusher = scope.spawn(move || -> std::io::Result<()> {
                let task = encode(&ToKeeper::Push { operation: "sink".into(), argument: Vec::new() });
                (0..tasks).try_for_each(|_| to_keeper.write_all(&task))?;
                to_keeper.flush()
            });
            for _ in 0..tasks {
                match read(&mut from_keeper)? {
                    FromKeeper::Ended { end: TaskEnd::Done(_), .. } => {}
                    FromKeeper::Failed(why) => bail!(why),
                    other => bail!("instead of a result came {other:?}"),
                }
            }
            match pusher.join() {
                Ok(pushed) => Ok(pushed?),
                Err(_) => bail!("the thread that pushes tasks failed"),
            }
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        let _ = self.session.wait();
        let begin = Instant::now();
        while self.bag.join("journal").exists() && begin.elapsed() < PATIENCE {
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

fn read(stream: &mut impl Read) -> Result<FromKeeper> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).context("the keeper has gone")?;
    let mut body = vec![0; length(head)?];
    stream.read_exact(&mut body).context("the keeper has gone")?;
    Ok(decode(&body)?)
}
