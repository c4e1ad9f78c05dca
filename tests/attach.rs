//! Terminals attached to processes of groups: real daemons, real terminals.

mod lab;

use lab::{Lab, PATIENCE};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A process that is asked things at its terminal.
const ASK: &str = "\
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
struct Screen {
    driver: File,
    shown: Arc<Mutex<Vec<u8>>>,
    seen: usize,
    child: Child,
}

impl Screen {
    /// Attaches to a process of the group `lake`.
    fn attach(lab: &Lab, process: &str) -> Screen {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let driver = openpt(flags).unwrap();
        unlockpt(&driver).unwrap();
        resize(&driver, 30, 100);
        let user = ioctl_tiocgptpeer(&driver, flags).unwrap();
        // A session of its own, whose terminal this is.
        let mut command = lab.command("setsid");
        command.arg("-c").arg(Lab::binary()).args(["--node", "n1", "group", "attach", "lake", process]);
        command.stdin(user.try_clone().unwrap()).stdout(user.try_clone().unwrap()).stderr(user);
        let child = command.spawn().unwrap();
        drop(command);
        let (driver, shown) = (File::from(driver), Arc::new(Mutex::new(Vec::new())));
        let (mut reader, into) = (driver.try_clone().unwrap(), shown.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = reader.read(&mut bytes) {
                into.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Screen { driver, shown, seen: 0, child }
    }

    fn type_in(&mut self, keys: &str) {
        self.driver.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until this is shown, after what was waited for before.
    #[track_caller]
    fn shows(&mut self, text: &str) {
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

    /// Whether the terminal hands on each key as it is typed.
    fn is_raw(&self) -> bool {
        !tcgetattr(&self.driver).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    /// Waits for the command's end; its exit code.
    #[track_caller]
    fn ends(mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(driver: &impl AsFd, rows: u16, columns: u16) {
    tcsetwinsize(driver, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

/// A group `lake` of a process with a terminal on `station`, and one without.
fn lake(lab: &Lab, station: &str) -> String {
    for (name, text) in [("ask", ASK), ("plain", "#!/bin/sh\nexec sleep 600\n")] {
        let path = lab.file(name, text);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let text = format!(
        "[group]\nname = \"lake\"\n[program.ask]\nexecutable = \"ask\"\nterminal = true\nstations = [\"{station}\"]\n\
         environment = {{ TERM = \"vt100\" }}\n[program.plain]\nexecutable = \"plain\"\nstations = [\"n1\"]\n"
    );
    lab.file("lake.toml", text).to_str().unwrap().to_owned()
}

fn until_all_run(lab: &Lab) {
    lab.until("both run", || {
        lab.rows(["ps"]).iter().filter(|row| row["operation"] == "group_process").count() == 2
    });
}

#[test]
fn a_terminal_is_that_of_a_process_here_and_on_another_node() {
    let lab = Lab::with_pool(2, 2);
    for station in ["n1", "n2"] {
        let launcher = lab.spawn(lab.mutirao(["group", "run", &lake(&lab, station)]));
        until_all_run(&lab);
        let mut screen = Screen::attach(&lab, "ask.0");
        screen.shows("a terminal, vt100");
        assert!(screen.is_raw());
        screen.type_in("size\r");
        screen.shows("30 100");
        resize(&screen.driver, 40, 120);
        screen.type_in("size\r");
        screen.shows("40 120");
        screen.type_in("hello\r");
        // What is typed is shown by the terminal of the process, once.
        screen.shows("hello\r\ngot hello\r\n");
        screen.type_in("\x03");
        screen.shows("interrupted");
        screen.type_in("again\r");
        screen.shows("got again");
        screen.type_in("much\r");
        screen.shows("20000\r\nmuch is over");
        screen.type_in("end\r");
        screen.shows("`ask.0` of the group `lake` has ended: exit code 3");
        assert!(!screen.is_raw(), "the terminal is as it was");
        assert_eq!(screen.ends(), Some(3));
        let said = launcher.wait();
        assert_eq!(said.code, Some(3), "{}", said.err);
        assert!(said.err.contains("because of `ask.0`"), "{}", said.err);
        assert!(!said.out.contains("got hello"), "it was seen elsewhere: {}", said.out);
        lab.until("nothing is left", || lab.free_slots() == 4);
    }
}

#[test]
fn one_leaves_a_process_and_another_comes_and_nobody_comes_twice() {
    let lab = Lab::with_pool(1, 2);
    let launcher = lab.spawn(lab.mutirao(["group", "run", &lake(&lab, "n1")]));
    until_all_run(&lab);
    let refused = |process: &str, why: &str| {
        let mut screen = Screen::attach(&lab, process);
        screen.shows(why);
        assert_eq!(screen.ends(), Some(1));
    };
    refused("plain.0", "cannot attach to `plain.0` of the group `lake`: it has no terminal");
    refused("ask.7", "there is no process of that name");
    let mut first = Screen::attach(&lab, "ask.0");
    first.shows("a terminal");
    refused("ask.0", &format!("it is attached already, to process {} of this machine", first.child.id()));
    first.type_in("unseen\x1d");
    first.shows("`ask.0` of the group `lake` runs on without this terminal");
    assert!(!first.is_raw());
    assert_eq!(first.ends(), Some(0));
    let mut second = Screen::attach(&lab, "ask.0");
    // What was shown last, and that the process goes on with what was typed before.
    second.shows("a terminal");
    second.shows("unseen");
    second.type_in("\rhello\r");
    second.shows("got unseen");
    second.shows("got hello");
    kill_process(Pid::from_raw(launcher.pid()).unwrap(), Signal::TERM).unwrap();
    second.shows("ended with its group");
    assert_eq!(second.ends(), Some(1));
    assert_eq!(launcher.wait().code, Some(143));
    lab.until("nothing is left", || lab.free_slots() == 2);
}

#[test]
fn what_is_no_terminal_is_refused_and_so_is_a_second_input() {
    let lab = Lab::with_pool(1, 2);
    let file = lake(&lab, "n1");
    let complaint = lab.run(["group", "attach", "lake", "ask.0"]).complaint();
    assert!(complaint.contains("`group attach` needs a terminal"), "{complaint}");
    let complaint = lab.run(["group", "run", &file, "--stdin", "ask.0"]).complaint();
    assert!(complaint.contains("`ask.0` has a terminal"), "{complaint}");
    let complaint = lab.run(["group", "run", &file, "--terminal", "asks.0"]).complaint();
    assert!(complaint.contains("there is no process `asks.0` to have a terminal"), "{complaint}");
    let launcher = lab.spawn(lab.mutirao(["group", "run", &file, "--terminal", "plain.0"]));
    until_all_run(&lab);
    let mut screen = Screen::attach(&lab, "plain.0");
    // It does not listen, and the kernel ends it.
    lab.until("it is attached", || screen.is_raw());
    screen.type_in("\x03");
    screen.shows("has ended: signal 2");
    assert_eq!(screen.ends(), Some(130));
    assert_eq!(launcher.wait().code, Some(130));
}
