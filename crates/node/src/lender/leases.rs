//! Leases and their calls: what is moved between a lease and its worker, and how a lease ends.

use super::Lender;
use super::lease::Lease;
use super::template::Stage;
use super::worker::{self, Ring, Worker};
use crate::context::{Action, Context};
use crate::plugins::Program;
use mutirao_schedule::serve::Output as Order;
use mutirao_wire::lease::{LeaseEnd, WorkerState};
use mutirao_wire::limits::TEXT_BYTES_MAX;
use mutirao_wire::stream::failure;

impl Lender {
    /// The plugin of a lease is here: gives it a worker.
    pub(super) fn provide(&mut self, ctx: &mut Context, serial: u64, program: Option<Program>) {
        let Some(program) = program else {
            return self.give_up(ctx, serial, "its plugin was removed from this node's cache".into());
        };
        if let Some(lease) = self.leases.get_mut(&serial) {
            lease.program = Some(program);
        }
        self.staff(ctx, serial);
    }

    /// Forks a worker for a lease that lacks one, or starts the template that will.
    pub(super) fn staff(&mut self, ctx: &mut Context, serial: u64) {
        let Some(lease) = self.leases.get(&serial).filter(|lease| lease.lacks_worker()) else { return };
        let (Some(key), Some(program)) = (lease.key(), lease.program.clone()) else { return };
        let known = self.by_key.get(&key).copied();
        let template = match known {
            Some(template) => template,
            None => match self.start_template(&ctx.config.worker, key, program) {
                Ok(template) => template,
                Err(error) => {
                    return self.give_up(ctx, serial, format!("no process can be started: {error}"));
                }
            },
        };
        let Some(found) = self.templates.get_mut(&template) else { return };
        found.idle_since = None;
        if found.stage == Stage::Up {
            self.fork(ctx, serial, template);
        } else {
            ctx.actions.push(Action::Worker { serial, state: WorkerState::Starting });
        }
    }

    /// Moves what can be moved between the stream of a lease and its worker.
    pub(super) fn pump(&mut self, ctx: &mut Context, serial: u64) {
        let Some(lease) = self.leases.get_mut(&serial) else { return };
        let Some(served) = lease.served.as_mut() else { return };
        let worker = lease.worker.and_then(|worker| self.workers.get_mut(&worker));
        let fault = match worker {
            Some(Worker { ring: Ring::Remote { end, .. }, stage: worker::Stage::Running(_), .. }) => {
                match served.pump(ctx, serial, end) {
                    Ok(true) => {
                        self.dirty.insert(serial);
                        None
                    }
                    Ok(false) => None,
                    Err(fault) => Some(fault),
                }
            }
            _ => None,
        };
        served.flush(ctx, serial);
        let orders = served.take_orders();
        if let (Some(fault), Some(number)) = (fault, lease.worker) {
            if let Some(worker) = self.workers.get_mut(&number) {
                worker.tail.push(format!("\nits node: {fault}\n").as_bytes());
            }
            self.order_end(number, failure::WORKER_ENDED);
        }
        for order in orders {
            self.obey(ctx, serial, order);
        }
    }

    pub(super) fn obey(&mut self, ctx: &mut Context, serial: u64, order: Order) {
        match order {
            Order::KillWorker { call, code } => {
                let Some(number) = self.leases.get(&serial).and_then(|lease| lease.worker) else { return };
                let Some(worker) = self.workers.get(&number) else { return };
                let running = worker.ring.progress().running();
                if call.is_none_or(|call| running == Some(call.0)) {
                    self.order_end(number, code);
                }
            }
            Order::Violation(violation) => {
                let end = LeaseEnd::Killed(format!("its home broke the protocol: {violation}"));
                ctx.actions.push(Action::End { serial, end });
            }
        }
    }

    pub(super) fn calls_in_time(&mut self, ctx: &mut Context) {
        let now = ctx.now;
        let due = |lease: &Lease| {
            lease.served.as_ref().and_then(|served| served.deadline()).is_some_and(|deadline| deadline <= now)
        };
        let due: Vec<u64> =
            self.leases.iter().filter(|(_, lease)| due(lease)).map(|(serial, _)| *serial).collect();
        for serial in due {
            // What the worker has answered by now counts.
            self.pump(ctx, serial);
            if let Some(served) = self.leases.get_mut(&serial).and_then(|lease| lease.served.as_mut()) {
                served.time(now);
            }
            self.pump(ctx, serial);
        }
    }

    /// Nothing serves the lease any more, and nothing will.
    pub(super) fn lease_over(&mut self, ctx: &mut Context, serial: u64) {
        let Some(mut lease) = self.leases.remove(&serial) else { return };
        if let Some(served) = &mut lease.served {
            served.lease_ends(ctx.now, None, lease.ending.as_deref().unwrap_or("the lease ended"));
            served.flush(ctx, serial);
        }
        self.dirty.remove(&serial);
        self.released.extend(lease.given.plugin.as_ref().map(|plugin| plugin.id));
        let app = lease.given.app;
        if !self.leases.values().any(|other| other.given.app == app) {
            self.bells.remove(&app);
            if self.gone.remove(&app) {
                self.end_templates_of(app);
            }
        }
        if let Some(key) = lease.key()
            && !self.leases.values().any(|other| other.key() == Some(key))
        {
            self.rest(ctx.now, key);
        }
        ctx.actions.push(Action::Gone { serial });
    }

    /// Ends a lease that cannot be served.
    pub(super) fn give_up(&mut self, ctx: &mut Context, serial: u64, why: String) {
        let Some(lease) = self.leases.get_mut(&serial).filter(|lease| !lease.given_up) else { return };
        lease.given_up = true;
        // It has to fit into a frame on a control connection.
        let why = crate::sys::shortened(why, TEXT_BYTES_MAX);
        ctx.actions.push(Action::End { serial, end: LeaseEnd::CannotRun(why) });
    }
}
