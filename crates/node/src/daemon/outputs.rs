//! Between the core and the rest: what it says is done here.

use super::Daemon;
use super::administration::refusal_text;
use crate::charter;
use crate::clients::{self, Outcome};
use crate::context::Assignment;
use crate::streams::NewStream;
use mutirao_tree::{LeaseRecord, NodeMessage, Output, Policy};
use mutirao_wire::lease::LeaseEnd;
use mutirao_wire::limits::TEXT_BYTES_MAX;
use mutirao_wire::local::{LeaseChange, Rows};
use mutirao_wire::node::{Arch, Grant, Note};
use mutirao_wire::stream::Bind;
use mutirao_wire::tree::Refusal;
use mutirao_wire::{AppId, Handle, LeaseId, NodeId, RequestId};

impl Daemon {
    pub(super) fn act(&mut self, output: Output) {
        match output {
            Output::Send { to, message } => {
                match message {
                    NodeMessage::Tree(message) => self.ctx.send_control(to, message),
                    NodeMessage::Lease(message) => self.ctx.send_control(to, message),
                };
            }
            Output::Dial(node) => match &mut self.links {
                Some(links) => links.dial(&mut self.ctx, &node),
                None => self.tell_core(mutirao_tree::Input::DialFailed(node.id)),
            },
            Output::Idle(node) => {
                if let Some(links) = &mut self.links {
                    links.idle(self.ctx.now, node);
                }
            }
            Output::Found { request, grants, notes, found, free_hint, waited } => {
                self.found(request, grants, notes, Outcome { found, free_hint, waited });
            }
            Output::News { app: _, lease, change } => self.news(lease, change),
            Output::Approved { app, plugin: _ } => self.approved(app),
            Output::Begin(record) => self.lease_begins(record),
            // Its stream stays until the worker is gone: what had been finished still goes home.
            Output::Finish { serial, end } => self.lender.finish(&mut self.ctx, serial, &end),
            Output::Answer { id, question } => self.answer(id, question),
            Output::Rows { number, rows, more, missing } => {
                if self.parent_found(number, &rows, more) || self.sought_found(number, &rows, more) {
                    return;
                }
                if let Some((conn, number)) = self.clients.asker(number, !more) {
                    clients::put(&mut self.ctx, conn, Rows { number, rows, more, missing });
                }
            }
            Output::Awaits { mut asker, user } => {
                asker.local_user = user; // the name the policy knows is the one to list
                self.plugins.awaits(&mut self.ctx, &asker);
            }
            Output::Joined(parent) => {
                tracing::info!(parent = parent.name, "joined");
                self.moved(&parent);
                self.joining.joined(Some(parent.name));
                self.placed();
                self.say_ready(false);
            }
            Output::Root => {
                tracing::info!("this node has no parent");
                self.joining.alone(self.ctx.now);
                self.placed();
            }
            Output::JoinRefused { by, refusal } => {
                if refusal == Refusal::Cycle && !self.joining.is_below(&by) {
                    tracing::info!(by = by.name, "whom this node was to join is below it");
                } else {
                    tracing::warn!(by = by.name, "this node may not join there: {}", refusal_text(refusal));
                }
                self.move_refused(&by, refusal);
                // They are one tree, of which this is the root.
                if refusal == Refusal::Cycle && self.core.parent().is_none() {
                    self.say_ready(false);
                }
            }
            Output::Charter { from, charter } => self.charter_came(from, charter),
            Output::Left => self.left = true,
            Output::Full(table) => {
                tracing::warn!("a table is full ({table:?}); what did not fit was refused");
            }
        }
    }

    fn found(&mut self, request: RequestId, grants: Vec<Grant>, notes: Vec<Note>, outcome: Outcome) {
        let asked = self
            .clients
            .by_app(request.app)
            .and_then(|conn| Some((conn, self.clients.found(conn, request.sequence, &grants)?)));
        let Some((conn, (allocate, handles))) = asked else {
            let leases = grants.iter().map(Grant::lease).collect();
            return self.tell_core(mutirao_tree::Input::GiveBack { app: request.app, leases });
        };
        let Some(client) = self.clients.get(conn) else { return };
        let (epoch, plugin, rings) = (client.epoch, client.plugin(), client.rings);
        let built_for = plugin.filter(|_| allocate.workers).map(|plugin| plugin.arch);
        let arch = allocate.want.arch.or(built_for).unwrap_or(Arch::Other);
        let granted: Vec<(Handle, Grant)> = handles.into_iter().zip(grants).collect();
        let given = clients::Given { leases: &granted, arch, rings };
        clients::put_allocated(&mut self.ctx, conn, &allocate, &given, notes, outcome);
        for (handle, grant) in granted {
            if !allocate.workers || (rings && grant.lender.id == self.ctx.me.id) {
                continue;
            }
            let lease = grant.lease();
            let lender = grant.lender;
            let new = NewStream { client: conn, handle, app: request.app, epoch, lender, lease, held: false };
            self.streams.open(&mut self.ctx, new);
        }
    }

    pub(super) fn news(&mut self, lease: LeaseId, change: LeaseChange) {
        let Some((conn, handle)) = self.clients.holder(lease) else { return };
        if self.streams.has(lease) {
            if change == LeaseChange::Restored
                && let Some(serial) = self.bind_here(lease)
                && let Some(record) = self.core.leases().find(|record| record.serial == serial)
            {
                self.plugins.home_moved(&mut self.ctx, record.asker.app, lease.lender);
            }
            self.streams.news(&mut self.ctx, lease, change, self.leaving.is_some());
        } else {
            let ended = matches!(change, LeaseChange::Ended(_));
            let local = lease.lender == self.ctx.me.id;
            let mut fds = Vec::new();
            if local && change == LeaseChange::Ready {
                let Some(descriptors) = self.lender.local_descriptors(lease.serial) else { return };
                fds = descriptors;
            }
            clients::put_news(&mut self.ctx, conn, handle, change, fds);
            if ended {
                self.clients.drop_lease(conn, handle);
                self.lease_over(conn, lease);
            }
        }
    }

    pub(super) fn local_worker_ended(&mut self, serial: u64, code: u32, cause: String) {
        let me = &self.ctx.me;
        let lease = LeaseId { lender: me.id, incarnation: me.incarnation, serial };
        self.news(lease, LeaseChange::WorkerEnded { code, cause });
    }

    fn approved(&mut self, app: AppId) {
        if let Some(conn) = self.clients.by_app(app) {
            clients::put_news(&mut self.ctx, conn, Handle(0), LeaseChange::Approved, Vec::new());
        }
    }

    /// What the worker of a lease of this very node says goes to the program's connection; its serial, if that is so
    /// from now on.
    fn bind_here(&mut self, lease: LeaseId) -> Option<u64> {
        let serial = self.streams.bind_here(&mut self.ctx, lease)?;
        self.lender.bound(&mut self.ctx, serial);
        Some(serial)
    }

    fn lease_begins(&mut self, record: LeaseRecord) {
        let serial = record.serial;
        let at_home = record.asker.home.id == self.ctx.me.id;
        let client = self.clients.by_app(record.asker.app).and_then(|conn| self.clients.get(conn));
        // Whoever claims to be at home here gets nothing by it: only what that program itself has offered runs
        // unconfined, and only that program can call it.
        let its_own =
            client.is_some_and(|client| client.as_user && client.plugin() == record.asker.plugin.as_ref());
        let as_user = at_home && its_own;
        // What shares memory with a program ends with it.
        let local = at_home && record.homes.is_empty();
        let assignment = Assignment {
            serial,
            app: record.asker.app,
            app_name: record.asker.app_name.clone(),
            user: record.user,
            slots: record.bundle.slots,
            bundle: record.bundle,
            instances: record.instances,
            plugin: record.asker.plugin.clone(),
            local,
            as_user,
            home: record.asker.home.clone(),
        };
        self.lender.begin(&mut self.ctx, &mut self.plugins, assignment);
        if at_home && !local {
            let me = &self.ctx.me;
            self.bind_here(LeaseId { lender: me.id, incarnation: me.incarnation, serial });
        }
        for (conn, peer, bind) in self.streams.take_early(serial) {
            self.bind(conn, peer, bind);
        }
    }

    /// A home binds a lease lent here.
    pub(super) fn bind(&mut self, conn: crate::conn::ConnId, peer: NodeId, bind: Bind) {
        let lease = self.core.leases().find(|record| record.serial == bind.serial);
        let is_its = lease.map(|record| {
            record.home().id == peer && record.asker.app == bind.app && bind.epoch >= record.epoch
        });
        let app = bind.app;
        if let Some(serial) = self.streams.bind_lent(&mut self.ctx, conn, peer, bind, is_its) {
            self.lender.bound(&mut self.ctx, serial);
            self.plugins.home_moved(&mut self.ctx, app, peer);
        }
    }

    /// To whom this node lends.
    pub(super) fn policy(&self) -> Policy {
        let config = &self.ctx.config;
        let (approved, denied) = self.plugins.decisions();
        let rules = self.rules.charter();
        Policy {
            accept: config.accept.into(),
            owner: self.rights.owner.clone(),
            local_user: self.rights.local_user.clone(),
            users: config.users.clone(),
            approved: approved.into_iter().collect(),
            denied: denied.into_iter().collect(),
            held: self.lender.held(),
            deny: charter::deny(&rules),
            admission: charter::admission(&rules, crate::sys::unix_ms() / 1000),
            own_first: config.lend.own_first.then(|| config.lend.grace()),
            keep_max_s: config.lend.keep_max_s,
        }
    }

    /// Ends a lease lent here by order.
    pub(super) fn kill_lease(&mut self, serial: u64, why: String) {
        let why = crate::sys::shortened(why, TEXT_BYTES_MAX);
        self.tell_core(mutirao_tree::Input::End { serial, end: LeaseEnd::Killed(why) });
    }
}
