//! Programs, and what they ask of their nodes.

use crate::app::App;
use crate::world::World;
use core::time::Duration;
use mutirao_tree::Input;
use mutirao_wire::node::{Asker, Grant, PluginRef, Want};
use mutirao_wire::query::{Question, Topic};
use mutirao_wire::wait::Wait;
use mutirao_wire::{AppId, LeaseId, PluginId, RequestId};

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
