//! The terminal of a process, where it runs.

use anyhow::{Context, Result, bail};
use mutirao::raw::{Line, LineEvent, Terminal};
use mutirao_group::console::Size;
use rustix::process::ioctl_tiocsctty;
use rustix::termios::{Winsize, tcsetwinsize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTSTP};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Asks the node for a terminal, and makes it that of this worker, which leads a session: what is typed at it can
/// then interrupt what runs here. What comes over the line meanwhile is put aside.
pub fn take(line: &Line, early: &mut VecDeque<LineEvent>) -> Result<Terminal> {
    line.ask_terminal().context("cannot ask for a terminal")?;
    let terminal = loop {
        match line.next(None).context("no terminal came")? {
            Some(LineEvent::Terminal(Ok(terminal))) => break terminal,
            Some(LineEvent::Terminal(Err(why))) => bail!("it is to have a terminal, but {why}"),
            Some(other) => early.push_back(other),
            None => {}
        }
    };
    // These go to all that have the terminal, this process too. Unlike signals that are ignored, those that are
    // handled are back to normal in a program that is executed.
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTSTP] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))
            .context("cannot listen for signals")?;
    }
    ioctl_tiocsctty(&terminal.user).context("cannot make the terminal that of the process")?;
    Ok(terminal)
}

/// Tells the terminal, and with it whoever uses it, how large it is.
pub fn resize(terminal: &OwnedFd, size: Size) {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // It fails for what is no terminal only.
    let _ = tcsetwinsize(terminal, size);
}
