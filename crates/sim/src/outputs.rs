//! What the nodes say.

use crate::event::Event;
use crate::world::World;
use core::time::Duration;
use mutirao_tree::{Input, Output};
use mutirao_wire::RequestId;
use mutirao_wire::local::LeaseChange;
use mutirao_wire::node::{Grant, Note};
use mutirao_wire::query::Row;

impl World {
    pub(crate) fn output(&mut self, index: usize, output: Output) {
        if self.options.keep_trace {
            self.trace.push(format!("{} n{index} {output:?}", self.now.0));
        }
        self.digest.word(self.now.0 ^ (index as u64) << 40);
        let life = self.nodes[index].me.incarnation;
        match output {
            Output::Send { to, message } => {
                let to = self.number(to);
                self.send(index, to, &message);
            }
            Output::Dial(node) => self.dial(index, node),
            Output::Found { request, grants, notes, .. } => self.found(index, request, grants, notes),
            Output::News { app, lease, change } => {
                let now = self.now;
                let Some(app) = self.nodes[index].apps.get_mut(&app) else {
                    panic!("n{index} has news of {lease:?} for an application that is gone");
                };
                app.news.push((now, lease, change.clone()));
                assert!(app.leases.contains_key(&lease), "news {change:?} of a lease not held: {lease:?}");
                if matches!(change, LeaseChange::Ended(_)) {
                    app.leases.remove(&lease);
                }
                let app = app.id;
                self.digest.word(lease.serial);
                self.program_news(index, app, lease, change);
            }
            Output::Approved { app, plugin } => {
                if let Some(app) = self.nodes[index].apps.get_mut(&app) {
                    app.approved.push(plugin);
                }
            }
            Output::Begin(record) => {
                self.digest.word(record.serial);
                let before = self.nodes[index].workers.insert(record.serial, record.bundle.slots);
                assert!(before.is_none(), "n{index} began lease {} twice", record.serial);
                if record.asker.plugin.is_some() && self.options.calls {
                    self.lease_begins(index, &record);
                }
            }
            Output::Finish { serial, .. } => {
                assert!(self.nodes[index].workers.contains_key(&serial), "n{index} ended {serial} unbegun");
                if self.nodes[index].streams.has_lent(serial) {
                    return self.lease_ends(index, serial);
                }
                let (least, most) = self.options.worker_end;
                let delay = self.random.between(least, most);
                self.at(delay, Event::Input(index as u32, life, Box::new(Input::Gone { serial })));
            }
            Output::Answer { id, .. } => {
                let text = "here".into();
                let rows = vec![Row::Done { node: self.nodes[index].me.name.clone(), text }];
                let answered = Input::Answered { id, rows };
                self.at(Duration::ZERO, Event::Input(index as u32, life, Box::new(answered)));
            }
            Output::Rows { number, rows, more, missing } => {
                if let Some((all, end)) = self.nodes[index].rows.get_mut(&number) {
                    assert!(end.is_none(), "rows after the last");
                    all.extend(rows);
                    *end = (!more).then_some(missing);
                }
            }
            Output::Awaits { user, .. } => self.nodes[index].awaits.push(user),
            Output::JoinRefused { by, refusal } => self.nodes[index].refusals.push((by.id, refusal)),
            Output::Left => self.nodes[index].left = true,
            Output::Idle(id) => {
                let to = self.number(id);
                self.idle(index, to);
            }
            Output::Charter { charter, .. } => self.charter_came(index, charter),
            Output::Joined(_) | Output::Root | Output::Full(_) => {}
        }
    }

    fn found(&mut self, index: usize, request: RequestId, grants: Vec<Grant>, notes: Vec<Note>) {
        let now = self.now;
        let Some(app) = self.nodes[index].apps.get_mut(&request.app) else {
            panic!("n{index} found something for an application that is gone");
        };
        self.digest.word(grants.len() as u64);
        let open = app.open.get_mut(&request).filter(|open| **open > 0);
        let open =
            open.unwrap_or_else(|| panic!("n{index} answered {request:?} more often than it was asked"));
        *open -= 1;
        if let Some((_, before, _)) = app.found.get(&request) {
            assert!(grants.iter().all(|grant| before.contains(grant)), "{request:?} got another answer");
        } else {
            for grant in &grants {
                let lease = grant.lease();
                app.leases.insert(lease, grant.lender.clone());
                if self.options.check {
                    let other = self.given.insert(lease, request.app);
                    assert!(other.is_none(), "{lease:?} was given twice");
                }
            }
        }
        let new = if app.found.contains_key(&request) { Vec::new() } else { grants.clone() };
        app.found.insert(request, (now, grants, notes));
        self.program_found(index, request.app, &new);
    }
}
