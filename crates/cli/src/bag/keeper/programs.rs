//! Programs whose operations are the tasks, and those that have the bag open.

use super::{Keeper, Log};
use crate::bag::control::{self, Order};
use crate::bag::outputs;
use crate::bag::place::Place;
use crate::bag::session::{self, Said};
use anyhow::{Context, Result};
use mutirao::raw::{ForeignProgram, Options};
use mutirao_bag::{Input, Program};
use mutirao_wire::plugin::Operation;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Offers a bag's program to the pool, instead of this one.
pub(super) fn offer(program: &Program, place: &Place, log: &Log, options: &mut Options) -> Result<()> {
    // A task that is lost is begun again by the bag, which counts how often.
    let operation = |name: &String| Operation { name: name.clone(), repeatable: false };
    let operations = program.operations.iter().map(operation).collect();
    let path = found(&program.path, place, log)?;
    options.foreign = Some(ForeignProgram { path, operations });
    let libraries = program.libraries.iter().map(|path| found(path, place, log));
    options.libraries = libraries.collect::<Result<_>>()?;
    options.as_user = false;
    Ok(())
}

/// A file of the program on this machine. Elsewhere than where the bag was submitted it is put there from what came
/// along.
fn found(path: &str, place: &Place, log: &Log) -> Result<PathBuf> {
    let shared = match log {
        Log::Shared(shared) if !shared.is_origin() => shared,
        _ => return Ok(path.into()),
    };
    let came = shared.find_input(Path::new(path)).with_context(|| format!("{path} did not come along"))?;
    let name = Path::new(path).file_name().unwrap_or_default();
    let here = place.directory().join("came").join(name);
    outputs::write(&here, &came.read()?, came.executable)
        .with_context(|| format!("cannot write {}", here.display()))?;
    Ok(here)
}

impl Keeper {
    /// The number of an operation of the bag's program.
    pub(super) fn operation_named(&self, name: &str) -> Result<u32> {
        let program = self.bag.settings().program.as_ref();
        let place = program.and_then(|program| program.operations.iter().position(|known| known == name));
        let place = place.with_context(|| format!("the program has no operation `{name}`"))?;
        Ok(place as u32)
    }

    /// A bag that a program has opened just now, and to which it has not come yet, is not over.
    pub(super) fn await_program(&mut self) {
        if self.bag.settings().program.is_some() && self.bag.templates().is_empty() {
            self.bag.hold(true);
        }
    }

    /// A program has the bag open.
    pub(super) fn open_session(&mut self, stream: UnixStream, owns: bool) -> Result<()> {
        let session = match self.sessions.open(owns) {
            Ok(session) => session,
            Err(error) => {
                session::refuse(&stream, &error);
                return Ok(());
            }
        };
        self.bag.hold(true);
        session::serve(&self.place, stream, (session, self.bag.tasks_in_all()), &self.sender)
    }

    /// A program that has the bag open says something.
    pub(super) fn said(&mut self, said: Said) -> Result<()> {
        let (Said::Push { session, .. }
        | Said::Cancel { session }
        | Said::Ends { session, .. }
        | Said::Gone(session)) = said;
        if !self.sessions.has(session) {
            // Another has opened it. What waits for an answer hears that there is none.
            return Ok(());
        }
        match said {
            Said::Push { calls, reply, .. } => {
                let taken = session::pushed(&self.bag, &calls).and_then(|input| self.tell(input));
                // It may have gone.
                let _ = reply.send(taken);
            }
            Said::Cancel { .. } => self.cancel_all()?,
            Said::Ends { from, reply, .. } => self.sessions.want(from, reply),
            Said::Gone(_) => {
                if self.sessions.gone() {
                    self.abandoned = true;
                    self.cancel_all()?;
                }
                self.bag.hold(false);
                self.over |= self.bag.is_over();
                // Nothing may be left to do.
                self.tell(Input::Time)?;
            }
        }
        Ok(())
    }

    fn cancel_all(&mut self) -> Result<()> {
        for input in control::inputs(&self.bag, &Order::Cancel("all".into()))?.inputs {
            self.tell(input)?;
        }
        Ok(())
    }
}
