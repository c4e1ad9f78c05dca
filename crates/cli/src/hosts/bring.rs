//! Brings this program to another machine, once, and starts it there.

use super::agent::{Order, Reply};
use super::session::Session;
use anyhow::{Context, Result, bail};
use mutirao_topology::hosts::Host;

/// The first word of the line by which the other machine introduces itself. Whatever a login shell prints
/// before is skipped.
const GREETING: &str = "mutirao-host";
/// Most lines of a login shell's talk.
const TALK_LINES_MAX: usize = 1000;

/// This program's file and its hash.
pub fn own_program() -> Result<(Vec<u8>, String)> {
    let bytes = std::fs::read("/proc/self/exe").context("cannot read this program's own file")?;
    let hash = blake3::hash(&bytes).to_hex().to_string();
    Ok((bytes, hash))
}

/// What is brought, and how machines are reached.
pub struct Bringer {
    ssh: String,
    program: Vec<u8>,
    hash: String,
    machine: String,
}

/// The other machine, introduced.
struct Greeting {
    system: String,
    machine: String,
    has_program: bool,
}

impl Bringer {
    /// Brings this very program, over `ssh`, a command with its options.
    pub fn new(ssh: &str) -> Result<Bringer> {
        let (program, hash) = own_program()?;
        let machine = rustix::system::uname().machine().to_string_lossy().into_owned();
        Ok(Bringer { ssh: ssh.into(), program, hash, machine })
    }

    /// This program on `host`, ready for an order. `step` hears what is being done.
    pub fn reach(&self, host: &Host, step: &dyn Fn(&str)) -> Result<Agent> {
        step("connecting");
        let mut session = Session::open(&self.ssh, &host.target, &self.start_script())?;
        if !self.greeted(&mut session)?.has_program {
            drop(session);
            step("copying the program");
            self.copy(host)?;
            step("connecting");
            session = Session::open(&self.ssh, &host.target, &self.start_script())?;
            if !self.greeted(&mut session)?.has_program {
                bail!("the program was copied there, but is gone again");
            }
        }
        let mut agent = Agent { session };
        match agent.reply()? {
            Reply::Hello { hash } if hash == self.hash => Ok(agent),
            _ => bail!("~/{}/mutirao is not the program it should be; delete it there", self.directory()),
        }
    }

    fn greeted(&self, session: &mut Session) -> Result<Greeting> {
        for _ in 0..TALK_LINES_MAX {
            let line = session.line()?;
            let words: Vec<&str> = line.split_whitespace().collect();
            let [GREETING, system, machine, has] = words[..] else { continue };
            let greeting =
                Greeting { system: system.into(), machine: machine.into(), has_program: has == "has" };
            if greeting.system != "Linux" {
                bail!("it runs {}, but nodes run on Linux only", greeting.system);
            }
            if greeting.machine != self.machine {
                bail!(
                    "it is of the architecture {}, this program is for {}; bring up such machines from one \
                     of their kind, or by `mutirao join` there",
                    greeting.machine,
                    self.machine
                );
            }
            return Ok(greeting);
        }
        bail!("its login shell talks without end");
    }

    /// Below the user's home on the other machine.
    fn directory(&self) -> String {
        format!(".local/lib/mutirao/{}", &self.hash[..32])
    }

    /// Says who the machine is, and becomes the program if it is there and can run.
    fn start_script(&self) -> String {
        format!(
            "p=\"$HOME/{}/mutirao\"; m=$(uname -m); \
             if test -x \"$p\" && test \"$m\" = {}; then h=has; else h=lacks; fi; \
             echo {GREETING} $(uname -s) \"$m\" $h; if test $h = has; then exec \"$p\" remote; fi",
            self.directory(),
            self.machine,
        )
    }

    /// Copies the program; it gets its name only when it is there whole. Machines may share the home
    /// directory, hence the name of the machine in that of the unfinished file.
    fn copy(&self, host: &Host) -> Result<()> {
        let script = format!(
            "umask 077; d=\"$HOME/{}\"; mkdir -p \"$d\" || exit 1; t=\"$d/new.$(uname -n).$$\"; cat > \"$t\"; \
             if test $(wc -c < \"$t\") -eq {} && chmod 700 \"$t\" && mv \"$t\" \"$d/mutirao\"; \
             then echo {GREETING} copied; else rm -f \"$t\"; echo the copy is not whole >&2; fi",
            self.directory(),
            self.program.len(),
        );
        let mut session = Session::open(&self.ssh, &host.target, &script)?;
        session.write(&self.program)?;
        session.close_input();
        for _ in 0..TALK_LINES_MAX {
            if session.line()? == format!("{GREETING} copied") {
                return Ok(());
            }
        }
        bail!("its login shell talks without end");
    }
}

/// This program on another machine.
pub struct Agent {
    session: Session,
}

impl Agent {
    /// Gives an order and waits for what comes of it.
    pub fn order(&mut self, order: &Order) -> Result<Reply> {
        self.session.send(&serde_json::to_string(order)?)?;
        self.reply()
    }

    fn reply(&mut self) -> Result<Reply> {
        let line = self.session.line()?;
        match serde_json::from_str(&line).context("the program there does not answer as it should")? {
            Reply::Failed(reason) => bail!("{reason}"),
            reply => Ok(reply),
        }
    }
}
