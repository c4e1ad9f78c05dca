//! `mutirao doctor`: what is wrong with this machine, and how to mend it.

use crate::args::Output;
use crate::membership;
use crate::output::put;
use anyhow::Result;
use mutirao::raw::{Options, Pool, Private, Slots};
use mutirao_trust::Home;
use serde_json::json;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// Works, but less well.
    Weak,
    /// Does not work.
    Bad,
}

struct Finding {
    subject: &'static str,
    verdict: Verdict,
    found: String,
    /// How to mend it; empty where there is nothing to mend.
    mend: String,
}

fn finding(
    subject: &'static str,
    verdict: Verdict,
    found: impl Into<String>,
    mend: impl Into<String>,
) -> Finding {
    Finding { subject, verdict, found: found.into(), mend: mend.into() }
}

/// Looks at everything and prints it; the exit code is 1 if something does not work.
pub fn run(output: Output) -> Result<u8> {
    let home = membership::home()?;
    let mut findings = Vec::new();
    identity(&home, &mut findings);
    findings.push(clock());
    findings.push(node());
    findings.push(port());
    confinement(&mut findings);
    findings.push(descriptors());
    findings.push(space(home.path()));

    if output == Output::Json {
        let rows = findings.iter().map(|row| {
            let verdict = match row.verdict {
                Verdict::Good => "good",
                Verdict::Weak => "weak",
                Verdict::Bad => "bad",
            };
            json!({"subject": row.subject, "verdict": verdict, "found": row.found, "mend": row.mend})
        });
        put(&format!("{:#}\n", rows.collect::<serde_json::Value>()))?;
    } else {
        let mut text = String::new();
        for row in &findings {
            let mark = match row.verdict {
                Verdict::Good => "good",
                Verdict::Weak => "WEAK",
                Verdict::Bad => "BAD ",
            };
            text += &format!("{mark}  {:<13} {}\n", row.subject, row.found);
            if !row.mend.is_empty() {
                text += &format!("      {:<13} -> {}\n", "", row.mend);
            }
        }
        put(&text)?;
    }
    Ok(u8::from(findings.iter().any(|row| row.verdict == Verdict::Bad)))
}

fn identity(home: &Home, findings: &mut Vec<Finding>) {
    let pool = match home.load_pool() {
        Ok(pool) => pool,
        Err(error) => {
            let mend = "`mutirao init` makes a pool, `mutirao join --request FILE` asks to join one";
            findings.push(finding("pool", Verdict::Bad, error.to_string(), mend));
            return;
        }
    };
    let found = format!("`{}` ({}) in {}", pool.name(), pool.id().short(), home.path().display());
    findings.push(finding("pool", Verdict::Good, found, ""));
    match home.nodes() {
        Ok(names) if names.is_empty() => {
            let mend = "`mutirao join --request FILE`, then `mutirao invite` where the authority is";
            findings.push(finding("certificate", Verdict::Bad, "this machine has no node of the pool", mend));
        }
        Ok(names) => {
            for name in names {
                findings.push(match home.node(&name) {
                    Ok(_) => finding("certificate", Verdict::Good, format!("node `{name}` is certified"), ""),
                    Err(error) => {
                        let mend = "renew it: `mutirao join --request FILE`, `mutirao invite`, `mutirao join ANSWER`";
                        finding("certificate", Verdict::Bad, error.to_string(), mend)
                    }
                });
            }
        }
        Err(error) => findings.push(finding("certificate", Verdict::Bad, error.to_string(), "")),
    }
}

/// Certificates and tokens need a clock that is about right.
fn clock() -> Finding {
    /// When this version was written: no clock that is right shows less. 2026-11-01.
    const EARLIEST_UNIX_S: u64 = 1_793_491_200;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if now < EARLIEST_UNIX_S {
        let mend = "set the clock, for example with `timedatectl set-ntp true`";
        return finding(
            "clock",
            Verdict::Bad,
            "the clock is years behind; certificates will be refused",
            mend,
        );
    }
    let start = Instant::now();
    let before = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    std::thread::sleep(Duration::from_millis(20));
    let after = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let passed_ms = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1_000_000;
    let slept_ms = start.elapsed().as_millis() as i64;
    if (passed_ms - slept_ms).abs() > 20 {
        let found = format!("{slept_ms} ms pass as {passed_ms} ms on the clock that leases are timed by");
        return finding(
            "clock",
            Verdict::Weak,
            found,
            "leases may lapse early; look at the machine's time source",
        );
    }
    finding("clock", Verdict::Good, "plausible and even", "")
}

fn node() -> Finding {
    let options = Options {
        name: Some("mutirao doctor".into()),
        slots: Slots::ByHand,
        private: Private::Never,
        ..Options::default()
    };
    match Pool::open(options) {
        Ok(pool) => {
            let node = pool.node();
            let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
            finding(
                "node",
                Verdict::Good,
                format!("`{}` runs and listens on {}", node.name, addresses.join(", ")),
                "",
            )
        }
        Err(error) => finding("node", Verdict::Weak, error.to_string(), "`mutirao up` starts it"),
    }
}

fn port() -> Finding {
    match TcpListener::bind("0.0.0.0:0") {
        Ok(_) => finding("ports", Verdict::Good, "a free port can be listened on", ""),
        Err(error) => finding(
            "ports",
            Verdict::Bad,
            format!("cannot listen on any port: {error}"),
            "allow this user to open TCP sockets",
        ),
    }
}

fn confinement(findings: &mut Vec<Finding>) {
    let report = mutirao_confine::probe();
    let (verdict, mend) = if report.files() && report.signals() {
        (Verdict::Good, "")
    } else if report.files() {
        (
            Verdict::Weak,
            "a kernel of version 6.12 or later also keeps workers from signalling other processes by Landlock",
        )
    } else {
        (
            Verdict::Weak,
            "only your own plugins run here; a kernel with Landlock (5.13 or later, `lsm=landlock,...`) confines those of others",
        )
    };
    findings.push(finding("confinement", verdict, report.words(), mend));
}

fn descriptors() -> Finding {
    use rustix::process::{Resource, getrlimit};
    const WANTED: u64 = 1024;
    let limit = getrlimit(Resource::Nofile).maximum;
    match limit {
        Some(most) if most < WANTED => {
            let mend = format!("raise it to {WANTED} or more, for example in /etc/security/limits.conf");
            finding("descriptors", Verdict::Weak, format!("at most {most} open files"), mend)
        }
        Some(most) => finding("descriptors", Verdict::Good, format!("up to {most} open files"), ""),
        None => finding("descriptors", Verdict::Good, "any number of open files", ""),
    }
}

fn space(home: &Path) -> Finding {
    const WANTED_MIB: u64 = 512;
    let existing = home.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Ok(stat) => {
            let free_mib = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
            let found = format!("{free_mib} MiB free below {}", existing.display());
            if free_mib < WANTED_MIB {
                let mend = "make room, or put MUTIRAO_HOME on another disk: plugins are cached there";
                finding("disk", Verdict::Weak, found, mend)
            } else {
                finding("disk", Verdict::Good, found, "")
            }
        }
        Err(error) => finding("disk", Verdict::Bad, format!("{}: {error}", existing.display()), ""),
    }
}
