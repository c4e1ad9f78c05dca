//! Nodes of other machines, over ssh: `up --hosts`, `down --hosts`, and measuring between them.

pub mod agent;
pub mod args;
mod bring;
mod each;
mod place;
mod session;

use crate::args::{DownArgs, Output, UpArgs};
use crate::membership::{home, name_like, passphrase, user_name};
use crate::output::put;
use crate::output::remark;
use crate::reading::{self, LIST_BYTES_MAX};
use crate::up::alive_nodes;
use agent::{Order, Reply, UpOrder, UpReply};
use anyhow::{Context, Result, anyhow, bail};
use args::SshArgs;
use bring::Bringer;
use each::each;
use mutirao_topology::hosts::{Host, HostFile};
use mutirao_topology::matrix::Matrix;
use mutirao_trust::{Authority, Home, JoinRequest, Name, Pool, Role, Validity};
use place::{Above, Plan};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;

/// Days for which certificates made here are good.
const DAYS: u32 = 3650;

/// Reads a host file; `-` is standard input.
pub fn read(path: &Path, ssh: &SshArgs) -> Result<HostFile> {
    let text = reading::text(path, LIST_BYTES_MAX)?;
    HostFile::parse(&text, ssh.name_from.into()).with_context(|| path.display().to_string())
}

/// `mutirao up --hosts FILE`; the exit code.
pub fn up(args: &UpArgs, path: &Path, output: Output) -> Result<u8> {
    let ssh = &args.remote.ssh;
    let file = read(path, ssh)?;
    let home = home()?;
    let pool = home.load_pool().context("the machines are to join the pool of this one")?;
    let plan = Plan::new(args, &file, &alive_nodes(&pool))?;
    let starter = Starter {
        args,
        pool: &pool,
        owner: owner(&home)?,
        vault: Vault::new(&home, args.passphrase_file.as_deref())?,
        bringer: Bringer::new(&ssh.ssh)?,
        plan: &plan,
    };
    let mut outcomes: Vec<Option<Result<UpReply>>> = file.hosts.iter().map(|_| None).collect();
    // Parents before their children, whose order names the parents' addresses.
    for level in plan.levels() {
        let results = each(&file, &level, ssh.parallel, &|i, step| {
            let join = starter.join(&file, i, &outcomes)?;
            starter.bring_up(&file.hosts[i], join, step)
        });
        for (i, result) in level.into_iter().zip(results) {
            outcomes[i] = Some(result);
        }
    }
    let outcomes = outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(anyhow!("not reached"))));
    report_up(&file, &outcomes.collect::<Vec<_>>(), output)
}

/// Whose plugins run on the machines: the pool's user who brings them up.
fn owner(home: &Home) -> Result<Name> {
    let (users, me) = (home.users()?, name_like(&user_name())?);
    Ok(if users.contains(&me) { me } else { users.into_iter().next().unwrap_or(me) })
}

/// All that it takes to bring up one machine.
struct Starter<'a> {
    args: &'a UpArgs,
    pool: &'a Pool,
    owner: Name,
    vault: Vault<'a>,
    bringer: Bringer,
    plan: &'a Plan,
}

impl Starter<'_> {
    /// Whom a host joins, and whether exactly one of these.
    fn join(
        &self,
        file: &HostFile,
        host: usize,
        outcomes: &[Option<Result<UpReply>>],
    ) -> Result<(Vec<String>, bool)> {
        match self.plan.above(host) {
            Above::Nobody => Ok((Vec::new(), false)),
            Above::Exactly(targets) => Ok((targets.clone(), true)),
            Above::TreeOf(targets) => Ok((targets.clone(), false)),
            Above::Host(parent) => match &outcomes[*parent] {
                Some(Ok(up)) => Ok((self.plan.reach(file, *parent, &up.addresses), true)),
                _ => bail!("not tried, since its parent `{}` is not up", file.hosts[*parent].name),
            },
        }
    }

    fn bring_up(
        &self,
        host: &Host,
        (join, here): (Vec<String>, bool),
        step: &dyn Fn(&str),
    ) -> Result<UpReply> {
        let mut agent = self.bringer.reach(host, step)?;
        step("starting");
        let mut reply = agent.order(&Order::Up(Box::new(UpOrder {
            pool: self.pool.to_pem(),
            name: host.name.clone(),
            owner: self.owner.clone(),
            join,
            here,
            slots: host.slots.or(self.args.slots),
            lend: self.args.lend.clone(),
            port: self.plan.port(host),
            fan_out: self.args.fan_out,
            spin: !self.args.no_spin,
        })))?;
        if let Reply::Request(request) = reply {
            step("certifying");
            let certificate = self.vault.certify(&request, &host.name)?;
            step("starting");
            reply = agent.order(&Order::Certificate(certificate))?;
        }
        match reply {
            Reply::Up(up) => Ok(up),
            _ => bail!("the program there does not answer as it should"),
        }
    }
}

/// The authority, opened when the first machine needs it.
struct Vault<'a> {
    home: &'a Home,
    /// Asked for beforehand: later the terminal is busy.
    passphrase: Option<String>,
    opened: Mutex<Option<Result<Authority, String>>>,
}

impl<'a> Vault<'a> {
    fn new(home: &'a Home, file: Option<&Path>) -> Result<Vault<'a>> {
        let prompt = "passphrase of the pool's authority (empty: no machine is new): ";
        let passphrase = if home.has_authority() { passphrase(file, prompt)? } else { None };
        Ok(Vault { home, passphrase: passphrase.filter(|text| !text.is_empty()), opened: Mutex::new(None) })
    }

    /// A certificate for a node of this name, and no other.
    fn certify(&self, request: &str, name: &Name) -> Result<String> {
        let request = JoinRequest::parse(request)?;
        if request.name() != name || request.role() != Role::Node {
            bail!("the machine asks to be {} `{}`, which was not the order", request.role(), request.name());
        }
        // Opening takes a second on purpose; one thread does it for all.
        let mut opened = self.opened.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let authority = opened.get_or_insert_with(|| self.open().map_err(|error| format!("{error:#}")));
        let authority = authority.as_ref().map_err(|error| anyhow!("{error}"))?;
        Ok(authority.issue(&request, Role::Node, name, Validity::days(DAYS))?.to_pem())
    }

    fn open(&self) -> Result<Authority> {
        if !self.home.has_authority() {
            bail!(
                "it has no identity in this pool yet, and the pool's authority is not in {}; run this where \
                 `mutirao init` was run",
                self.home.path().display()
            );
        }
        let Some(passphrase) = &self.passphrase else {
            bail!("it has no identity in this pool yet; give --passphrase-file, or run this on a terminal");
        };
        Ok(self.home.open_authority(passphrase)?)
    }
}

fn report_up(file: &HostFile, outcomes: &[Result<UpReply>], output: Output) -> Result<u8> {
    let count = |holds: fn(&UpReply) -> bool| outcomes.iter().flatten().filter(|up| holds(up)).count();
    let (already, alone) = (count(|up| up.already), count(|up| up.alone));
    let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    if output == Output::Json {
        let rows = file.hosts.iter().zip(outcomes).map(|(host, outcome)| {
            let state = match outcome {
                Ok(up) if up.already => "already up",
                Ok(up) if up.alone => "alone",
                Ok(_) => "up",
                Err(_) => "failed",
            };
            json!({
                "host": host.target, "name": host.name, "state": state,
                "parent": outcome.as_ref().ok().and_then(|up| up.parent.clone()),
                "addresses": outcome.as_ref().map(|up| up.addresses.clone()).unwrap_or_default(),
                "error": outcome.as_ref().err().map(|error| format!("{error:#}")),
            })
        });
        put(&format!("{:#}\n", rows.collect::<Value>()))?;
    } else {
        for (host, outcome) in file.hosts.iter().zip(outcomes) {
            remark!("{host}: {}", up_words(&host.name, outcome));
        }
    }
    let ending: Vec<&str> = file
        .hosts
        .iter()
        .zip(outcomes)
        .filter(|(_, outcome)| outcome.as_ref().is_ok_and(|up| up.ends_with_session))
        .map(|(host, _)| host.target.as_str())
        .collect();
    if !ending.is_empty() {
        remark!(
            "On these machines the node ends when you log out, unless `loginctl enable-linger` is run there \
             once: {}",
            ending.join(", ")
        );
    }
    let up = outcomes.len() - failed - alone;
    remark!("{} hosts: {up} up ({already} of them already), {alone} alone, {failed} failed", outcomes.len());
    Ok(u8::from(failed + alone > 0))
}

fn up_words(name: &Name, outcome: &Result<UpReply>) -> String {
    match outcome {
        Ok(up) if up.already => format!("node `{name}` is already up"),
        Ok(up) if up.alone => {
            format!(
                "node `{name}` is up, but has not reached whom it was to join; it goes on trying, see its log"
            )
        }
        Ok(up) => match &up.parent {
            Some(parent) => format!("node `{name}` is up below `{parent}`"),
            None => format!("node `{name}` is up, root of its tree"),
        },
        Err(error) => format!("failed: {error:#}"),
    }
}

/// `mutirao down --hosts FILE`; the exit code.
pub fn down(args: &DownArgs, path: &Path, output: Output) -> Result<u8> {
    let ssh = &args.remote.ssh;
    let file = read(path, ssh)?;
    let pool = home()?.load_pool()?;
    let bringer = Bringer::new(&ssh.ssh)?;
    let all: Vec<usize> = (0..file.hosts.len()).collect();
    let outcomes = each(&file, &all, ssh.parallel, &|i, step| {
        let host = &file.hosts[i];
        let mut agent = bringer.reach(host, step)?;
        step("stopping");
        match agent.order(&Order::Down { pool: pool.to_pem(), name: host.name.clone() })? {
            Reply::Down { was_up } => Ok(was_up),
            _ => bail!("the program there does not answer as it should"),
        }
    });
    let state = |outcome: &Result<bool>| match outcome {
        Ok(true) => "down",
        Ok(false) => "already down",
        Err(_) => "failed",
    };
    let error = |outcome: &Result<bool>| outcome.as_ref().err().map(|error| format!("{error:#}"));
    let rows = file.hosts.iter().zip(&outcomes);
    if output == Output::Json {
        let rows = rows.map(|(host, outcome)| {
            json!({
                "host": host.target, "name": host.name, "state": state(outcome), "error": error(outcome),
            })
        });
        put(&format!("{:#}\n", rows.collect::<Value>()))?;
    } else {
        for (host, outcome) in rows {
            match error(outcome) {
                Some(error) => remark!("{host}: failed: {error}"),
                None => remark!("{host}: node `{}` is {}", host.name, state(outcome)),
            }
        }
    }
    Ok(u8::from(outcomes.iter().any(Result::is_err)))
}

/// Round trips between the nodes that run on the hosts of a file, measured by each of them to all others.
pub fn measure(file: &HostFile, ssh: &SshArgs, nodes: &BTreeMap<String, Vec<SocketAddr>>) -> Result<Matrix> {
    let names: Vec<String> = file.hosts.iter().map(|host| host.name.to_string()).collect();
    if let Some(host) = file.hosts.iter().find(|host| !nodes.contains_key(host.name.as_str())) {
        bail!("node `{}` (line {} of the host file) does not run; start it first", host.name, host.line);
    }
    let mut matrix = Matrix::new(names.clone())?;
    let bringer = Bringer::new(&ssh.ssh)?;
    let all: Vec<usize> = (0..names.len()).collect();
    let outcomes = each(file, &all, ssh.parallel, &|i, step| {
        let mut agent = bringer.reach(&file.hosts[i], step)?;
        step("measuring");
        let others = names.iter().filter(|name| **name != names[i]);
        let targets = others.map(|name| (name.clone(), nodes[name].clone())).collect();
        match agent.order(&Order::Measure(targets))? {
            Reply::Measured(round_trips) => Ok(round_trips),
            _ => bail!("the program there does not answer as it should"),
        }
    });
    for (a, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(round_trips) => {
                for (name, us) in round_trips {
                    if let Some(b) = matrix.place_of(&name).filter(|_| us.is_finite() && us >= 0.0) {
                        matrix.set(a, b, us);
                    }
                }
            }
            // The others may have measured the way to it.
            Err(error) => remark!("mutirao: {}: {error:#}", file.hosts[a]),
        }
    }
    matrix.complete()?;
    Ok(matrix)
}
