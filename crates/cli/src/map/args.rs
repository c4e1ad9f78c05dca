//! The options of `mutirao map`, under the names that users of GNU parallel know.

use super::halt::Halt;
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// What `mutirao map` is told.
#[derive(Debug, Args)]
#[command(override_usage = "\
mutirao map [OPTIONS] [COMMAND]... ::: ARGUMENTS...
       mutirao map [OPTIONS] [COMMAND]... :::: FILES...
       ... | mutirao map [OPTIONS] [COMMAND]...")]
#[command(after_help = "\
In COMMAND, {} is the argument, {.} the same without its extension, {/} without its directory, {//} its
directory, {/.} without both, {#} the number of the job, {%} that of its place among those that run; {1}, {2.}
and so on stand for the arguments of the first, the second source. Without any of them the argument is put at
the end. More sources combine all with all; `:::+` and `::::+` go in step with the source before.

Examples:
  mutirao map 'convert {} {.}.png' ::: *.tif
  mutirao map --joblog runs.log --retries 3 ./simulate --seed {1} --grid {2} ::: 1 2 3 ::: coarse fine
  find . -name '*.log' | mutirao map --bar gzip
  mutirao map --transferfile {} --return {.}.mp3 'lame {} {.}.mp3' ::: *.wav
  mutirao map --pipe --block 10M -k grep -c error < huge.log

The exit code is the number of jobs that failed, 101 if more than 100 did, 255 if it could not be tried.")]
pub struct MapArgs {
    /// Run so many jobs at a time: N, +N or -N (more or fewer than slots), N%, 0 for no limit
    #[arg(short, long, value_name = "N", allow_hyphen_values = true)]
    #[arg(visible_short_alias = 'P', visible_alias = "max-procs")]
    pub jobs: Option<Jobs>,
    /// Print results in the order of the arguments
    #[arg(short, long)]
    pub keep_order: bool,
    /// Put outputs into files below this directory too, named after the arguments
    #[arg(long, value_name = "DIR")]
    pub results: Option<PathBuf>,
    /// Write a line into this file for each job that ends
    #[arg(long, value_name = "FILE")]
    pub joblog: Option<PathBuf>,
    /// Leave out jobs that the job log lists
    #[arg(long, requires = "joblog")]
    pub resume: bool,
    /// Leave out jobs that the job log lists as done well
    #[arg(long, requires = "joblog")]
    pub resume_failed: bool,
    /// Run a job that fails up to so many times in all
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub retries: u32,
    /// End a job after so long: seconds, or with s, m, h, d; 0 for no limit
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub timeout: Option<Duration>,
    /// Stop early: now|soon,fail|success|done=N or N% (`now,fail=1`, `soon,success=3`), or never
    #[arg(long, value_name = "WHEN", default_value = "never")]
    pub halt: Halt,
    /// Print the commands instead of running them
    #[arg(long)]
    pub dry_run: bool,
    /// Show on the terminal how far it is: rate, failures, time left
    #[arg(long, visible_alias = "bar", visible_alias = "progress")]
    pub eta: bool,
    /// Put the arguments and a tab before each line of output
    #[arg(long)]
    pub tag: bool,
    /// Put this and a tab before each line of output; the same replacements as in COMMAND
    #[arg(long, value_name = "TEXT")]
    pub tagstring: Option<String>,
    /// Take so many arguments for one job
    #[arg(short = 'n', long, value_name = "N", short_alias = 'N')]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub max_args: Option<u32>,
    /// Split each argument at this text into {1}, {2}, ...
    #[arg(short = 'C', long, value_name = "TEXT", value_parser = separator)]
    pub colsep: Option<Separator>,
    /// Give each job a part of the input on its standard input, cut at line ends, instead of arguments
    #[arg(long, conflicts_with = "colsep")]
    pub pipe: bool,
    /// About so much input for one job, with --pipe; or --max-args lines
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = block)]
    pub block: u64,
    /// Arguments read end with a zero byte, not with the line
    #[arg(short = '0', long)]
    pub null: bool,
    /// Read arguments from this file, as after `::::`
    #[arg(short, long, value_name = "FILE")]
    pub arg_file: Vec<PathBuf>,
    /// Leave out empty arguments
    #[arg(short = 'r', long)]
    pub no_run_if_empty: bool,
    /// Wait so long between the starts of two jobs
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub delay: Option<Duration>,
    /// Let jobs on other machines have this variable too
    #[arg(long, value_name = "NAME")]
    pub env: Vec<String>,
    /// Where jobs run, if not here; `...` is an empty directory for each
    #[arg(long, value_name = "DIR", visible_alias = "wd")]
    pub workdir: Option<PathBuf>,
    /// Bring this file to where the job runs; the same replacements as in COMMAND
    #[arg(long, value_name = "FILE", visible_alias = "tf")]
    pub transferfile: Vec<String>,
    /// Bring this file to all jobs
    #[arg(long, value_name = "FILE", visible_alias = "bf")]
    pub basefile: Vec<String>,
    /// Take this file back when the job has ended; the same replacements as in COMMAND
    #[arg(long = "return", value_name = "FILE")]
    pub takes: Vec<String>,
    /// Remove what was brought (this is always done)
    #[arg(long)]
    pub cleanup: bool,
    /// The same as `--transferfile {} --return FILE --cleanup`
    #[arg(long, value_name = "FILE")]
    pub trc: Vec<String>,
    /// Use this machine only, whatever pool it is in
    #[arg(long)]
    pub local: bool,
    /// The command, and where the arguments come from
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub words: Vec<OsString>,
}

/// How many jobs run at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Jobs {
    /// So many.
    Exactly(u32),
    /// So many more, or fewer, than there are slots.
    Relative(i64),
    /// So many hundredths of the slots.
    Percent(u32),
}

impl Jobs {
    /// Jobs at a time, where there are so many slots; `None`: no limit.
    pub fn of(self, slots: u32) -> Option<u32> {
        let jobs = match self {
            Jobs::Exactly(0) => return None,
            Jobs::Exactly(jobs) => i64::from(jobs),
            Jobs::Relative(more) => i64::from(slots) + more,
            Jobs::Percent(percent) => i64::from(slots) * i64::from(percent) / 100,
        };
        Some(u32::try_from(jobs.max(1)).unwrap_or(u32::MAX))
    }
}

impl std::str::FromStr for Jobs {
    type Err = String;

    fn from_str(text: &str) -> Result<Jobs, String> {
        let wrong = |_| format!("`{text}` is no number of jobs: say 8, +2, -1, 150% or 0");
        Ok(match (text.strip_suffix('%'), text.starts_with(['+', '-'])) {
            (Some(percent), _) => Jobs::Percent(percent.parse().map_err(wrong)?),
            (None, true) => Jobs::Relative(text.parse().map_err(wrong)?),
            (None, false) => Jobs::Exactly(text.parse().map_err(wrong)?),
        })
    }
}

/// A text at which arguments are split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Separator(pub Vec<u8>);

fn separator(text: &str) -> Result<Separator, String> {
    let plain = text.replace("\\t", "\t").replace("\\n", "\n").replace("\\\\", "\\");
    match plain.is_empty() {
        true => Err("an empty text separates nothing".into()),
        false => Ok(Separator(plain.into_bytes())),
    }
}

/// The largest part of the input that one job can be given, bytes.
const BLOCK_BYTES_MAX: u64 = 32 << 20;

fn block(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
        _ => (text, 1),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    let bytes = bytes.filter(|bytes| (1..=BLOCK_BYTES_MAX).contains(bytes));
    bytes.ok_or_else(|| {
        format!("`{text}` is no size of a part: say 100k or 10M, at most {}M", BLOCK_BYTES_MAX >> 20)
    })
}

fn time(text: &str) -> Result<Duration, String> {
    let (number, unit_s) = match text.chars().last() {
        Some('s') => (&text[..text.len() - 1], 1.0),
        Some('m') => (&text[..text.len() - 1], 60.0),
        Some('h') => (&text[..text.len() - 1], 3600.0),
        Some('d') => (&text[..text.len() - 1], 86_400.0),
        _ => (text, 1.0),
    };
    let seconds = number.parse::<f64>().ok().map(|number| number * unit_s);
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.ok_or_else(|| format!("`{text}` is no time: say 10, 1.5, 5m or 2h"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_counted_from_the_slots() {
        let of = |text: &str| text.parse::<Jobs>().unwrap().of(4);
        assert_eq!(of("8"), Some(8));
        assert_eq!(of("0"), None);
        assert_eq!(of("+2"), Some(6));
        assert_eq!(of("-3"), Some(1));
        assert_eq!(of("-9"), Some(1));
        assert_eq!(of("50%"), Some(2));
        assert!("many".parse::<Jobs>().is_err());
    }

    #[test]
    fn parts_have_sizes() {
        assert_eq!((block("100k"), block("2M"), block("7")), (Ok(102_400), Ok(2 << 20), Ok(7)));
        assert!(block("0").is_err() && block("1G").is_err() && block("x").is_err() && block("").is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(time("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        assert!(time("-1").is_err() && time("").is_err() && time("x").is_err());
    }
}
