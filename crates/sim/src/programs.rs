//! Programs, and what they ask of their nodes.

use crate::app::App;
use crate::world::World;
use core::time::Duration;
use mutirao_tree::Input;
use mutirao_wire::node::{Asker, Grant, PluginRef, Want};
use mutirao_wire::query::{Question, Topic};
use mutirao_wire::wait::Wait;
use mutirao_wire::{AppId, Epoch, LeaseId, NodeId, PluginId, RequestId};

/// Epochs that one program of an application with several homes may use up: one more with each loss of its node.
const LIFE: u32 = 8;

impl World {
    /// Adds a program to a node.
    pub fn open(&mut self, index: usize) -> AppId {
        let id = AppId(u128::from(self.random.draw()) << 64 | u128::from(self.random.draw()));
        self.nodes[index].apps.insert(id, App::new(id));
        id
    }

    /// The program ends.
    pub fn close(&mut self, index: usize, app: AppId) {
        self.note(|| format!("close {app:?} on n{index}"));
        self.program_gone(index, app);
        self.input(index, Input::AppGone(app));
    }

    /// Adds a program to the first of these nodes, of an application that may go on at each of them.
    pub fn open_with_homes(&mut self, homes: &[usize]) -> AppId {
        let id = self.open(homes[0]);
        let homes: Vec<NodeId> = homes.iter().map(|index| self.nodes[*index].me.id).collect();
        let index = self.number(homes[0]);
        if let Some(app) = self.nodes[index].apps.get_mut(&id) {
            (app.epoch, app.homes) = (Epoch(LIFE), homes);
        }
        self.say_held(index, id);
        id
    }

    /// Another program goes on as an application, with what that holds elsewhere, as far as the first knows. What
    /// becomes of the first is its own affair.
    pub fn go_on(&mut self, from: usize, to: usize, app: AppId) {
        if let Some(next) = self.successor(from, to, app) {
            self.succeed(to, next);
        }
    }

    /// The program that would go on.
    pub(crate) fn successor(&self, from: usize, to: usize, app: AppId) -> Option<App> {
        let (first, last) = (self.nodes[from].me.id, self.nodes[to].me.id);
        let before = self.nodes[from].apps.get(&app)?;
        let own = |lease: &LeaseId| lease.lender == first || (lease.lender == last && from == to);
        let elsewhere = before.leases.iter().filter(|(lease, _)| !own(lease));
        let epochs = self.nodes.iter().filter_map(|node| Some(node.apps.get(&app)?.epoch.0));
        let mut next = App::new(app);
        next.leases = elsewhere.map(|(lease, lender)| (*lease, lender.clone())).collect();
        next.epoch = Epoch((epochs.max()? / LIFE + 1) * LIFE);
        next.homes.clone_from(&before.homes);
        Some(next)
    }

    pub(crate) fn succeed(&mut self, to: usize, next: App) {
        let app = next.id;
        self.note(|| format!("{app:?} goes on on n{to}"));
        if self.nodes[to].apps.contains_key(&app) {
            self.close(to, app);
        }
        self.nodes[to].apps.insert(app, next);
        self.say_held(to, app);
    }

    /// The program tells its node what it holds.
    fn say_held(&mut self, index: usize, app: AppId) {
        let known = &self.nodes[index].apps[&app];
        let leases = known.leases.iter().map(|(lease, lender)| (lease.serial, lender.clone())).collect();
        let (epoch, homes) = (known.epoch, known.homes.clone());
        self.input(index, Input::Held { app, epoch, homes, rings: true, plugin: None, leases });
    }

    /// Who asks, for a program on a node.
    pub fn asker(&self, index: usize, app: AppId, plugin: Option<PluginRef>) -> Asker {
        let home = self.nodes[index].me.clone();
        let local_user = format!("user@{}", home.name);
        Asker { app, app_name: "app".into(), local_user, token: Vec::new(), home, plugin }
    }

    /// The program asks for slots.
    pub fn request(
        &mut self,
        index: usize,
        asker: Asker,
        sequence: u32,
        want: Want,
        at_least: u32,
    ) -> RequestId {
        self.request_waiting(index, asker, sequence, want, at_least, None)
    }

    /// The program asks for slots, and waits for them if `wait` says how.
    pub fn request_waiting(
        &mut self,
        index: usize,
        asker: Asker,
        sequence: u32,
        want: Want,
        at_least: u32,
        wait: Option<Wait>,
    ) -> RequestId {
        let request = RequestId { app: asker.app, sequence, attempt: 0 };
        let budget = Duration::from_secs(2);
        let wait = wait.map(|wait| (wait, self.now.0 / 1000));
        self.input(index, Input::Request { request, want, at_least, asker, budget, wait });
        request
    }

    /// The program asks for `count` single slots and waits for the answer, at most three seconds.
    pub fn allocate(&mut self, index: usize, app: AppId, sequence: u32, count: u32) -> Vec<Grant> {
        let asker = self.asker(index, app, None);
        let request = self.request(index, asker, sequence, Want { count, ..want() }, 0);
        self.answer(index, request)
    }

    /// Waits for the answer to a request, at most three seconds.
    pub fn answer(&mut self, index: usize, request: RequestId) -> Vec<Grant> {
        self.run_until(Duration::from_secs(3), |world| {
            world.nodes[index].apps.get(&request.app).is_none_or(|app| app.found.contains_key(&request))
        });
        let app = self.nodes[index].apps.get(&request.app);
        app.and_then(|app| app.found.get(&request)).map(|found| found.1.clone()).unwrap_or_default()
    }

    /// The program gives leases back.
    pub fn give_back(&mut self, index: usize, app: AppId, leases: Vec<LeaseId>) {
        if self.nodes[index].apps.get(&app).is_some_and(App::has_calls) {
            return self.program_gives_back(index, app, &leases);
        }
        if let Some(app) = self.nodes[index].apps.get_mut(&app) {
            for lease in &leases {
                app.leases.remove(lease);
            }
        }
        self.input(index, Input::GiveBack { app, leases });
    }

    /// A user of the node asks every node for its row; the number of the question is returned.
    pub fn ask(&mut self, index: usize, budget: Duration) -> u64 {
        self.questions += 1;
        let number = self.questions;
        self.nodes[index].rows.insert(number, (Vec::new(), None));
        let question = Question { to: None, user: "user".into(), order: Vec::new(), topic: Topic::Nodes };
        self.input(index, Input::Ask { number, question, budget });
        number
    }
}

/// One single slot, as near as there is one.
pub fn want() -> Want {
    Want::default()
}

/// A plugin without needs, told apart by a number.
pub fn plugin(number: u8) -> PluginRef {
    PluginRef {
        id: PluginId([number; 32]),
        name: format!("plugin{number}"),
        bytes: 1000,
        arch: mutirao_wire::node::Arch::X86_64,
        libc: None,
    }
}
