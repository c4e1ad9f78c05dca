//! `mutirao bag`: thousands of independent tasks that finish whatever happens.

mod ask;
mod check;
mod control;
mod credibility;
mod elsewhere;
mod inputs;
mod ipar;
mod java;
mod keeper;
mod kept;
mod kept_files;
mod leases;
mod link;
mod member;
mod outputs;
mod place;
mod programs;
mod saving;
mod session;
mod shared;
mod show;
mod sites;
mod states;
mod visit;
mod work;

pub use ipar::{IparArgs, ReportArgs};
pub use leases::why_none;
pub use programs::{SessionArgs, session};
pub use visit::answer as visited;
pub use work::operations;

use crate::args::{Cli, Output as Form};
use crate::output::remark;
use crate::reading::{self, LIST_BYTES_MAX};
use anyhow::{Context, Result, bail};
use ask::{Ask, named};
use clap::{Args, Subcommand};
use elsewhere::Found;
use keeper::{Kept, Manner};
use mutirao_bag::{Accept, Added, BAG_NAME_BYTES_MAX, Counts, Draft, Settings};
use mutirao_wire::BagId;
use place::Place;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// When the disk is full, it is tried again after so long.
const DISK_RETRY: Duration = Duration::from_secs(2);

/// What to do with bags.
#[derive(Debug, Subcommand)]
pub enum BagCommand {
    /// Run the bag of a file here, to its end; what tasks write is printed
    #[command(after_help = "\
Interrupted or killed, the bag stays: `mutirao bag resume` goes on with what is left.
The exit code is 0 if all tasks are done, 1 if some failed or were cancelled.

Example: mutirao bag run sweep.toml")]
    Run(FileArgs),
    /// Hand a bag to a keeper in the background, which goes on when you log out
    #[command(after_help = "Example: mutirao bag submit sweep.toml       prints the bag's number")]
    Submit(FileArgs),
    /// Go on with a bag that was stopped
    #[command(after_help = "\
A bag that was submitted on another machine goes on in the background, as its nodes keep it.

Example: mutirao bag resume 7")]
    Resume {
        /// The bag, by number (`7`, or `7@lab3` of another machine) or name
        bag: String,
        /// In the background
        #[arg(long)]
        detach: bool,
    },
    /// Say what a bag file means, without running anything
    #[command(after_help = "Example: mutirao bag plan sweep.toml")]
    Plan(FileArgs),
    /// Add tasks: from inside a task to its own bag, else to any
    #[command(after_help = "\
From inside a task, what is added counts with the task's own result: an attempt that fails adds nothing.

Examples:
  mutirao bag add --like solve alpha=0.3 n=12      in a task: one more task of template `solve`
  mutirao bag add --to 7 -- ./solve --alpha 0.3    from outside: a task with this command")]
    Add(AddArgs),
    /// Save state from inside a task, so that its next attempt need not begin anew
    #[command(after_help = "\
For tasks with a `checkpoint` in the bag file. When this returns, the state outlives the machine. With exit code 1
it is not kept, for the reason that is told; the task may go on. The next attempt finds it in the file that
MUTIRAO_CHECKPOINT names.

Examples:
  mutirao bag checkpoint state.new     what is in this file becomes the state
  mutirao bag checkpoint               the state as it is in its file already")]
    Checkpoint {
        /// The file with the state, if not its own
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// List the bags: those of this machine, and yours of the whole pool
    #[command(after_help = "\
A bag that was submitted on another machine is called by its number there and the node: 7@lab3. All commands for bags
take that; and its number or name alone where no other has it. Bags of other machines are listed for users of the pool,
who have a certificate: see `mutirao join --help`.

Example: mutirao bag ls")]
    Ls,
    /// Show a bag and its tasks
    #[command(after_help = "Example: mutirao bag show 7 failed")]
    Show(WhichArgs),
    /// Say why tasks are where they are
    #[command(after_help = "Example: mutirao bag explain 7 solve.3")]
    Explain(WhichArgs),
    /// Print what tasks have written
    #[command(after_help = "Example: mutirao bag results 7 > all.txt")]
    Results {
        #[command(flatten)]
        which: WhichArgs,
        /// Their standard error instead
        #[arg(long)]
        stderr: bool,
    },
    /// Print all tasks as comma-separated values, or as JSON
    #[command(after_help = "Example: mutirao bag export 7 > tasks.csv")]
    Export {
        /// The bag, by number (`7`, or `7@lab3` of another machine) or name
        bag: String,
    },
    /// Follow a bag until it is over
    #[command(after_help = "Example: mutirao bag watch 7")]
    Watch {
        /// The bag, by number (`7`, or `7@lab3` of another machine) or name
        bag: String,
    },
    /// Wait until a bag is over
    #[command(after_help = "\
The exit code is 0 if all its tasks are done, 1 if some failed or were cancelled, 3 if it is not over and nobody
runs it.

Example: mutirao bag wait 7 && echo done")]
    Wait {
        /// The bag, by number (`7`, or `7@lab3` of another machine) or name
        bag: String,
    },
    /// Let tasks not be done
    #[command(after_help = "Example: mutirao bag cancel 7 all")]
    Cancel(WhichArgs),
    /// Try tasks again that failed, were set aside or cancelled
    #[command(after_help = "\
A task that saved state goes on with it.

Examples:
  mutirao bag retry 7 failed && mutirao bag resume 7
  mutirao bag retry --afresh 7 sum      whatever it saved is forgotten")]
    Retry {
        #[command(flatten)]
        which: WhichArgs,
        /// From the beginning, whatever state was saved
        #[arg(long)]
        afresh: bool,
    },
    /// List what is known of nodes from bags whose results are checked
    #[command(after_help = "\
PASSED and FAILED are spot checks: questions whose answer is known. OUTVOTED are results that others overruled.
A node that has failed one is given nothing in bags whose results are checked.

Examples:
  mutirao bag nodes
  mutirao bag nodes --forget lab7      it was mended: believe it as one never seen before")]
    Nodes(credibility::NodesArgs),
    /// Remove a bag that nobody runs: its journal, and what its tasks wrote
    #[command(after_help = "\
Files that tasks brought stay where they are.

Examples:
  mutirao bag rm 7
  mutirao bag rm 8 --unfinished       although not all of its tasks are over")]
    Rm {
        /// The bag, by number (`7`, or `7@lab3` of another machine) or name
        bag: String,
        /// Also if it is not over
        #[arg(long)]
        unfinished: bool,
    },
    /// Check the journal of a bag, on each node that keeps it
    #[command(after_help = "\
The exit code is 1 if one is damaged. A node that cannot be asked is named, and does not change the exit code.

Example: mutirao bag check 7")]
    Check {
        /// The bag, by number (`7`, or `7@lab3` of another machine) or name
        bag: String,
    },
    /// Run an ipar application
    Ipar(IparArgs),
    /// Report to the manager of an ipar application, from inside
    Report(ReportArgs),
}

/// A bag file.
#[derive(Debug, Args)]
pub struct FileArgs {
    /// The bag file (TOML)
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// When a result is accepted, whatever the file says: `first`, `majority of 3` or `credible 0.999`
    #[arg(long, value_name = "HOW")]
    pub accept: Option<Accept>,
    /// The part of all attempts that are spot checks, whatever the file says
    #[arg(long, value_name = "PART", value_parser = spot_part)]
    pub spot_checks: Option<u32>,
    /// The nodes that keep a submitted bag, one or three, whatever the file says: `lab1,lab2,lab3`
    #[arg(long, value_name = "NODES", value_delimiter = ',')]
    pub members: Vec<String>,
}

fn spot_part(text: &str) -> Result<u32, String> {
    let part = mutirao_bag::millionths(text).filter(|part| *part < 1_000_000);
    part.ok_or_else(|| format!("`{text}` is no part from 0 to less than 1, such as 0.05"))
}

/// Tasks of a bag.
#[derive(Debug, Args)]
pub struct WhichArgs {
    /// The bag, by number (`7`, or `7@lab3` of another machine) or name
    pub bag: String,
    /// A task by its number (`7`), those of a template (`solve`), one of them by its place (`solve.3`), those of
    /// a state (`failed`), or `all`
    pub tasks: Option<String>,
}

/// Options of `bag add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The bag, by number (`7`, or `7@lab3` of another machine) or name; its own from inside a task
    #[arg(long, value_name = "BAG")]
    pub to: Option<String>,
    /// The template of the task
    #[arg(long, value_name = "TEMPLATE")]
    pub like: Option<String>,
    /// Values of the template's parameters
    #[arg(value_name = "NAME=VALUE", value_parser = value)]
    pub values: Vec<(String, String)>,
    /// A command of its own
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

fn value(text: &str) -> Result<(String, String), String> {
    let split = text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    split.ok_or_else(|| format!("`{text}` is no value; write NAME=VALUE, or `--` before a command"))
}

/// `mutirao bag checkpoint`
fn checkpoint(file: Option<&Path>) -> Result<()> {
    let Some(file) = file else { return Ok(mutirao::checkpoint::keep()?) };
    let bytes = mutirao_wire::checkpoint::STATE_BYTES_MAX as u64;
    let state = mutirao_store::read_limited(file, bytes).context("the state is not kept")?;
    Ok(mutirao::checkpoint::save(&state)?)
}

/// Carries out a command.
pub fn run(cli: &Cli, command: &BagCommand) -> Result<u8> {
    let form = cli.output;
    match command {
        BagCommand::Run(args) => run_here(Place::submit(read(args)?)?, cli.node.clone()),
        BagCommand::Submit(args) => submit(cli, read(args)?, form),
        BagCommand::Resume { bag, detach } => match elsewhere::find(cli, bag)? {
            Found::Here(place) if !detach => run_here(place, cli.node.clone()),
            found => ask(cli, found, &Ask::Resume),
        },
        BagCommand::Plan(args) => plan(&read(args)?, form),
        BagCommand::Add(args) => add(cli, args),
        BagCommand::Checkpoint { file } => checkpoint(file.as_deref()).map(|()| 0),
        BagCommand::Ls => show::ls(elsewhere::rows(cli), form).map(|()| 0),
        BagCommand::Show(which) => of(cli, &which.bag, &Ask::Show { tasks: which.tasks.clone() }),
        BagCommand::Explain(which) => of(cli, &which.bag, &Ask::Explain { tasks: which.tasks.clone() }),
        BagCommand::Results { which, stderr } => {
            of(cli, &which.bag, &Ask::Results { tasks: which.tasks.clone(), stderr: *stderr })
        }
        BagCommand::Export { bag } => of(cli, bag, &Ask::Export),
        BagCommand::Watch { bag } => of(cli, bag, &Ask::Watch),
        BagCommand::Wait { bag } => of(cli, bag, &Ask::Wait),
        BagCommand::Cancel(which) => {
            of(cli, &which.bag, &Ask::Cancel { tasks: named(which.tasks.as_ref())? })
        }
        BagCommand::Retry { which, afresh } => {
            let tasks = named(which.tasks.as_ref())?;
            of(cli, &which.bag, &Ask::Retry { tasks, afresh: *afresh })
        }
        BagCommand::Rm { bag, unfinished } => remove(cli, bag, *unfinished),
        BagCommand::Nodes(args) => credibility::run(args, form).map(|()| 0),
        BagCommand::Check { bag } => check::check(cli, bag),
        BagCommand::Ipar(args) => ipar::run(cli, args),
        BagCommand::Report(args) => ipar::report(args),
    }
}

/// Asks a bag something, wherever it is.
fn of(cli: &Cli, bag: &str, what: &Ask) -> Result<u8> {
    if what.is_for_origin() {
        return ask(cli, elsewhere::find(cli, bag)?, what);
    }
    let find = || Ok::<_, anyhow::Error>(elsewhere::where_it_is_heard(cli, elsewhere::find(cli, bag)?));
    let found = find()?;
    let was_here = matches!(found, Found::Here(_));
    let code = ask(cli, found, what)?;
    if code == ask::NOT_OVER && was_here {
        // Its node may have gone meanwhile.
        if let found @ Found::Elsewhere(..) = find()? {
            return ask(cli, found, what);
        }
    }
    Ok(code)
}

fn ask(cli: &Cli, found: Found, what: &Ask) -> Result<u8> {
    match found {
        Found::Here(place) => what.carry_out(&place, cli.node.as_deref(), cli.output),
        Found::Elsewhere(pool, bag) => bag.ask(&pool, what, cli.output),
    }
}

/// Removes a bag, also what nodes keep of it.
fn remove(cli: &Cli, bag: &str, unfinished: bool) -> Result<u8> {
    let found = elsewhere::find(cli, bag)?;
    let (keep, here) = match &found {
        Found::Here(place) => (place.kept().ok().flatten(), true),
        Found::Elsewhere(_, bag) => (Some(bag.keep().clone()), false),
    };
    let code = match &found {
        Found::Here(place) => place.remove(unfinished).map(|()| 0)?,
        Found::Elsewhere(pool, bag) => bag.ask(pool, &Ask::Remove { unfinished }, cli.output)?,
    };
    let Some(keep) = keep.filter(|_| code == 0) else { return Ok(code) };
    match (found, here.then(|| kept::open_pool(Some(&keep.members[0].name)))) {
        (Found::Elsewhere(pool, _), _) | (_, Some(Ok(pool))) => kept::forget(&pool, &keep),
        (_, Some(Err(error))) => {
            remark!("mutirao: what nodes keep of it beside its directory stays there: {error:#}");
        }
        (Found::Here(_), None) => {}
    }
    Ok(code)
}

/// A keeper that was started in the background.
pub fn keeper(bag: &str, node: Option<String>, tells_ready: bool, session: Option<bool>) -> Result<u8> {
    let kept = keep(bag, node, Manner { tells_ready, session, ..Manner::default() });
    if let (Err(error), Some(_)) = (&kept, session) {
        programs::fail(error);
    }
    kept
}

fn keep(bag: &str, node: Option<String>, manner: Manner) -> Result<u8> {
    let found = match (bag.parse::<BagId>(), &node) {
        (Ok(id), Some(node)) => kept::taken_up(id, node)?,
        _ => Some((Place::find(bag)?, None)),
    };
    // One that was removed is over.
    let Some((place, members)) = found else { return Ok(0) };
    // Another may keep it still, whose node was restarted.
    let Some(_turn) = place.wait_turn()? else {
        if manner.session.is_some() {
            bail!("bag {} was removed", place.id);
        }
        return Ok(0);
    };
    let kept = match (members, node) {
        (Some((keep, me)), Some(node)) => member::keep(place, keep, me, &node)?,
        (_, node) => keeper::keep(place, node, manner)?,
    };
    Ok(match kept {
        Kept::Over(_) => 0,
        Kept::Stopped => 3,
        Kept::Moved => mutirao_wire::bag::LEADS_NO_MORE,
    })
}

fn read(args: &FileArgs) -> Result<Draft> {
    let file = &args.file;
    let name = file.display();
    let text = reading::text(file, LIST_BYTES_MAX)?;
    let directory = std::env::current_dir().context("this directory cannot be found")?;
    let settings =
        here(file.file_stem().map_or_else(|| "bag".into(), |stem| stem.to_string_lossy().into_owned()))?;
    let load = |name: &str| {
        reading::bytes(&directory.join(name), LIST_BYTES_MAX).map_err(|error| format!("`{name}`: {error:#}"))
    };
    let mut draft = mutirao_bag::read(&text, settings, &load).with_context(|| name.to_string())?;
    programs::check(&mut draft, &directory).with_context(|| name.to_string())?;
    if let Some((task, input)) = draft.missing_input(|path| directory.join(path).exists()) {
        remark!("mutirao: task {task} wants `{input}`, which is not there, and no other task is to bring it");
    }
    if let Some((task, before)) = draft.unwanted_output() {
        remark!(
            "mutirao: task `{task}` comes after `{before}` and has none of its files as inputs: on other nodes they are not \
             there; inputs = [\"@{before}\"] brings them"
        );
    }
    if !args.members.is_empty() {
        mutirao_bag::check_members(&args.members).map_err(anyhow::Error::msg)?;
        draft.settings.members.clone_from(&args.members);
    }
    let checks = &mut draft.settings.checks;
    checks.accept = args.accept.unwrap_or(checks.accept);
    checks.spot_millionths = args.spot_checks.unwrap_or(checks.spot_millionths);
    if checks.spot_millionths > 0 && draft.templates.iter().all(|template| template.known.is_empty()) {
        bail!("{name}: spot checks need a task with `known` answers, and none has any");
    }
    Ok(draft)
}

/// What holds for a bag that is submitted here; its name is that of a file.
fn here(mut name: String) -> Result<Settings> {
    name.truncate(name.floor_char_boundary(BAG_NAME_BYTES_MAX));
    let directory = std::env::current_dir().context("this directory cannot be found")?;
    let directory = directory.into_os_string().into_string();
    let directory = directory.map_err(|_| anyhow::anyhow!("the name of this directory is no text"))?;
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    // What tells a program its node and its worker is of this process alone.
    let environment = environment.filter(|(name, _)| !name.starts_with("MUTIRAO_")).collect();
    Ok(Settings { name, directory, environment, ..Settings::default() })
}

fn run_here(place: Place, node: Option<String>) -> Result<u8> {
    let id = place.id;
    remark!("mutirao: bag {id}; what is left of it, `mutirao bag resume {id}` goes on with");
    let manner = Manner { prints: true, shows: std::io::stderr().is_terminal(), ..Manner::default() };
    match keeper::keep(place, node, manner)? {
        Kept::Over(counts) => {
            remark!("mutirao: bag {id}: {}", summary(&counts));
            if counts.bad() > 0 {
                remark!("mutirao: `mutirao bag explain {id}` says why");
            }
            Ok(u8::from(counts.bad() > 0))
        }
        Kept::Stopped | Kept::Moved => {
            remark!("mutirao: stopped; `mutirao bag resume {id}` goes on");
            Ok(130)
        }
    }
}

fn summary(counts: &Counts) -> String {
    let mut text = format!("{} of {} done", counts.done, crate::output::counted(counts.all(), "task"));
    let others = [
        (counts.failed, "failed"),
        (counts.set_aside, "set aside"),
        (counts.cancelled, "cancelled"),
        (counts.barred, "barred by others that failed"),
        (counts.withdrawn, "withdrawn with the results that had added them"),
    ];
    others
        .iter()
        .filter(|(count, _)| *count > 0)
        .for_each(|(count, what)| text += &format!(", {count} {what}"));
    text
}

fn submit(cli: &Cli, draft: Draft, form: Form) -> Result<u8> {
    let place = Place::submit(draft)?;
    let kept = kept::background(&place, cli.node.as_deref());
    if kept.is_err() && matches!(place.kept(), Ok(None)) {
        // Nobody has heard of it.
        place.remove_all()?;
    }
    kept?;
    match form {
        Form::Text => crate::output::put(&format!("{}\n", place.id))?,
        Form::Json => crate::output::put(&format!("{}\n", serde_json::json!({ "bag": place.id })))?,
    }
    Ok(0)
}

/// A keeper that outlives this process and its terminal, to be started.
fn keeper_command(place: &Place, node: Option<&str>) -> Result<Command> {
    use std::os::unix::process::CommandExt;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(place.log());
    let log = log.with_context(|| format!("cannot write {}", place.log().display()))?;
    let binary = std::env::current_exe().context("this program cannot be found")?;
    let mut command = Command::new(binary);
    command.args(node.map(|node| format!("--node={node}"))).arg("keeper").arg(place.id.to_string());
    // The end of a session or an interrupt from the terminal is no longer its end.
    command.stderr(log).process_group(0);
    Ok(command)
}

/// Starts a keeper in the background, and waits until it hears orders.
fn detach(place: &Place, node: Option<&str>) -> Result<()> {
    let mut command = keeper_command(place, node)?;
    command.arg("--tells-ready").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start the keeper")?;
    let mut ready = [0];
    let said = child.stdout.take().map(|mut said| said.read(&mut ready)).transpose();
    if said.context("cannot hear the keeper")? == Some(1) {
        return Ok(());
    }
    let status = child.wait().context("cannot wait for the keeper")?;
    if status.success() {
        return Ok(());
    }
    let said = std::fs::read_to_string(place.log()).unwrap_or_default();
    bail!(
        "the keeper of bag {} ended at once: {}",
        place.id,
        said.lines().last().unwrap_or("it said nothing")
    )
}

fn plan(draft: &Draft, form: Form) -> Result<u8> {
    let tasks = |place: usize| draft.tasks.iter().filter(|task| task.template as usize == place).count();
    let value = |(place, template): (usize, &mutirao_bag::Template)| {
        let after: Vec<&str> =
            template.after.iter().map(|after| draft.templates[*after as usize].name.as_str()).collect();
        (template.name.clone(), tasks(place), after.join(", "), template.parameters.join(", "))
    };
    let rows: Vec<_> = draft.templates.iter().enumerate().map(value).collect();
    let text = match form {
        Form::Json => {
            let row = |(name, tasks, after, parameters): &(String, usize, String, String)| serde_json::json!({ "template": name, "tasks": tasks, "after": after, "parameters": parameters });
            format!("{}\n", rows.iter().map(row).collect::<serde_json::Value>())
        }
        Form::Text => {
            let rows: Vec<[String; 4]> = rows
                .into_iter()
                .map(|(name, tasks, after, parameters)| [name, tasks.to_string(), after, parameters])
                .collect();
            crate::output::table(
                ["TEMPLATE", "TASKS", "AFTER", "PARAMETERS"],
                [false, true, false, false],
                &rows,
            )
        }
    };
    crate::output::put(&text)?;
    Ok(0)
}

fn add(cli: &Cli, args: &AddArgs) -> Result<u8> {
    let command =
        (!args.command.is_empty()).then(|| mutirao_bag::AddedCommand::Program(args.command.clone()));
    let added = Added { like: args.like.clone(), values: args.values.iter().cloned().collect(), command };
    match (&args.to, std::env::var_os(work::REPORT_ENV)) {
        (Some(bag), _) => of(cli, bag, &Ask::Add(added)),
        (None, Some(report)) => ipar::write(Path::new(&report), &added.line()).map(|()| 0),
        (None, None) => bail!("say to which bag with --to; only from inside a task it is the task's own"),
    }
}
