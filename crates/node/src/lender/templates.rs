//! Templates: started, asked, rested, ended, and replaced when they are lost.

use super::ending::Evidence;
use super::starter::Started;
use super::tail::Tail;
use super::template::{ChannelError, Key, Running, Stage, Template};
use super::{
    BOTH, Done, IDLE_MAX, Lender, READ, TEMPLATE_CHANNEL, TEMPLATE_PROCESS, TEMPLATE_STDERR, key, process,
    remove_directory, worker,
};
use crate::context::{Context, Done as JobDone, Owner, Readiness};
use crate::options::WorkerConfig;
use crate::plugins::Program;
use mutirao_confine::Plan;
use mutirao_wire::worker::WorkerMessage;
use mutirao_wire::{AppId, Tick};
use std::io;
use std::os::fd::AsFd;

impl Lender {
    pub(super) fn templates_that(&self, are: impl Fn(&Template) -> bool) -> Vec<u64> {
        self.templates.iter().filter(|(_, template)| are(template)).map(|(number, _)| *number).collect()
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn start_template(
        &mut self,
        limits: &WorkerConfig,
        key: Key,
        program: Program,
    ) -> io::Result<u64> {
        let number = self.number();
        let directory = self.directory.join(number.to_string());
        let mut plan = Plan::new(program.executable(), &program.directory, &directory);
        if program.manifest.files.len() > 1 {
            plan.library_dirs.push(program.directory.clone());
        }
        plan.minimum = self.minimum;
        // Each worker gets a process group of its own.
        plan.lock_group = false;
        plan.network = limits.network;
        let memory_mib = Some(key.memory_mib).filter(|memory_mib| *memory_mib > 0).or(limits.memory_mib);
        plan.limits.memory_bytes = memory_mib.map(|memory_mib| u64::from(memory_mib) << 20);
        plan.limits.open_files = limits.files.or(plan.limits.open_files);
        plan.limits.processes = limits.processes.or(plan.limits.processes);
        plan.writable = self.shared.clone();
        if key.as_user {
            plan.confined = false;
            // Those that protect an owner from others are not for the owner's own commands.
            plan.limits.file_bytes = None;
            plan.limits.open_files = limits.files;
            plan.limits.processes = limits.processes;
        }
        self.starter.start(number, plan)?;
        let template = Template {
            key,
            program,
            directory,
            stage: Stage::Starting,
            tail: Tail::default(),
            idle_since: None,
            running: None,
        };
        self.templates.insert(number, template);
        self.by_key.insert(key, number);
        Ok(number)
    }

    pub(super) fn started(&mut self, ctx: &mut Context, number: u64, result: io::Result<Started>) {
        let Some(template) = self.templates.get_mut(&number) else { return };
        let running = match result {
            Ok(started) => template.running.insert(Running::from(started)),
            Err(error) => {
                let why = format!("`{}` cannot be started: {error}", template.program.manifest.name);
                return self.template_gone(ctx, number, Some(why));
            }
        };
        let watched = ctx
            .watch(running.channel().as_fd(), Owner::Lender, key(TEMPLATE_CHANNEL, number), BOTH)
            .and_then(|()| {
                ctx.watch(running.stderr.as_fd(), Owner::Lender, key(TEMPLATE_STDERR, number), READ)
            })
            .and_then(|()| {
                ctx.watch(running.process.as_fd(), Owner::Lender, key(TEMPLATE_PROCESS, number), READ)
            });
        if template.stage == Stage::Starting {
            template.stage = Stage::Silent(ctx.now);
        } else {
            running.process.kill();
        }
        if let Err(error) = watched {
            self.template_failed(ctx, number, &format!("cannot be watched ({error})"));
        }
    }

    pub(super) fn template_speaks(&mut self, ctx: &mut Context, number: u64, readiness: Readiness) {
        let Some(running) = self.templates.get_mut(&number).and_then(|template| template.running.as_mut())
        else {
            return;
        };
        let mut messages = Vec::new();
        let mut result = if readiness.readable { running.receive(&mut messages) } else { Ok(()) };
        if result.is_ok() && readiness.writable {
            result = running.flush();
        }
        for message in messages {
            self.template_says(ctx, number, message);
        }
        match result {
            // Its end follows, with the reason.
            Ok(()) | Err(ChannelError::Closed | ChannelError::System(_)) => {}
            Err(error) => {
                tracing::warn!("a template is ended: {error}");
                self.end_template(number);
            }
        }
    }

    pub(super) fn template_says(&mut self, ctx: &mut Context, number: u64, message: WorkerMessage) {
        let Some(template) = self.templates.get_mut(&number) else { return };
        match (template.stage, message) {
            (Stage::Silent(_), WorkerMessage::WorkerHello(hello)) => match template.check(&hello) {
                Ok(()) => {
                    template.stage = Stage::Up;
                    let key = template.key;
                    let waiting: Vec<u64> = self
                        .leases
                        .iter()
                        .filter(|(_, lease)| lease.key() == Some(key))
                        .map(|(s, _)| *s)
                        .collect();
                    for serial in &waiting {
                        self.staff(ctx, *serial);
                    }
                    if waiting.is_empty() {
                        self.rest(ctx.now, key);
                    }
                }
                Err(why) => self.refuse_template(ctx, number, &why),
            },
            (Stage::Up, WorkerMessage::Forked(forked)) => self.forked(ctx, number, forked),
            (Stage::Up | Stage::Ending, WorkerMessage::Exited(exited)) => self.exited(ctx, number, exited),
            (Stage::Ending, _) => {}
            (_, other) => {
                tracing::warn!("a template says {:?} out of turn and is ended", other.kind());
                self.end_template(number);
            }
        }
    }

    /// Nobody needs the templates of this key now. Too many that nobody needs: the longest idle goes.
    pub(super) fn rest(&mut self, now: Tick, key: Key) {
        let Some(template) = self.by_key.get(&key).and_then(|number| self.templates.get_mut(number)) else {
            return;
        };
        template.idle_since = Some(now);
        let idle =
            self.templates_that(|template| template.idle_since.is_some() && template.stage != Stage::Ending);
        if idle.len() > IDLE_MAX
            && let Some(oldest) = idle.into_iter().min_by_key(|number| self.templates[number].idle_since)
        {
            self.end_template(oldest);
        }
    }

    pub(super) fn end_templates_of(&mut self, app: AppId) {
        for template in self.templates_that(|template| template.key.app == app) {
            self.end_template(template);
        }
    }

    /// A template did not become one: tells every lease that waits for it.
    pub(super) fn template_failed(&mut self, ctx: &mut Context, number: u64, how: &str) {
        if let Some(template) = self.templates.get(&number) {
            let why = template.silent_end(how);
            self.refuse_template(ctx, number, &why);
        }
    }

    pub(super) fn refuse_template(&mut self, ctx: &mut Context, number: u64, why: &str) {
        let Some(key) = self.templates.get(&number).map(|template| template.key) else { return };
        let concerned: Vec<u64> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.key() == Some(key))
            .map(|(serial, _)| *serial)
            .collect();
        for serial in concerned {
            self.give_up(ctx, serial, why.to_owned());
        }
        self.end_template(number);
    }

    /// Ends a template; what follows comes with the end of its process.
    pub(super) fn end_template(&mut self, number: u64) {
        let Some(template) = self.templates.get_mut(&number) else { return };
        template.stage = Stage::Ending;
        if self.by_key.get(&template.key) == Some(&number) {
            self.by_key.remove(&template.key);
        }
        if let Some(running) = &template.running {
            running.process.kill();
        }
    }

    /// The process of a template has ended.
    pub(super) fn template_over(&mut self, ctx: &mut Context, number: u64) {
        // What it said and wrote last is still to be read.
        self.template_speaks(ctx, number, Readiness { readable: true, writable: false, closed: true });
        self.read_stderr(ctx.now, key(TEMPLATE_STDERR, number));
        self.unread.remove(&key(TEMPLATE_STDERR, number));
        let Some(template) = self.templates.get_mut(&number) else { return };
        let status = template.running.as_mut().and_then(Running::wait);
        let session = template.running.as_ref().map(|running| running.process.pid());
        let was_silent = matches!(template.stage, Stage::Silent(_));
        let evidence = Evidence {
            operation: None,
            wait_status: status,
            system_out_of_memory: false,
            ordered: None,
            tail: &Tail::default(),
        };
        let how = evidence.judge().cause;
        let how = how.strip_prefix("worker ").unwrap_or(&how);
        let why = was_silent.then(|| template.silent_end(how));
        if template.stage == Stage::Up {
            tracing::warn!("the template of `{}` {how}", template.program.manifest.name);
        }
        if let Some(session) = session {
            ctx.jobs.run(move || {
                process::kill_session(session);
                JobDone::Lender(Done(()))
            });
        }
        self.template_gone(ctx, number, why);
    }

    /// A template is no more. Its leases get another one, or, with a reason, are given up.
    pub(super) fn template_gone(&mut self, ctx: &mut Context, number: u64, why: Option<String>) {
        self.end_template(number);
        let Some(template) = self.templates.remove(&number) else { return };
        let its = self.workers.iter().filter(|(_, worker)| worker.template == number);
        for worker in its.map(|(number, _)| *number).collect::<Vec<_>>() {
            match self.workers.get(&worker).map(|worker| &worker.stage) {
                // Its own end follows.
                Some(worker::Stage::Running(process)) => process.kill(),
                _ => self.worker_over(ctx, worker),
            }
        }
        remove_directory(ctx, template.directory);
        let concerned: Vec<u64> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.key() == Some(template.key) && lease.lacks_worker())
            .map(|(serial, _)| *serial)
            .collect();
        for serial in concerned {
            match &why {
                Some(why) => self.give_up(ctx, serial, why.clone()),
                None => self.replace(ctx, serial, false, "its template ended"),
            }
        }
    }
}
