//! Tables for people.

use anyhow::Result;
use std::fmt::Write;

/// A line on standard error, which may be a log on a disk that is full: then it is not written, and nothing ends of that.
macro_rules! remark {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}
pub(crate) use remark;

/// Writes data to standard output. A reader that has gone is an error of kind `BrokenPipe`.
pub fn put(text: &str) -> Result<()> {
    put_bytes(text.as_bytes())
}

/// Like [`put`], for data that is no text.
pub fn put_bytes(bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// An error with its causes, each said once: many errors say theirs themselves.
pub fn words(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text += ": ";
            text += &cause;
        }
    }
    text
}

/// Lines up `rows` under `head`, two blanks between columns; columns of `right` are flushed right.
pub fn table<const N: usize>(head: [&str; N], right: [bool; N], rows: &[[String; N]]) -> String {
    let mut width = head.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in width.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: [&str; N]| {
        let mut line = String::new();
        for (i, cell) in cells.iter().enumerate() {
            let gap = if i == 0 { "" } else { "  " };
            let width = width[i];
            // Writing to a string does not fail.
            let _ = if right[i] {
                write!(line, "{gap}{cell:>width$}")
            } else {
                write!(line, "{gap}{cell:<width$}")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(head);
    for row in rows {
        line(row.each_ref().map(String::as_str));
    }
    text
}

/// A span of time, in the two units that matter: `45 s`, `3 min 20 s`, `5 h 10 min`, `12 d 3 h`.
pub fn span(seconds: u64) -> String {
    let (d, h, m, s) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s} s"),
        (0, 0, _) => format!("{m} min {s} s"),
        (0, _, _) => format!("{h} h {m} min"),
        _ => format!("{d} d {h} h"),
    }
}

/// A time, from seconds since 1970: `2026-11-21 08:15:00 UTC`.
pub fn utc(unix_s: u64) -> String {
    let (days, seconds) = (unix_s / 86_400, unix_s % 86_400);
    // Days since 1 March of the year 0, in eras of 400 years.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, late) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{:04}-{month:02}-{date:02} {h:02}:{m:02}:{s:02} UTC", era * 400 + year + late)
}

/// A number of things, such as `1 task` or `3 tasks`.
pub fn counted(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// An amount of bytes for people.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up() {
        let rows = [["n1".into(), "2".into()], ["node-two".into(), "16".into()]];
        let text = table(["NAME", "SLOTS"], [false, true], &rows);
        assert_eq!(text, "NAME      SLOTS\nn1            2\nnode-two     16\n");
    }

    #[test]
    fn a_cause_is_said_once() {
        let full = || std::io::Error::other("the disk is full");
        assert_eq!(
            words(&anyhow::Error::from(full()).context("cannot write x")),
            "cannot write x: the disk is full"
        );
        let said = anyhow::Error::from(full()).context("cannot write x: the disk is full; make room");
        assert_eq!(words(&said), "cannot write x: the disk is full; make room");
    }

    #[test]
    fn spans_and_sizes_read_well() {
        assert_eq!(span(45), "45 s");
        assert_eq!(span(200), "3 min 20 s");
        assert_eq!(span(18_600), "5 h 10 min");
        assert_eq!(span(90_000), "1 d 1 h");
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_827_696), "2000-02-29 12:34:56 UTC");
        assert_eq!(utc(1_798_761_599), "2026-12-31 23:59:59 UTC");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(50 * 1024 * 1024), "50.0 MiB");
    }
}
