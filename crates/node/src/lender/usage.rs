//! What workers use, read from `/proc` when somebody asks.

use super::process::{Facts, everybody};
use core::time::Duration;
use mutirao_wire::query::{ProcessUse, WorkerUse};
use rustix::time::{ClockId, clock_gettime};
use std::collections::HashMap;
use std::fs;

/// What workers use, each by the number of its process.
pub type Uses = HashMap<u32, WorkerUse>;

/// What these workers use, each the leader of its session. Looks at all processes of the machine, so it is for a helper
/// thread.
pub fn read(workers: &[u32]) -> Uses {
    let mut uses: Uses = workers.iter().map(|worker| (*worker, WorkerUse::default())).collect();
    let ticks_a_second = rustix::param::clock_ticks_per_second().max(1);
    let micros = |ticks: u64| ticks.saturating_mul(1_000_000) / ticks_a_second;
    let now = clock_gettime(ClockId::Boottime);
    let now_us = Duration::try_from(now).unwrap_or_default().as_micros() as u64;
    for pid in everybody() {
        let Some((facts, used)) =
            Facts::read(pid).and_then(|facts| Some((facts, uses.get_mut(&facts.session)?)))
        else {
            continue;
        };
        let memory = Memory::read(pid);
        let cpu_us = micros(facts.cpu_ticks);
        used.cpu_us += cpu_us;
        used.resident_kib += memory.now_kib;
        if pid != facts.session {
            let started = used.started.get_or_insert(ProcessUse { wall_us: 0, cpu_us: 0, peak_kib: 0 });
            started.wall_us = started.wall_us.max(now_us.saturating_sub(micros(facts.began_ticks)));
            started.cpu_us += cpu_us;
            started.peak_kib = started.peak_kib.max(memory.peak_kib);
        }
    }
    // One that has ended meanwhile, or that may not be looked at, uses no memory.
    uses.retain(|_, used| used.resident_kib > 0);
    uses
}

/// Memory that a process holds resident.
#[derive(Default)]
struct Memory {
    now_kib: u64,
    peak_kib: u64,
}

impl Memory {
    /// None of a process that has ended.
    fn read(pid: u32) -> Memory {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        Memory { now_kib: crate::sys::kib_of(&text, "VmRSS:"), peak_kib: crate::sys::kib_of(&text, "VmHWM:") }
    }
}

#[cfg(test)]
mod tests {
    use super::super::process::kill_session;
    use super::*;
    use std::process::Command;
    use std::time::{Duration, Instant};

    #[test]
    fn a_worker_uses_what_all_its_session_does_and_what_it_started_is_told_apart() {
        let busy = "x=$(head -c 20000000 /dev/zero | tr '\\0' x); while :; do :; done";
        let mut worker =
            Command::new("setsid").args(["sh", "-c", "sh -c \"$0\" & wait", busy]).spawn().unwrap();
        let pid = worker.id();
        let began = Instant::now();
        let (used, started) = loop {
            let used = read(&[pid, 1]).get(&pid).copied().unwrap_or_default();
            let started =
                used.started.filter(|started| started.peak_kib >= 20_000 && started.cpu_us >= 50_000);
            if let Some(started) = started {
                break (used, started);
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{used:?}");
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(used.cpu_us >= started.cpu_us && used.resident_kib > started.peak_kib / 2, "{used:?}");
        // Rounded to ticks of a hundredth of a second.
        assert!(started.wall_us <= began.elapsed().as_micros() as u64 + 20_000, "{started:?}");
        kill_session(pid);
        worker.wait().unwrap();
        // What the worker started is not ours to wait for: it holds memory until the system has taken it down.
        let killed = Instant::now();
        while let Some(left) = read(&[pid]).get(&pid) {
            assert!(killed.elapsed() < Duration::from_secs(60), "{left:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
