//! Data connections: dialled by homes, they carry the streams of all leases between two nodes.

use super::Happening;
use crate::world::World;
use core::time::Duration;
use mutirao_wire::frame::Decoder;
use mutirao_wire::limits::{DATA_BODY_MAX, HANDSHAKE};
use mutirao_wire::{AppId, Handle, Incarnation, LeaseId, Tick};
use std::collections::BTreeMap;

/// The end of the home, and that of the lender.
pub(super) const HOME: usize = 0;
pub(super) const LENDER: usize = 1;

/// One data connection.
pub(super) struct Data {
    pub(super) nodes: [usize; 2],
    /// The life of the lender it was made with.
    pub(super) life: Incarnation,
    /// Which ends are open.
    pub(super) open: [bool; 2],
    /// When the last that was sent to each end arrives.
    order: [Tick; 2],
    pub(super) next_handle: u32,
    /// At the home: whose a handle is.
    pub(super) programs: BTreeMap<u32, (AppId, Handle, LeaseId)>,
    /// At the lender: which lease it names.
    pub(super) lent: BTreeMap<u32, u64>,
}

impl World {
    /// The open data connection from a home to a lender.
    pub(super) fn data_to(&self, home: usize, lender: usize) -> Option<u64> {
        let is_it = |data: &Data| data.nodes == [home, lender] && data.open[HOME];
        self.calls.data.iter().find(|(_, data)| is_it(data)).map(|(number, _)| *number)
    }

    pub(super) fn dial_data(&mut self, from: usize, to: usize) {
        if !self.calls.dials.insert((from, to)) {
            return;
        }
        if self.net.is_cut(from, to, self.now).is_some() {
            return self.happens(HANDSHAKE, Happening::Unreachable { from, to });
        }
        let delay = self.latency(from, to) * 3;
        self.happens(delay, Happening::Connect { from, to });
    }

    pub(super) fn data_connects(&mut self, from: usize, to: usize) {
        if self.net.is_cut(from, to, self.now).is_some() {
            return self.happens(HANDSHAKE, Happening::Unreachable { from, to });
        }
        let up = |index: usize| self.nodes[index].core.is_some();
        if !up(from) || !up(to) || self.data_to(from, to).is_some() {
            return self.data_failed(from, to);
        }
        self.calls.dials.remove(&(from, to));
        self.note(|| format!("data n{from} n{to}"));
        self.calls.last += 1;
        let data = Data {
            nodes: [from, to],
            life: self.nodes[to].me.incarnation,
            open: [true; 2],
            order: [Tick(0); 2],
            next_handle: 0,
            programs: BTreeMap::new(),
            lent: BTreeMap::new(),
        };
        self.calls.data.insert(self.calls.last, data);
        self.data_up(from, to, self.calls.last);
    }

    pub(super) fn data_failed(&mut self, from: usize, to: usize) {
        self.calls.dials.remove(&(from, to));
        self.no_data(from, to);
    }

    /// Puts frames on their way to the other end.
    pub(super) fn put_data(&mut self, number: u64, from: usize, bytes: Vec<u8>) {
        let Some(data) = self.calls.data.get(&number).filter(|data| data.open[from]) else { return };
        let (at, side) = (data.nodes[from], 1 - from);
        self.digest.bytes(&bytes);
        let when = self.arrival(at, data.nodes[side]);
        self.in_order(number, side, when, Happening::Frames { data: number, side, bytes });
    }

    fn in_order(&mut self, number: u64, side: usize, when: Tick, what: Happening) {
        let Some(data) = self.calls.data.get_mut(&number) else { return };
        data.order[side] = when.max(data.order[side]);
        let delay = data.order[side] - self.now;
        self.happens(delay, what);
    }

    pub(super) fn frames(&mut self, number: u64, side: usize, bytes: &[u8]) {
        let mut decoder = Decoder::new(DATA_BODY_MAX);
        decoder.push(bytes);
        while let Some((header, body)) = decoder.next_frame().expect("frames that fit a data connection") {
            // Each may close it.
            let Some(data) = self.calls.data.get(&number).filter(|data| data.open[side]) else { return };
            let node = data.nodes[side];
            if side == HOME {
                self.lender_frame(node, number, &header, body);
            } else {
                self.home_frame(node, number, &header, body);
            }
        }
        assert_eq!(decoder.pending(), 0, "whole frames");
    }

    /// This end is closed, and the other will hear of it.
    pub(crate) fn close_data(&mut self, number: u64, side: usize) {
        let Some(data) = self.calls.data.get_mut(&number) else { return };
        if !core::mem::replace(&mut data.open[side], false) {
            return;
        }
        let (node, other) = (data.nodes[side], data.nodes[1 - side]);
        let is_open = data.open[1 - side];
        self.note(|| format!("data {number} closed at n{node}"));
        if is_open {
            let when = self.arrival(node, other);
            self.in_order(number, 1 - side, when, Happening::Closed { data: number, side: 1 - side });
        }
        if self.nodes[node].core.is_some() {
            if side == HOME { self.data_gone(node, number) } else { self.home_gone(node, number) }
        }
        if !is_open {
            self.calls.data.remove(&number);
        }
    }

    fn ends_at(&self, node: usize) -> Vec<(u64, usize)> {
        let ends = self
            .calls
            .data
            .iter()
            .flat_map(|(number, data)| [(*number, HOME, data), (*number, LENDER, data)]);
        ends.filter(|(_, side, data)| data.nodes[*side] == node && data.open[*side])
            .map(|(number, side, _)| (number, side))
            .collect()
    }

    /// Without beats nobody vouches for the data connections to a node.
    pub(crate) fn close_data_between(&mut self, at: usize, to: usize) {
        for (number, side) in self.ends_at(at) {
            if self.calls.data.get(&number).is_some_and(|data| data.nodes[1 - side] == to) {
                self.close_data(number, side);
            }
        }
    }

    /// A node has died. Its machine tells the others, or they find out.
    pub(super) fn data_lost(&mut self, node: usize, silently: bool) {
        self.calls.dials.retain(|(from, _)| *from != node);
        for (number, side) in self.ends_at(node) {
            let Some(data) = self.calls.data.get_mut(&number) else { continue };
            data.open[side] = false;
            let (other, is_open) = (data.nodes[1 - side], data.open[1 - side]);
            if !is_open {
                self.calls.data.remove(&number);
                continue;
            }
            let mut when = self.arrival(node, other);
            if silently {
                when = when + self.random.between(Duration::from_secs(1), Duration::from_secs(20));
            }
            self.in_order(number, 1 - side, when, Happening::Closed { data: number, side: 1 - side });
        }
    }

    /// Some data connection breaks.
    pub(super) fn break_data(&mut self) {
        let some = self.random.below(self.calls.data.len());
        if let Some(number) = self.calls.data.keys().nth(some).copied() {
            let side = self.random.below(2);
            if self.calls.data.get(&number).is_some_and(|data| !self.stalled(data.nodes[side])) {
                self.close_data(number, side);
            }
        }
    }
}
