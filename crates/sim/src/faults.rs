//! What goes wrong: nodes die, return and stall, links are cut.

use crate::event::Event;
use crate::programs::plugin;
use crate::world::World;
use core::time::Duration;
use mutirao_tree::Input;
use mutirao_wire::Incarnation;
use mutirao_wire::limits::{BEAT, SILENCE};

impl World {
    /// The node dies, its workers with it; its programs are told nothing. The others notice at once
    /// (its machine still answers) or, `silently`, by its silence.
    pub fn crash(&mut self, index: usize, silently: bool) {
        self.note(|| format!("crash n{index}"));
        let node = &mut self.nodes[index];
        node.core = None;
        node.workers.clear();
        node.inbox.clear();
        self.streams_lost(index, silently);
        let node = &mut self.nodes[index];
        node.me.incarnation = Incarnation(node.me.incarnation.0 + 1);
        for (to, link) in self.net.links_of(index) {
            self.net.forget(index, to, link);
            self.net.kill(index, to, link);
            if !self.options.beats {
                let delay = if silently { self.silence() } else { self.latency(index, to) };
                self.at(delay, Event::Closed { link, at: to as u32, to: index as u32 });
            }
        }
        self.net.dials.retain(|(from, _)| *from != index as u32);
        for (link, other) in self.drop_ends_of(index) {
            if !silently {
                self.hang_up(link, index, other);
            }
        }
    }

    /// What a machine that is up again answers on connections of an earlier life.
    pub(crate) fn reset_old_connections(&mut self, index: usize) {
        for (link, other) in self.open_to(index) {
            let delay = self.random.between(Duration::ZERO, BEAT);
            self.at(delay, Event::Closed { link, at: other as u32, to: index as u32 });
        }
    }

    pub(crate) fn start_again(&mut self, index: usize) {
        if self.nodes[index].core.is_some() {
            return;
        }
        self.note(|| format!("start n{index}"));
        self.reset_old_connections(index);
        self.start(index);
        if self.nodes[index].returning {
            self.return_programs(index);
        }
    }

    /// The programs at home on a node that was restarted come back to it and name what they held.
    pub fn return_programs(&mut self, index: usize) {
        let ids: Vec<_> = self.nodes[index].apps.keys().copied().collect();
        for id in ids {
            let Some(app) = self.nodes[index].apps.get_mut(&id) else { continue };
            app.epoch.0 += 1;
            let epoch = app.epoch;
            self.program_returns(index, id);
            let Some(app) = self.nodes[index].apps.get(&id) else { continue };
            let plugin = app.has_calls().then(|| plugin(1).id);
            let (held, homes) = (app.leases.iter(), app.homes.clone());
            let leases = held.map(|(lease, lender)| (lease.serial, lender.clone())).collect();
            self.input(index, Input::Held { app: id, epoch, homes, rings: true, plugin, leases });
        }
    }

    /// Nothing passes between the two for a while. A cut shorter than the silence a link bears only
    /// delays what is under way.
    pub fn cut(&mut self, a: usize, b: usize, time: Duration) {
        self.note(|| format!("cut n{a} n{b} {time:?}"));
        self.net.cut(a, b, self.now + time);
        if time < SILENCE || self.options.beats {
            return;
        }
        for (at, to) in [(a, b), (b, a)] {
            if let Some(link) = self.net.link(at, to) {
                self.net.kill(at, to, link);
                let delay = self.silence();
                self.at(delay, Event::Closed { link, at: at as u32, to: to as u32 });
            }
        }
    }

    /// Nothing passes between a node of `part` and one outside for a while.
    pub fn cut_off(&mut self, part: &[usize], time: Duration) {
        for inside in part {
            for outside in 0..self.nodes.len() {
                if !part.contains(&outside) {
                    self.cut(*inside, outside, time);
                }
            }
        }
    }

    /// From now on everything passes again, and who stalls goes on. What was lost stays lost.
    pub fn mend(&mut self) {
        self.net.mend();
        for index in 0..self.nodes.len() {
            if self.stalled(index) {
                self.nodes[index].stalled = self.now;
                self.happen(Event::Resume(index as u32));
            }
        }
    }

    /// The node does nothing for a while; what comes meanwhile waits.
    pub fn stall(&mut self, index: usize, time: Duration) {
        self.note(|| format!("stall n{index} {time:?}"));
        let until = self.now + time;
        if until > self.nodes[index].stalled {
            self.nodes[index].stalled = until;
            self.at(time, Event::Resume(index as u32));
        }
    }

    fn silence(&mut self) -> Duration {
        self.random.between(SILENCE, SILENCE + Duration::from_millis(500))
    }
}
