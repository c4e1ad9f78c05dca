//! Pipes between the ends of an application, as far as one node decides about them.
//!
//! A node has two parts in this, told apart by module: at `home` it keeps the orders of its programs, tells
//! the lenders of both ends, and the program what becomes of them; at an `end` it joins a worker (or its
//! program, or a program that is another's guest) to the other end. Where both parts are played here, they speak to each other directly.
//!
//! Of two nodes the one with the smaller id binds, on the data connection it dials; the other accepts what its
//! homes have announced, as soon as the worker is there. Whatever breaks a pipe (connection, worker, either
//! side's word) leaves it announced, and the binder tries again; only the home ends it. Every message may be
//! repeated, and come before or after any of another link.

mod end;
mod home;
mod io;
#[cfg(test)]
mod tests;

pub use io::{Input, Output, Spot};

use end::Ends;
use home::{Joining, Orders, Said, Word};
use mutirao_wire::pipe::JoinPipe;
use mutirao_wire::{NodeId, Tick};
use std::collections::VecDeque;

/// All pipes of one node.
#[derive(Debug)]
pub struct Pipes<C> {
    me: NodeId,
    orders: Orders,
    ends: Ends<C>,
}

impl<C: Copy + Ord> Pipes<C> {
    /// None so far.
    pub fn new(me: NodeId) -> Pipes<C> {
        Pipes { me, orders: Orders::default(), ends: Ends::new(me) }
    }

    /// Takes one input; appends what follows from it to `out`.
    pub fn handle(&mut self, now: Tick, input: Input<C>, out: &mut Vec<Output<C>>) {
        let mut said = Said::new();
        let (said_here, ends, orders) = (&mut said, &mut self.ends, &mut self.orders);
        match input {
            Input::Open { app, epoch, number, a, b } => {
                orders.open(now, self.me, (app, number), epoch, [a, b], said_here, out);
            }
            Input::Close { app, number } => orders.close((app, number), "the program closed it", said_here),
            Input::AppGone(app) => {
                orders.app_gone(app, said_here);
                ends.app_gone(app, said_here, out);
            }
            Input::LeaseOver { app, lender, serial } => {
                orders.lease_over(app, lender, serial, said_here, out);
            }
            Input::LinkUp(peer) => {
                orders.link_up(peer, said_here);
                ends.link_up(now, peer, said_here, out);
            }
            Input::Join { from, join, is_its } => {
                let JoinPipe { app, epoch, number, mine, node, other } = join;
                let joining = Joining { key: (app, number), epoch, mine, node, other };
                ends.join(now, from, joining, is_its, said_here, out);
            }
            Input::Leave { from, leave } => ends.leave(from, &leave, out),
            Input::News { from, news } => orders.news(from, news, said_here, out),
            Input::Ready { serial } => ends.ready(now, serial, said_here, out),
            Input::WorkerGone { serial } => ends.worker_gone(now, serial, said_here, out),
            Input::LeaseGone { serial } => ends.lease_gone(serial, out),
            Input::DataUp { peer, conn } => ends.data_up(now, peer, conn, said_here, out),
            Input::DataDown { conn } => ends.data_down(now, conn, said_here, out),
            Input::DataFailed(peer) => ends.data_failed(now, peer),
            Input::Bind { peer, conn, bind } => ends.bind(now, peer, conn, bind, said_here, out),
            Input::Bound { conn, bound } => ends.bound(conn, bound, said_here, out),
            Input::Unbound { conn, unbound } => ends.unbound(now, conn, unbound, said_here, out),
            Input::Plain { conn, handle, stands } => ends.plain(now, conn, handle, stands, said_here, out),
            Input::Undone { app, number } => ends.undone(now, (app, number), said_here, out),
            Input::Distrust(peer) => ends.distrust(now, peer, said_here, out),
            Input::Time => {
                orders.time(now, said_here, out);
                ends.time(now, said_here, out);
            }
        }
        self.deliver(now, said, out);
    }

    /// What the two parts say goes out, or from one to the other.
    fn deliver(&mut self, now: Tick, said: Said, out: &mut Vec<Output<C>>) {
        let mut said = VecDeque::from(said);
        while let Some((to, word)) = said.pop_front() {
            if to != self.me {
                out.push(Output::Send { to, message: word.into_message() });
                continue;
            }
            let mut more = Said::new();
            match word {
                Word::Join(joining) => self.ends.join(now, to, joining, true, &mut more, out),
                Word::Leave(leave) => self.ends.leave(to, &leave, out),
                Word::News(news) => self.orders.news(to, news, &mut more, out),
            }
            said.extend(more);
        }
    }

    /// When to call with [`Input::Time`] next.
    pub fn deadline(&self) -> Option<Tick> {
        [self.ends.deadline(), self.orders.deadline()].into_iter().flatten().min()
    }

    /// Whether a pipe here has its other end at `peer`.
    pub fn uses(&self, peer: NodeId) -> bool {
        self.ends.uses(peer)
    }

    /// How many pipes have an end here.
    pub fn count(&self) -> usize {
        self.ends.count()
    }
}
