//! One job: a command with its arguments, and the files it needs.

use super::args::MapArgs;
use super::source::Arguments;
use super::template::{Filling, Template};
use crate::commands::Surroundings;
use anyhow::{Context, Result, bail};
use mutirao_runner::{Command, File, Home};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// A job.
#[derive(Debug, Default)]
pub struct Job {
    /// Its number, from 1.
    pub sequence: u64,
    /// Its arguments.
    pub arguments: Arguments,
    /// What it finds on its standard input.
    pub stdin: Vec<u8>,
    /// Its place among those that run, from 1.
    pub place: u32,
    /// Its command line.
    pub line: Vec<u8>,
    /// Files to take back.
    pub takes: Vec<String>,
    /// Bytes of files brought.
    pub sent_bytes: u64,
    /// How often it has run.
    pub tries: u32,
    /// How often it was lost with the machine it ran on.
    pub losses: u32,
}

impl Job {
    /// A job that has not run.
    pub fn new(sequence: u64, arguments: Arguments) -> Job {
        Job { sequence, arguments, ..Job::default() }
    }

    /// Whether it has not been tried yet.
    pub fn is_fresh(&self) -> bool {
        self.tries == 0 && self.losses == 0
    }

    fn filling(&self) -> Filling<'_> {
        Filling { arguments: &self.arguments, sequence: self.sequence, place: self.place }
    }
}

/// Makes the command of a job.
#[derive(Debug)]
pub struct Maker {
    /// `None`: the arguments are commands themselves.
    template: Option<Template>,
    /// What would be arguments comes on standard input.
    pipe: bool,
    tag: Option<Template>,
    bring: Vec<Template>,
    take: Vec<Template>,
    surroundings: Surroundings,
    /// Where jobs belong; none for a playpen in any case.
    home: Option<Home>,
    environment: Vec<(Vec<u8>, Vec<u8>)>,
    time_limit_ms: Option<u64>,
    /// Files for all jobs.
    base: Vec<File>,
}

impl Maker {
    /// Reads the templates and the files for all. Where `alone`, all runs on this machine, and no file is brought.
    pub fn new(args: &MapArgs, command: &[u8], alone: bool) -> Result<Maker> {
        let surroundings = Surroundings::here().context("cannot tell where this is")?;
        let home = match &args.workdir {
            Some(directory) if directory.as_os_str() == "..." => None,
            Some(directory) => {
                let directory =
                    std::path::absolute(directory).context("cannot tell the working directory")?;
                let directory = directory.into_os_string().into_vec();
                Some(Home { directory, ..surroundings.home.clone() })
            }
            None => Some(surroundings.home.clone()),
        };
        let alone = alone && home.is_some();
        let template = |text: &String| Template::parse(text.as_bytes());
        let mut bring: Vec<Template> = args.transferfile.iter().map(template).collect();
        let mut take: Vec<Template> = args.takes.iter().map(template).collect();
        if !args.trc.is_empty() {
            bring.push(Template::parse(b"{}"));
            take.extend(args.trc.iter().map(template));
        }
        let mut environment = Vec::new();
        for name in &args.env {
            let Some(value) = std::env::var_os(name) else {
                bail!("there is no variable {name} in the environment")
            };
            environment.push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        }
        let base = if alone {
            Vec::new()
        } else {
            args.basefile.iter().map(|name| read(name)).collect::<Result<_>>()?
        };
        let tag = match &args.tagstring {
            Some(text) => Some(template(text)),
            None if args.tag => Some(Template::parse(b"{}")),
            None => None,
        };
        Ok(Maker {
            template: (!command.is_empty()).then(|| match args.pipe {
                true => Template::parse(command),
                false => Template::command(command),
            }),
            pipe: args.pipe,
            tag,
            bring: if alone { Vec::new() } else { bring },
            take,
            surroundings,
            home,
            environment,
            time_limit_ms: args
                .timeout
                .filter(|limit| !limit.is_zero())
                .map(|limit| limit.as_millis().max(1) as u64),
            base,
        })
    }

    /// A job that has not run.
    pub fn job(&self, sequence: u64, mut arguments: Arguments) -> Job {
        let stdin = if self.pipe { arguments.pop().unwrap_or_default() } else { Vec::new() };
        Job { stdin, ..Job::new(sequence, arguments) }
    }

    /// Whether commands name their places among those that run.
    pub fn names_place(&self) -> bool {
        let mut templates = self.template.iter().chain(&self.tag).chain(&self.bring).chain(&self.take);
        templates.any(Template::names_place)
    }

    /// The command line of a job.
    pub fn line(&self, job: &Job) -> Vec<u8> {
        match &self.template {
            Some(template) => template.fill_quoted(job.filling()),
            None => job.arguments.join(&b' '),
        }
    }

    /// What stands before each line that a job writes.
    pub fn tag(&self, job: &Job) -> Option<Vec<u8>> {
        self.tag.as_ref().map(|tag| tag.fill(job.filling()))
    }

    /// Completes a job that gets this place, and makes its command.
    pub fn command(&self, job: &mut Job, place: u32) -> Result<Command> {
        job.place = place;
        job.line = self.line(job);
        let name = |template: &Template| text(template.fill(job.filling()));
        job.takes = self.take.iter().map(name).collect::<Result<_>>()?;
        if let Some(name) = job.takes.iter().find(|name| !leads_downwards(Path::new(name))) {
            bail!(
                "cannot take {name} back: only files below this directory come back, under their names from here"
            );
        }
        let mut bring = self.base.clone();
        for template in &self.bring {
            bring.push(read(&text(template.fill(job.filling()))?)?);
        }
        job.sent_bytes = bring.iter().map(|file| file.bytes.len() as u64).sum();
        let mut environment = self.environment.clone();
        environment.push((b"PARALLEL_SEQ".to_vec(), job.sequence.to_string().into_bytes()));
        Ok(Command {
            program: self.surroundings.program(&job.line),
            environment,
            home: self.home.clone(),
            bring,
            take: job.takes.clone(),
            stdin: job.stdin.clone(),
            time_limit_ms: self.time_limit_ms,
            ..Command::default()
        })
    }
}

fn text(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).context("names of files that travel must be UTF-8")
}

fn leads_downwards(path: &Path) -> bool {
    let down = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    path.components().all(down) && path.file_name().is_some()
}

/// A file of this machine, to travel under its name.
fn read(name: &str) -> Result<File> {
    let path = Path::new(name);
    if !leads_downwards(path) {
        bail!("cannot bring {name}: only files below this directory travel, under their names from here");
    }
    let failed = || format!("cannot bring {name}");
    let facts = std::fs::metadata(path).with_context(failed)?;
    if facts.len() > mutirao_runner::OUTPUT_BYTES_MAX {
        let most = crate::output::bytes(mutirao_runner::OUTPUT_BYTES_MAX);
        bail!("cannot bring {name}: the files of a job may have {most} in all");
    }
    let bytes = std::fs::read(path).with_context(failed)?;
    let executable = facts.permissions().mode() & 0o100 != 0;
    Ok(File { name: PathBuf::from(path).to_string_lossy().into_owned(), executable, bytes })
}
