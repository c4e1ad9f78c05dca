//! A terminal at which a person would sit, and a process that is asked things at its own.

use super::PATIENCE;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A process that is asked things at its terminal.
pub const ASK: &str = "\
#!/bin/sh
trap 'echo interrupted' INT
[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo \"a terminal, $TERM\"
while :; do
  if read -r line; then
    case $line in
      size) stty size ;;
      end) exit 3 ;;
      much) seq 1 20000; echo much is over ;;
      *) echo \"got $line\" ;;
    esac
  else
    sleep 0.05
  fi
done
";

/// A terminal at which a person would sit, and the command that has it.
pub struct Screen {
    driver: File,
    shown: Arc<Mutex<Vec<u8>>>,
    seen: usize,
    child: Option<Child>,
}

impl Screen {
    /// The terminal of a command that makes a session of its own, as `setsid -c` does.
    pub fn of(mut command: Command) -> Screen {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let driver = openpt(flags).unwrap();
        unlockpt(&driver).unwrap();
        let user = ioctl_tiocgptpeer(&driver, flags).unwrap();
        command.stdin(user.try_clone().unwrap()).stdout(user.try_clone().unwrap()).stderr(user);
        let (driver, shown) = (File::from(driver), Arc::new(Mutex::new(Vec::new())));
        let (mut reader, into) = (driver.try_clone().unwrap(), shown.clone());
        let mut screen = Screen { driver, shown, seen: 0, child: None };
        screen.resize(30, 100);
        screen.child = Some(command.spawn().unwrap());
        drop(command);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = reader.read(&mut bytes) {
                into.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        screen
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.driver, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
            .unwrap();
    }

    pub fn type_in(&mut self, keys: &str) {
        self.driver.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until this is shown, after what was waited for before.
    #[track_caller]
    pub fn shows(&mut self, text: &str) {
        let start = Instant::now();
        loop {
            let shown = String::from_utf8_lossy(&self.shown.lock().unwrap()[self.seen..]).into_owned();
            if let Some(at) = shown.find(text) {
                self.seen += at + text.len();
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{text:?} does not come: {shown:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn has_shown(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).contains(text)
    }

    /// How often this was shown.
    pub fn count(&self, text: &str) -> usize {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).matches(text).count()
    }

    /// Whether the terminal hands on each key as it is typed.
    pub fn is_raw(&self) -> bool {
        !tcgetattr(&self.driver).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    /// Waits for the command's end; its exit code.
    #[track_caller]
    pub fn ends(mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
