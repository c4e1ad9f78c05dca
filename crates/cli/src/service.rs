//! `mutirao service`: a unit of systemd that keeps this machine's node running, and starts it at boot.

use crate::args::Output;
use crate::membership::{home, user_name};
use crate::output::put;
use crate::output::remark;
use crate::up::{alive_nodes, own_name};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The unit's name.
const UNIT: &str = "mutirao.service";
/// Where a node of the whole machine keeps its identity, and its sockets.
const SYSTEM_HOME: &str = "/var/lib/mutirao";
const SYSTEM_RUNTIME: &str = "/run/mutirao";

/// What to do with the unit.
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Write the unit, enable and start it
    Install(InstallArgs),
    /// Stop the unit, disable and delete it
    Uninstall(WhichArgs),
    /// Say whether it runs
    Status(WhichArgs),
}

/// Options of `service install`.
#[derive(Debug, Args)]
#[command(after_help = "\
A unit of yours needs no privileges; `loginctl enable-linger` lets it run while you are not logged in.
One of the whole machine (--system) runs as a user of its own, who must exist, and lends the machine
only: programs on it that use the pool need a node of their user's.

Examples:
  mutirao service install
  mutirao service install --dry-run
  sudo mutirao service install --system --user mutirao")]
pub struct InstallArgs {
    /// Which unit.
    #[command(flatten)]
    pub which: WhichArgs,
    /// The unprivileged user it runs as
    #[arg(long, value_name = "USER", default_value = "mutirao", requires = "system")]
    pub user: String,
    /// Name of the node; the one that has an identity here unless said
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Print the unit and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Which unit.
#[derive(Debug, Args)]
#[command(after_help = "Example: mutirao service status --output json")]
pub struct WhichArgs {
    /// One of the whole machine instead of one of yours
    #[arg(long)]
    pub system: bool,
}

/// `mutirao service`; the exit code.
pub fn run(command: &ServiceCommand, output: Output) -> Result<u8> {
    match command {
        ServiceCommand::Install(args) => install(args).map(|()| 0),
        ServiceCommand::Uninstall(which) => uninstall(which).map(|()| 0),
        ServiceCommand::Status(which) => status(which, output),
    }
}

fn install(args: &InstallArgs) -> Result<()> {
    let unit = Unit::new(args)?;
    if args.dry_run {
        return put(&unit.text());
    }
    let systemd = Systemd::reach(args.which.system)?;
    if args.which.system {
        unit.check_system(&args.user)?;
    } else {
        let pool = home()?.load_pool()?;
        if let Some(node) = alive_nodes(&pool).first() {
            bail!("node `{}` runs already, not as a service; `mutirao down` ends it", node.name);
        }
    }
    let path = unit_path(args.which.system)?;
    let directory = path.parent().context("the unit has no directory")?;
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    std::fs::write(&path, unit.text()).with_context(|| format!("cannot write {}", path.display()))?;
    systemd.run(&["daemon-reload"])?;
    systemd.run(&["enable", UNIT])?;
    // Also one that runs already gets what may have changed.
    systemd.run(&["restart", UNIT])?;
    remark!(
        "{} is written, enabled and started; its log: {}",
        path.display(),
        log_command(args.which.system)
    );
    if !args.which.system && !Path::new("/var/lib/systemd/linger").join(user_name()).exists() {
        remark!("It runs while you are logged in; for always, also from boot on: loginctl enable-linger");
    }
    Ok(())
}

fn uninstall(which: &WhichArgs) -> Result<()> {
    let path = unit_path(which.system)?;
    if !path.exists() {
        bail!("{} is not there; nothing is installed", path.display());
    }
    let systemd = Systemd::reach(which.system)?;
    systemd.run(&["disable", "--now", UNIT])?;
    std::fs::remove_file(&path).with_context(|| format!("cannot delete {}", path.display()))?;
    systemd.run(&["daemon-reload"])?;
    remark!("{UNIT} is stopped and deleted; the node's identity stays");
    Ok(())
}

/// The exit code is 0 if the service runs.
fn status(which: &WhichArgs, output: Output) -> Result<u8> {
    let properties = "--property=LoadState,ActiveState,SubState,MainPID,NRestarts,UnitFileState";
    let text = Systemd::reach(which.system)?.run(&["show", UNIT, properties])?;
    let of = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().to_owned()
    };
    let active = of("ActiveState") == "active";
    if output == Output::Json {
        let facts = json!({
            "unit": UNIT, "installed": of("LoadState") == "loaded", "active": active,
            "state": of("SubState"), "at_boot": of("UnitFileState") == "enabled",
            "pid": of("MainPID").parse::<u32>().ok().filter(|pid| *pid != 0),
            "restarts": of("NRestarts").parse::<u32>().unwrap_or(0),
        });
        put(&format!("{facts:#}\n"))?;
    } else if of("LoadState") == "loaded" {
        let (state, boot, restarts) = (of("SubState"), of("UnitFileState"), of("NRestarts"));
        put(&format!("{UNIT}: {state}, process {}, at boot {boot}, restarts {restarts}\n", of("MainPID")))?;
        remark!("its log: {}", log_command(which.system));
    } else {
        put(&format!("{UNIT}: not installed\n"))?;
    }
    Ok(u8::from(!active))
}

fn log_command(system: bool) -> String {
    format!("journalctl {}-u {UNIT}", if system { "" } else { "--user " })
}

fn unit_path(system: bool) -> Result<PathBuf> {
    if system {
        return Ok(Path::new("/etc/systemd/system").join(UNIT));
    }
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let config = config.or_else(|| std::env::home_dir().map(|home| home.join(".config")));
    Ok(config.context("there is no home directory")?.join("systemd/user").join(UNIT))
}

/// The manager of units, of this user or of the machine.
struct Systemd {
    system: bool,
}

impl Systemd {
    fn reach(system: bool) -> Result<Systemd> {
        let systemd = Systemd { system };
        systemd.run(&["show", "--property=Version"]).with_context(|| {
            "systemd does not answer here. Without it, a line `@reboot mutirao up` in `crontab -e` starts the \
             node at boot; `mutirao service install --dry-run` prints the unit for another machine"
        })?;
        Ok(systemd)
    }

    /// What `systemctl` printed; an error with its last words.
    fn run(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("systemctl");
        if !self.system {
            command.arg("--user");
        }
        let output = command.args(args).output().context("cannot start `systemctl`")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("systemctl {}: {}", args.join(" "), said.trim().replace('\n', "; "));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// What the unit says.
struct Unit {
    program: PathBuf,
    name: Option<String>,
    home: PathBuf,
    runtime: Option<PathBuf>,
    /// Whom a unit of the whole machine runs as.
    user: Option<String>,
}

impl Unit {
    fn new(args: &InstallArgs) -> Result<Unit> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        if args.which.system {
            let user = Some(args.user.clone());
            let (home, runtime) = (SYSTEM_HOME.into(), Some(SYSTEM_RUNTIME.into()));
            return Ok(Unit { program, name: args.name.clone(), home, runtime, user });
        }
        let home = home()?;
        let name = own_name(&home, args.name.as_deref())?.to_string();
        let runtime =
            std::env::var_os("MUTIRAO_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let path = std::path::absolute(home.path())?;
        Ok(Unit { program, name: Some(name), home: path, runtime, user: None })
    }

    /// What a unit of the whole machine needs before it can work.
    fn check_system(&self, user: &str) -> Result<()> {
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let entry = users.lines().find_map(|line| line.strip_prefix(user)?.strip_prefix(':'));
        match entry.and_then(|rest| rest.split(':').nth(1)) {
            Some("0") => bail!("user `{user}` is the superuser; a node needs no privileges, and gets none"),
            Some(_) => {}
            None => bail!(
                "there is no user `{user}`; make it: useradd --system --home-dir {SYSTEM_HOME} --shell \
                 /usr/sbin/nologin {user}"
            ),
        }
        if ["/home", "/root", "/run/user"].iter().any(|hidden| self.program.starts_with(hidden)) {
            bail!(
                "{} is hidden from the service; install the program below /usr/local",
                self.program.display()
            );
        }
        Ok(())
    }

    fn text(&self) -> String {
        let network = "Wants=network-online.target\nAfter=network-online.target\n";
        let (network, target) = match self.user {
            Some(_) => (network, "multi-user.target"),
            None => ("", "default.target"),
        };
        let mut start =
            vec![quoted(&self.program.to_string_lossy(), true), "up".into(), "--foreground".into()];
        if let Some(name) = &self.name {
            start.extend(["--name".into(), name.clone()]);
        }
        let mut settings = vec![
            format!("ExecStart={}", start.join(" ")),
            format!("Environment={}", quoted(&format!("MUTIRAO_HOME={}", self.home.display()), false)),
        ];
        if let Some(runtime) = &self.runtime {
            let setting = format!("MUTIRAO_RUNTIME_DIR={}", runtime.display());
            settings.push(format!("Environment={}", quoted(&setting, false)));
        }
        if let Some(user) = &self.user {
            settings.push(format!("User={user}\n{}", SYSTEM.trim()));
        }
        format!(
            "[Unit]\nDescription=Mutirão node: lends this machine to its pool\nDocumentation=man:mutirao(1)\n\
             {network}# However often it fails, it is tried again.\nStartLimitIntervalSec=0\n\n[Service]\nType=exec\n\
             {}\n{}\n\n[Install]\nWantedBy={target}\n",
            settings.join("\n"),
            COMMON.trim(),
        )
    }
}

/// Restarting, ending and hardening, for both kinds.
///
/// Left out on purpose, since workers inherit it: `MemoryDenyWriteExecute` (programs that compile at run
/// time), `PrivateDevices` (GPUs), `SystemCallFilter` (workers have a filter of their own).
const COMMON: &str = "
# Back after a crash; ended by `mutirao down`, it stays down until the next boot.
Restart=on-failure
RestartSec=2
# The node ends its workers itself; what is left after that is killed.
KillMode=mixed
TimeoutStopSec=15
# A worker out of memory is that worker's end, not the node's.
OOMPolicy=continue
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
";

/// Further, for a unit of the whole machine: these need what only the system's manager has.
const SYSTEM: &str = "
StateDirectory=mutirao
StateDirectoryMode=0700
RuntimeDirectory=mutirao
RuntimeDirectoryMode=0700
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
";

/// A word of a unit file. In command lines `$` is special too.
fn quoted(word: &str, in_command: bool) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:+,@".contains(c);
    if word.chars().all(plain) {
        return word.to_owned();
    }
    let word = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('\n', "\\n");
    format!("\"{}\"", if in_command { word.replace('$', "$$") } else { word })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_unit_mean_what_they_say() {
        assert_eq!(quoted("/usr/bin/mutirao", true), "/usr/bin/mutirao");
        assert_eq!(quoted("/a b/50%$x\"\\", true), "\"/a b/50%%$$x\\\"\\\\\"");
        assert_eq!(quoted("A=/a b/$x", false), "\"A=/a b/$x\"");
    }

    #[test]
    fn a_unit_restarts_and_has_no_privileges() {
        let unit = |user: Option<&str>| Unit {
            program: "/usr/bin/mutirao".into(),
            name: Some("ruby".into()),
            home: "/home/ana/my pool".into(),
            runtime: None,
            user: user.map(str::to_owned),
        };
        let own = unit(None).text();
        for line in [
            "ExecStart=/usr/bin/mutirao up --foreground --name ruby",
            "Environment=\"MUTIRAO_HOME=/home/ana/my pool\"",
            "Restart=on-failure",
            "NoNewPrivileges=yes",
            "WantedBy=default.target",
        ] {
            assert!(own.lines().any(|found| found == line), "{line} in\n{own}");
        }
        assert!(!own.contains("User=") && !own.contains("ProtectSystem") && !own.contains("\n\n\n"));
        let system = unit(Some("mutirao")).text();
        for line in
            ["User=mutirao", "ProtectSystem=strict", "CapabilityBoundingSet=", "WantedBy=multi-user.target"]
        {
            assert!(system.lines().any(|found| found == line), "{line} in\n{system}");
        }
    }
}
