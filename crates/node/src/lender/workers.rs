//! Workers: forked from their templates, watched, ended, and replaced.

use super::ending::Evidence;
use super::process::{self, Claim, Process};
use super::tail::Tail;
use super::worker::{self, Equipment, Ring, Worker};
use super::{
    Done, KIND_SHIFT, Lender, READ, STDERR_A_TURN, STDERR_PAUSE, TEMPLATE_STDERR, WORKER_BELL,
    WORKER_PROCESS, WORKER_STDERR, key, remove_directory,
};
use crate::context::{Action, Context, Done as JobDone, Owner};
use mutirao_ring::Bell;
use mutirao_wire::lease::WorkerState;
use mutirao_wire::worker::{Exited, Fork, Forked, PLACE_ENV, PLACE_OWN};
use mutirao_wire::{AppId, Tick};
use std::io;
use std::os::fd::AsFd;

impl Lender {
    pub(super) fn fork(&mut self, ctx: &mut Context, serial: u64, template: u64) {
        let number = self.number();
        let Some(lease) = self.leases.get(&serial) else { return };
        let Some(of) = self.templates.get(&template) else { return };
        let (directory, app, slots, local) =
            (of.directory.join(number.to_string()), lease.given.app, lease.given.slots, lease.given.local);
        let mut environment = lease.environment();
        environment.extend(self.place(lease.given.as_user));
        let equipped = self.equip(&directory, local.then_some(app));
        let Equipment { ring, stderr, line, descriptors } = match equipped {
            Ok(equipment) => equipment,
            Err(why) => return self.give_up(ctx, serial, format!("no worker can be equipped: {why}")),
        };
        let mut watched = ctx.watch(stderr.as_fd(), Owner::Lender, key(WORKER_STDERR, number), READ);
        if let Ring::Remote { bell, .. } = &ring {
            watched = watched.and(ctx.watch(bell.as_fd(), Owner::Lender, key(WORKER_BELL, number), READ));
        }
        if let Err(error) = watched {
            return self.give_up(ctx, serial, format!("no worker can be watched: {error}"));
        }
        let seat = self.seats.take();
        let fork = Fork {
            worker: number,
            spinner: u32::from(seat),
            slots,
            directory: directory.to_string_lossy().into_owned(),
            environment,
        };
        let worker = Worker {
            serial,
            template,
            seat,
            directory,
            stderr,
            tail: Tail::default(),
            ring,
            stage: worker::Stage::Forking(ctx.now),
            ordered: None,
            wait_status: None,
            line: Some(line),
        };
        self.workers.insert(number, worker);
        if let Some(lease) = self.leases.get_mut(&serial) {
            lease.worker = Some(number);
        }
        let running = self.templates.get_mut(&template).and_then(|template| template.running.as_mut());
        if let Some(Err(error)) = running.map(|running| running.send(&fork.into(), descriptors)) {
            tracing::warn!("a template cannot be reached and is ended: {error}");
            self.end_template(template);
        }
    }

    /// What tells a worker which files it may touch beside its own.
    pub(super) fn place(&self, as_user: bool) -> Option<(String, String)> {
        let shared: Vec<String> = self.shared.iter().map(|path| path.display().to_string()).collect();
        let place = match (as_user, shared.is_empty()) {
            (true, _) => PLACE_OWN.to_owned(),
            (false, false) => format!("shared={}", shared.join(":")),
            (false, true) => return None,
        };
        Some((PLACE_ENV.to_owned(), place))
    }

    pub(super) fn equip(
        &mut self,
        directory: &std::path::Path,
        local: Option<AppId>,
    ) -> Result<Equipment, worker::EquipError> {
        let board = self.seats.board()?;
        let Some(app) = local else { return Equipment::make(directory, board, None) };
        let bell = match self.bells.entry(app) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(Bell::pair()?),
        };
        Equipment::make(directory, board, Some(bell))
    }

    pub(super) fn forked(&mut self, ctx: &mut Context, template: u64, forked: Forked) {
        let parent = self.templates.get(&template).and_then(|template| template.running.as_ref());
        let Some(parent) = parent.map(|running| running.process.pid()) else { return };
        let Some(worker) = self.workers.get_mut(&forked.worker).filter(|worker| worker.template == template)
        else {
            return self.end_template(template);
        };
        let worker::Stage::Forking(asked) = worker.stage else { return self.end_template(template) };
        let pid = match forked.pid {
            Ok(pid) => pid,
            Err(errno) => {
                let error = io::Error::from_raw_os_error(errno);
                worker.tail.push(format!("its template could not fork: {error}\n").as_bytes());
                worker.stage = worker::Stage::Ended { since: ctx.now, group: None };
                return self.worker_over(ctx, forked.worker);
            }
        };
        match Process::claimed_by(parent, pid) {
            Claim::True(process) => {
                let watched =
                    ctx.watch(process.as_fd(), Owner::Lender, key(WORKER_PROCESS, forked.worker), READ);
                let serial = worker.serial;
                let unwanted = worker.ordered.is_some() || watched.is_err();
                if unwanted {
                    process.kill();
                }
                // One that cannot be watched is over without its end being seen.
                worker.stage = match watched {
                    Ok(()) => worker::Stage::Running(process),
                    Err(_) => worker::Stage::Ended { since: ctx.now, group: Some(pid) },
                };
                if !unwanted {
                    tracing::debug!(
                        serial,
                        took_us = (ctx.now - asked).as_micros() as u64,
                        "a worker is ready"
                    );
                    self.worker_ready(ctx, serial);
                }
            }
            Claim::Ended => {
                worker.stage = worker::Stage::Ended { since: ctx.now, group: Some(pid) };
            }
            Claim::False => {
                tracing::warn!("a template names a process that is not its own, and is ended");
                self.end_template(template);
            }
        }
    }

    pub(super) fn worker_ready(&mut self, ctx: &mut Context, serial: u64) {
        let Some(lease) = self.leases.get_mut(&serial) else { return };
        if let Some(served) = &mut lease.served {
            served.worker_ready(ctx.now);
        }
        ctx.actions.push(Action::Worker { serial, state: WorkerState::Ready });
        self.pump(ctx, serial);
    }

    /// Ends a worker; `code` says why, for its calls.
    pub(super) fn order_end(&mut self, number: u64, code: u32) {
        let Some(worker) = self.workers.get_mut(&number) else { return };
        worker.ordered.get_or_insert(code);
        if let worker::Stage::Running(process) = &worker.stage {
            process.kill();
        }
    }

    /// The process of a worker has ended; its template says how.
    pub(super) fn worker_ended(&mut self, ctx: &mut Context, number: u64) {
        let Some(worker) = self.workers.get_mut(&number) else { return };
        let worker::Stage::Running(process) = &worker.stage else { return };
        worker.stage = worker::Stage::Ended { since: ctx.now, group: Some(process.pid()) };
        ctx.actions.push(Action::WorkerGone { serial: worker.serial });
        let known = worker.wait_status.is_some() || !self.templates.contains_key(&worker.template);
        // How it ended matters to nobody if the node ended it.
        if known || worker.ordered.is_some() {
            self.worker_over(ctx, number);
        }
    }

    pub(super) fn exited(&mut self, ctx: &mut Context, template: u64, exited: Exited) {
        let Some(worker) = self.workers.get_mut(&exited.worker).filter(|worker| worker.template == template)
        else {
            return;
        };
        worker.wait_status = Some(exited.wait_status);
        if matches!(worker.stage, worker::Stage::Ended { .. }) {
            self.worker_over(ctx, exited.worker);
        }
    }

    /// A worker is gone and all that can be known about its end is known.
    pub(super) fn worker_over(&mut self, ctx: &mut Context, number: u64) {
        self.read_stderr(ctx.now, key(WORKER_STDERR, number));
        self.unread.remove(&key(WORKER_STDERR, number));
        let Some(mut worker) = self.workers.remove(&number) else { return };
        self.seats.give_back(worker.seat);
        // A worker leads a session of its own, of the same number.
        if let worker::Stage::Ended { group: Some(group), .. } = worker.stage
            && process::group_exists(group)
        {
            ctx.jobs.run(move || {
                process::kill_session(group);
                JobDone::Lender(Done(()))
            });
        }
        remove_directory(ctx, worker.directory.clone());

        let serial = worker.serial;
        ctx.actions.push(Action::WorkerGone { serial });
        let Some(lease) = self.leases.get_mut(&serial).filter(|lease| lease.worker == Some(number)) else {
            return;
        };
        lease.worker = None;
        let call = worker.ring.progress().running();
        let operation = worker.ring.progress().operation();
        let ending = Evidence {
            operation: operation.and_then(|operation| lease.operation_name(operation)),
            wait_status: worker.wait_status,
            system_out_of_memory: self.oom.has_struck(),
            ordered: worker.ordered,
            tail: &worker.tail,
        }
        .judge();
        let served_calls = call.is_some() || worker.ring.progress().finished() > 0;
        if let Some(why) = &lease.ending {
            if let (Some(served), Ring::Remote { end, .. }) = (&mut lease.served, &mut worker.ring) {
                served.lease_ends(ctx.now, Some(end), why);
                served.flush(ctx, serial);
            }
            return self.lease_over(ctx, serial);
        }
        match (&mut lease.served, &mut worker.ring) {
            (Some(served), Ring::Remote { end, .. }) => {
                served.worker_gone(ctx.now, end, ending.code, &ending.cause);
                served.flush(ctx, serial);
            }
            _ => {
                let (code, cause) = (ending.code, ending.cause.clone());
                ctx.actions.push(Action::WorkerEnded { serial, code, cause });
            }
        }
        self.replace(ctx, serial, served_calls || worker.ordered.is_some(), &ending.cause);
    }

    /// Gives a lease whose worker is gone another one, unless that is of no use.
    pub(super) fn replace(&mut self, ctx: &mut Context, serial: u64, worked: bool, cause: &str) {
        let now = ctx.now;
        let Some(lease) = self.leases.get_mut(&serial) else { return };
        if worked {
            lease.forgive();
        } else if lease.strike(now) {
            return self.give_up(
                ctx,
                serial,
                format!("its workers end again and again before any call; the last: {cause}"),
            );
        }
        self.staff(ctx, serial);
    }

    /// Reads the standard error of a template or a worker; what is left is read in the next turn.
    pub(super) fn read_stderr(&mut self, now: Tick, key: u64) {
        let number = key & ((1 << KIND_SHIFT) - 1);
        let (pipe, tail) = if key >> KIND_SHIFT == TEMPLATE_STDERR {
            let Some(template) = self.templates.get_mut(&number) else { return };
            let Some(running) = &template.running else { return };
            (running.stderr.as_fd(), &mut template.tail)
        } else {
            let Some(worker) = self.workers.get_mut(&number) else { return };
            (worker.stderr.as_fd(), &mut worker.tail)
        };
        let mut bytes = [0; 4096];
        let mut read = 0;
        while read < STDERR_A_TURN {
            match rustix::io::read(pipe, &mut bytes) {
                Ok(0) => return,
                Ok(count) => {
                    tail.push(&bytes[..count]);
                    read += count;
                }
                Err(rustix::io::Errno::INTR) => {}
                // Nothing more for now, or never again.
                Err(_) => return,
            }
        }
        self.unread.insert(key);
        self.unread_until.get_or_insert(now + STDERR_PAUSE);
    }
}
