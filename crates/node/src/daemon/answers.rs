//! This node's rows for questions, and orders carried out here.

use super::Daemon;
use crate::conn::ConnId;
use crate::sys;
use mutirao_tree::Input;
use mutirao_tree::pipe::{self, Spot};
use mutirao_wire::AppId;
use mutirao_wire::limits::TEXT_BYTES_MAX;
use mutirao_wire::local::EndGroup;
use mutirao_wire::node::{Arch, NodeRef, Resource};
use mutirao_wire::pipe::{GUEST_PIPES, PipePlace};
use mutirao_wire::query::{AppRow, NodeRow, Question, ResourceRow, Row, Topic};
use mutirao_wire::tree::AskId;

impl Daemon {
    pub(super) fn answer(&mut self, id: AskId, question: Question) {
        let rows = if self.is_meant(&question) { self.rows(&id, &question) } else { Vec::new() };
        if !self.answers_later(&id) {
            self.tell_core(Input::Answered { id, rows });
        }
        self.leave_if_removed();
    }

    fn is_meant(&self, question: &Question) -> bool {
        let me = &self.ctx.me;
        question
            .to
            .as_ref()
            .is_none_or(|to| *to == me.name || (to.len() >= 4 && me.id.to_string().starts_with(to.as_str())))
    }

    fn rows(&mut self, id: &AskId, question: &Question) -> Vec<Row> {
        match &question.topic {
            Topic::Nodes => vec![Row::Node(self.node_row())],
            Topic::Find { want, free } if self.core.could_serve(want, *free) => {
                vec![Row::Node(self.node_row())]
            }
            Topic::Find { .. } => Vec::new(),
            Topic::Apps => self.app_rows(),
            Topic::Workers { app } => self.worker_rows(*id, *app),
            Topic::Plugins => self.plugins.answer(&mut self.ctx, question),
            Topic::Approve { .. } | Topic::RemovePlugin { .. } => {
                match self.rights.check(question, id.origin, &[]) {
                    Ok(()) => self.plugins.answer(&mut self.ctx, question),
                    Err(text) => vec![self.failed(text)],
                }
            }
            Topic::Queue => self.core.queue_rows(),
            Topic::Explain { request } => self.core.explain_rows(request),
            Topic::Stderr { worker } => {
                self.one_worker(id, question, worker, |daemon, serial| daemon.lender.stderr(serial))
            }
            Topic::Move { .. } | Topic::Adopt { .. } | Topic::Remove { .. } => self.order(id, question),
            Topic::Kill { what } => self.kill(id, question, what),
            Topic::CharterVersions => vec![Row::Charter(self.charter_row())],
            // Those are answered where they are asked.
            Topic::CharterHistory | Topic::EditCharter { .. } | Topic::ChangeCharter(_) => Vec::new(),
            Topic::Drain { .. } | Topic::Reclaim { .. } | Topic::Resume => self.lending_order(id, question),
            Topic::Keep { keep, how } => vec![self.keep_bag(id, question, keep, *how)],
            Topic::Bags => self.bag_rows(id, question),
            Topic::Visit { bag, visit, home } => vec![self.visit_bag(id, question, *bag, *visit, home)],
            Topic::Resize { app, order } => self.resize_app(id, question, app, *order),
            Topic::Groups => self.groups.rows(self.ctx.now, &self.ctx.me.name),
            Topic::Processes { group } => self.groups.process_rows(*group),
            Topic::LastLines { group } => self.last_lines(id, question, *group),
            Topic::Attach { group, guest, node } => vec![self.attach(id, question, *group, *guest, node)],
        }
    }

    fn node_row(&self) -> NodeRow {
        let (_, slots_total) = self.core.slots();
        let lending = self.core.lending();
        let resource_row = |resource: &Resource| ResourceRow {
            name: resource.name.clone(),
            total: resource.amount,
            free: self.core.resource_free(&resource.name),
        };
        NodeRow {
            node: self.ctx.me.clone(),
            parent: self.core.parent().map(|parent| parent.name.clone()),
            slots_total,
            slots_free: lending.free,
            slots_reclaimed: lending.reclaimed,
            state: self.state(&lending),
            load_centi: sys::load_centi(),
            up_s: (self.ctx.now - self.started).as_secs(),
            arch: Arch::HERE,
            memory_mib: self.core.capacity().memory_mib,
            memory_free_mib: self.core.memory_free_mib(),
            resources: self.core.capacity().resources.iter().map(resource_row).collect(),
            labels: self.core.capacity().labels.clone(),
            confinement: self.lender.confinement(),
            version: env!("CARGO_PKG_VERSION").into(),
            resident_kib: sys::resident_kib(),
        }
    }

    fn app_rows(&self) -> Vec<Row> {
        let row = |(_, client): (ConnId, &crate::clients::Client)| {
            let (leases, slots) = client.holds();
            Row::App(AppRow {
                app: client.app,
                name: client.name.clone(),
                user: client.user.clone(),
                home: self.ctx.me.name.clone(),
                pid: client.pid,
                leases,
                slots,
                up_s: (self.ctx.now - client.since).as_secs(),
            })
        };
        self.clients.iter().map(row).collect()
    }

    fn kill(&mut self, id: &AskId, question: &Question, what: &str) -> Vec<Row> {
        if what.is_empty() || what.len() > TEXT_BYTES_MAX {
            return Vec::new();
        }
        if what.contains('/') {
            return self.one_worker(id, question, what, |daemon, serial| {
                daemon.kill_lease(serial, format!("ended by {}", question.user));
                format!("worker {serial} ended")
            });
        }
        match self.one_app(what) {
            Ok(None) => Vec::new(),
            Ok(Some(conn)) => vec![self.kill_app(id, question, conn)],
            Err(text) => vec![self.failed(text)],
        }
    }

    /// The application at home here whose id begins so; `Err` says that there are several.
    pub(super) fn one_app(&self, what: &str) -> Result<Option<ConnId>, String> {
        let named =
            |client: &crate::clients::Client| !what.is_empty() && client.app.to_string().starts_with(what);
        let apps: Vec<ConnId> =
            self.clients.iter().filter(|(_, client)| named(client)).map(|(conn, _)| conn).collect();
        match apps[..] {
            [] => Ok(None),
            [conn] => Ok(Some(conn)),
            _ => Err(format!("`{what}` names {} applications here; give more digits", apps.len())),
        }
    }

    /// Does `order` to the worker called `NODE/SERIAL`, if that is one of this node's and whoever asks may.
    fn one_worker(
        &mut self,
        id: &AskId,
        question: &Question,
        worker: &str,
        order: impl FnOnce(&mut Daemon, u64) -> String,
    ) -> Vec<Row> {
        let Some((node, serial)) = worker.rsplit_once('/') else { return Vec::new() };
        let Ok(serial) = serial.parse::<u64>() else { return Vec::new() };
        if node != self.ctx.me.name {
            return Vec::new();
        }
        let user = self.core.leases().find(|lease| lease.serial == serial).map(|lease| lease.user.clone());
        let Some(user) = user else {
            return vec![self.failed(format!("there is no worker {serial} here"))];
        };
        vec![match self.rights.check(question, id.origin, &[&user]) {
            Ok(()) => {
                let text = order(self, serial);
                self.done(text)
            }
            Err(text) => self.failed(text),
        }]
    }

    fn last_lines(&self, id: &AskId, question: &Question, group: AppId) -> Vec<Row> {
        let Some(user) = self.groups.user(group) else { return Vec::new() };
        match self.rights.check(question, id.origin, &[user]) {
            Ok(()) => self.groups.last_lines(group),
            Err(text) => vec![self.failed(text)],
        }
    }

    /// Joins a program to the launcher of a group, if its user launched that.
    fn attach(&mut self, id: &AskId, question: &Question, group: AppId, guest: AppId, node: &NodeRef) -> Row {
        let launcher = self.groups.user(group).and(self.clients.by_app(group));
        let Some((conn, client)) = launcher.and_then(|conn| Some((conn, self.clients.get(conn)?))) else {
            return self.failed("the group has ended".into());
        };
        let epoch = client.epoch;
        let users = self.users_of(conn);
        if let Err(text) = self.rights.check_users(question, id.origin, &users) {
            return self.failed(text);
        }
        let is_here = node.id == self.ctx.me.id;
        if node.id != id.origin || is_here && self.clients.by_app(guest).is_none() {
            return self.failed("whoever wants to be joined does not ask at its own node".into());
        }
        self.guest_pipes += 1;
        let number = GUEST_PIPES | self.guest_pipes;
        let a = Spot { node: self.ctx.me.clone(), place: PipePlace::Program };
        let b = Spot { node: node.clone(), place: PipePlace::Guest(guest) };
        self.tell_pipes(pipe::Input::Open { app: group, epoch, number, a, b });
        self.done("will join them".into())
    }

    fn kill_app(&mut self, id: &AskId, question: &Question, conn: ConnId) -> Row {
        let Some(client) = self.clients.get(conn) else { return self.failed("it is gone already".into()) };
        let name = client.name.clone();
        if let Err(text) = self.may_order_app(id, question, conn) {
            return self.failed(text);
        }
        let by = &question.user;
        if self.groups.ends(self.ctx.now, client.app, by) {
            crate::clients::put(&mut self.ctx, conn, EndGroup { by: by.clone() });
            return self.done(format!("application {name} was told to end"));
        }
        self.end_app(conn, by);
        self.done(format!("application {name} ended"))
    }

    /// Turns an application away, by somebody's order.
    fn end_app(&mut self, conn: ConnId, by: &str) {
        let why = format!("ended by {by}");
        crate::clients::refuse(&mut self.ctx, conn, why.clone());
        self.ctx.conns.flush(&self.ctx.registry);
        self.program_gone(conn, &why);
    }

    /// Groups whose launchers were told to end them and have not.
    pub(super) fn end_groups(&mut self) {
        for (app, by) in self.groups.overdue(self.ctx.now) {
            if let Some(conn) = self.clients.by_app(app) {
                self.end_app(conn, &by);
            }
        }
    }

    /// Whether whoever asks may give orders to an application at home here.
    pub(super) fn may_order_app(&self, id: &AskId, question: &Question, conn: ConnId) -> Result<(), String> {
        if self.clients.get(conn).is_none() {
            return Err("it is gone already".into());
        }
        let users = self.users_of(conn);
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        self.rights.check(question, id.origin, &users)
    }

    /// A program's own user, and the pool-wide one its token names.
    fn users_of(&self, conn: ConnId) -> Vec<String> {
        let Some(client) = self.clients.get(conn) else { return Vec::new() };
        let wide = self.user.as_ref().filter(|_| !client.token.is_empty());
        let wide = wide.map(|user| user.me().name.as_str().to_owned());
        [client.user.clone()].into_iter().chain(wide).collect()
    }

    pub(super) fn done(&self, text: String) -> Row {
        Row::Done { node: self.ctx.me.name.clone(), text }
    }

    pub(super) fn failed(&self, text: String) -> Row {
        Row::Failed { node: self.ctx.me.name.clone(), text }
    }
}
