//! `mutirao group replay`: one process of a group again, alone, with what it received then.

use super::bring::name_of;
use super::record::{hash_of, input_name, record_name, records_in, stem};
use crate::output::remark;
use anyhow::{Context, Result, bail};
use clap::Args;
use mutirao::group::RecordReader;
use mutirao_group::plan::REPLAY_ENV;
use mutirao_group::record::Preamble;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Options of `group replay`.
#[derive(Debug, Args)]
#[command(after_help = "\
The process runs here, as you, and not confined. It receives what it received when it was recorded, in the
same order, and finds the same arguments, variables and files. What it sends goes nowhere; where it is not
what it sent then, that is told on standard error. It runs in DIR/PROCESS.dir, and reads the standard input
of then. With a debugger or another program in front, standard input is this terminal's.

The time, random numbers, files elsewhere and the order of threads are not recorded.

Examples:
  mutirao group run mandel.app --record run1
  mutirao group replay run1 --process gmandel.1
  mutirao group replay run1 --process gmandel.1 -- gdb --args
  mutirao group replay run1 --process gmandel.1 -- valgrind --quiet")]
pub struct ReplayArgs {
    /// The directory of the records
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// The process, such as `gmandel.1`
    #[arg(long, value_name = "PROCESS")]
    pub process: String,
    /// Which of its lives, if it was started again
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub life: u32,
    /// A program, and its arguments, that is to run the process: its executable and arguments follow
    #[arg(last = true, value_name = "DEBUGGER")]
    pub debugger: Vec<String>,
}

/// Runs it; comes back only if that cannot be.
pub fn run(args: &ReplayArgs) -> Result<u8> {
    let ReplayArgs { directory, process, life, debugger } = args;
    let directory = fs::canonicalize(directory)
        .with_context(|| format!("cannot find the records in `{}`", directory.display()))?;
    let record = directory.join(record_name(process, *life));
    if !record.exists() {
        let names = records_in(&directory)?;
        let names: Vec<String> = names.iter().take(8).map(|path| format!("`{}`", name_of(path))).collect();
        bail!(
            "`{}` has no record of life {life} of `{process}`; it has {}",
            directory.display(),
            if names.is_empty() { "none".into() } else { names.join(", ") }
        );
    }
    let Preamble { plan, origin, .. } = RecordReader::open(&record)?.1;
    let executable = Path::new(&origin.executable);
    match hash_of(executable) {
        Ok(hash) if hash != origin.hash => {
            remark!("mutirao: `{}` is not as it was when it was recorded", executable.display());
        }
        Ok(_) => {}
        Err(error) => bail!("cannot run `{}`: {error}", executable.display()),
    }
    let place = directory.join(format!("{}.dir", stem(process, *life)));
    settle(&place, &origin.files)?;
    let mut words = debugger.iter().map(String::as_str).chain([origin.executable.as_str()]);
    let program = words.next().unwrap_or_default();
    let mut command = Command::new(program);
    command
        .args(words)
        .args(&origin.arguments)
        .envs(origin.environment.iter().map(|(name, value)| (name, value)))
        .envs(plan.variables())
        .env(REPLAY_ENV, &record)
        .current_dir(origin.directory.as_ref().map(Path::new).filter(|path| path.is_dir()).unwrap_or(&place));
    if debugger.is_empty() {
        command.stdin(match File::open(directory.join(input_name(process, *life))) {
            Ok(input) => Stdio::from(input),
            Err(_) => Stdio::null(),
        });
    }
    // In the place of this program: signals and the terminal are the debugger's.
    Err(command.exec()).with_context(|| format!("cannot run `{program}`"))
}

/// A directory with the files that the process found in its own.
fn settle(place: &Path, files: &[String]) -> Result<()> {
    let failed = || format!("cannot make the directory `{}`", place.display());
    fs::create_dir_all(place).with_context(failed)?;
    for file in files.iter().map(Path::new) {
        match symlink(file, place.join(name_of(file))) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(failed);
            }
            _ => {}
        }
    }
    Ok(())
}
