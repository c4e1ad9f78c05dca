//! Orders to the keeper, from people and from other members, and their answers.

use super::super::control::{self, Asked, Back, Order};
use super::super::member::order_of;
use super::super::shared::Heard;
use super::{Keeper, Log};
use anyhow::{Context, Result};
use mutirao_wire::NodeId;

impl Keeper {
    /// Another member says something.
    pub(super) fn hear(&mut self, from: NodeId, bytes: &[u8]) -> Result<()> {
        let Log::Shared(shared) = &mut self.log else { return Ok(()) };
        let Heard::Order { from: member, number, last, bytes } = shared.hear(from, bytes)? else {
            return Ok(());
        };
        let size: usize = self.parts.values().map(Vec::len).sum();
        let mut order = self.parts.remove(&(member, number)).unwrap_or_default();
        if size + bytes.len() > control::ORDER_BYTES_MAX as usize {
            return Ok(());
        }
        order.extend(bytes);
        if !last {
            self.parts.insert((member, number), order);
            return Ok(());
        }
        let back = Back::Member { member, number };
        match order_of(&order) {
            Ok(order) => self.obey(Asked { order, back }),
            Err(error) => {
                self.say(back, &Err(error));
                Ok(())
            }
        }
    }

    pub(super) fn obey(&mut self, asked: Asked) -> Result<()> {
        if let (Order::Watch, Back::Stream(stream)) = (&asked.order, &asked.back) {
            let watcher = control::Watcher::new(stream.try_clone().context("cannot tell anybody anything")?);
            self.watchers.push(watcher);
            return self.show();
        }
        if let (Order::GiveBack, Log::Shared(shared)) = (&asked.order, &mut self.log) {
            shared.hand_to_origin();
            return Ok(());
        }
        if let (Order::Session, Back::Stream(stream)) = (&asked.order, &asked.back) {
            let stream = stream.try_clone().context("cannot serve a program")?;
            return self.open_session(stream, false);
        }
        if let Order::Add(_) = asked.order
            && !self.sessions.is_empty()
        {
            // It numbers what it pushes.
            self.say(asked.back, &Err(anyhow::anyhow!("a program has the bag open, which alone adds tasks")));
            return Ok(());
        }
        match control::inputs(&self.bag, &asked.order) {
            Ok(inputs) => {
                let count = inputs.tasks;
                for input in inputs.inputs {
                    self.tell(input)?;
                }
                self.must_sync = true;
                self.answers.push_back((self.appended, asked.back, count));
            }
            Err(error) => self.say(asked.back, &Err(error)),
        }
        Ok(())
    }

    /// Tells what came of an order.
    pub(super) fn say(&mut self, back: Back, answer: &Result<usize>) {
        let line = control::answer_line(answer);
        match &mut self.log {
            Log::Alone { .. } => control::answer_here(back, &line),
            Log::Shared(shared) => back.say(shared, &line),
        }
    }
}
