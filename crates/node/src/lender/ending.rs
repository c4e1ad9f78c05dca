//! Why a worker ended, in a code and in words.

use super::tail::Tail;
use mutirao_wire::stream::failure;
use std::fs;

/// Last lines of its standard error that a cause carries.
const LINES_SHOWN: usize = 8;

/// Why a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// See [`failure`].
    pub code: u32,
    /// For people.
    pub cause: String,
}

/// What is known about the end of a worker.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// The operation that ran, where known.
    pub operation: Option<&'a str>,
    /// As `waitpid` gives it; `None` when nobody could tell.
    pub wait_status: Option<i32>,
    /// The system has killed a process for want of memory since this was last looked at.
    pub system_out_of_memory: bool,
    /// Why the node itself ended it, when it did.
    pub ordered: Option<u32>,
    /// What it wrote last.
    pub tail: &'a Tail,
}

impl Evidence<'_> {
    /// The verdict. Want of memory is named only where there is a sign of it: the system's own count
    /// of such kills, or an allocator that said so before it gave up.
    pub fn judge(&self) -> Ending {
        let last = self.tail.last(LINES_SHOWN);
        let who = match self.operation {
            Some(operation) => format!("worker of `{operation}`"),
            None => "worker".to_owned(),
        };
        let (code, how) = match self.ordered {
            Some(code) => (code, ordered_words(code).to_owned()),
            None => self.unordered(&last),
        };
        let mut cause = format!("{who} {how}");
        if !last.is_empty() {
            cause.push_str("; it wrote last:\n");
            cause.push_str(&last);
        }
        let cut = cause.floor_char_boundary(mutirao_wire::limits::TEXT_BYTES_MAX);
        cause.truncate(cut);
        Ending { code, cause }
    }

    fn unordered(&self, last: &str) -> (u32, String) {
        let Some(status) = self.wait_status else {
            return (failure::WORKER_ENDED, "ended; how is not known".to_owned());
        };
        let killed_by = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
        if killed_by == Some(libc::SIGKILL) && self.system_out_of_memory {
            return (failure::OUT_OF_MEMORY, "was killed by the system: out of memory".to_owned());
        }
        let gave_up = ["memory allocation of ", "std::bad_alloc", "out of memory", "Cannot allocate memory"];
        if killed_by == Some(libc::SIGABRT) && gave_up.iter().any(|words| last.contains(words)) {
            return (failure::OUT_OF_MEMORY, "ended: out of memory, it could not get more".to_owned());
        }
        let how = match killed_by {
            Some(signal) => format!("ended: signal {signal} ({})", signal_words(signal)),
            None => format!("ended: exit code {}", libc::WEXITSTATUS(status)),
        };
        (failure::WORKER_ENDED, how)
    }
}

fn ordered_words(code: u32) -> &'static str {
    match code {
        failure::TIME_LIMIT => "was ended: the call's time limit passed",
        failure::CANCELLED => "was ended: the call was cancelled",
        _ => "was ended by its node",
    }
}

/// What a signal means, for people.
fn signal_words(signal: i32) -> &'static str {
    match signal {
        libc::SIGHUP => "hang-up",
        libc::SIGINT => "interrupt",
        libc::SIGQUIT => "quit",
        libc::SIGILL => "illegal instruction",
        libc::SIGTRAP => "trap",
        libc::SIGABRT => "aborted",
        libc::SIGBUS => "bus error",
        libc::SIGFPE => "arithmetic error",
        libc::SIGKILL => "killed",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGPIPE => "broken pipe",
        libc::SIGALRM => "alarm",
        libc::SIGTERM => "terminated",
        libc::SIGXCPU => "processor time limit",
        libc::SIGXFSZ => "file size limit",
        libc::SIGSYS => "forbidden system call",
        _ => "see signal(7)",
    }
}

/// Counts the processes that the system has killed for want of memory.
#[derive(Debug)]
pub struct OomWatch {
    seen: u64,
}

impl OomWatch {
    /// Starts from now.
    pub fn new() -> OomWatch {
        OomWatch { seen: count() }
    }

    /// Whether there was one since this was last asked.
    pub fn has_struck(&mut self) -> bool {
        let now = count();
        let struck = now > self.seen;
        self.seen = now;
        struck
    }
}

fn count() -> u64 {
    let text = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(wait_status: Option<i32>, oom: bool, ordered: Option<u32>, wrote: &str) -> Ending {
        let mut tail = Tail::default();
        tail.push(wrote.as_bytes());
        let operation = Some("frame");
        Evidence { operation, wait_status, system_out_of_memory: oom, ordered, tail: &tail }.judge()
    }

    #[test]
    fn signals_and_exits_are_named() {
        let segv = judge(Some(libc::SIGSEGV), false, None, "");
        assert_eq!(segv.code, failure::WORKER_ENDED);
        assert_eq!(segv.cause, "worker of `frame` ended: signal 11 (segmentation fault)");
        let exit = judge(Some(3 << 8), false, None, "bad input\n");
        assert_eq!(exit.cause, "worker of `frame` ended: exit code 3; it wrote last:\nbad input");
        assert!(judge(None, false, None, "").cause.contains("not known"));
    }

    #[test]
    fn want_of_memory_is_told_only_where_there_is_a_sign_of_it() {
        assert_eq!(judge(Some(libc::SIGKILL), true, None, "").code, failure::OUT_OF_MEMORY);
        assert_eq!(judge(Some(libc::SIGKILL), false, None, "").code, failure::WORKER_ENDED);
        let said = "memory allocation of 99 bytes failed";
        assert_eq!(judge(Some(libc::SIGABRT), false, None, said).code, failure::OUT_OF_MEMORY);
        assert_eq!(judge(Some(libc::SIGABRT), false, None, "assert").code, failure::WORKER_ENDED);
        assert_eq!(judge(Some(libc::SIGSEGV), true, None, "").code, failure::WORKER_ENDED);
    }

    #[test]
    fn an_order_explains_itself() {
        let late = judge(Some(libc::SIGKILL), true, Some(failure::TIME_LIMIT), "");
        assert_eq!(late.code, failure::TIME_LIMIT);
        assert!(late.cause.contains("time limit"));
    }
}
