//! Deals out, at the home, from whom each lender fetches a plugin.
//!
//! A pure machine: every holder, the home among them, serves at most [`AT_ONCE`] lenders at a time;
//! whoever has finished becomes a holder. So the origin sends a program a few times, and the number
//! of holders doubles from round to round.

use core::time::Duration;
use mutirao_wire::{NodeId, NodeRef, PluginId, Tick};
use std::collections::{BTreeMap, VecDeque};

/// Lenders that one holder serves at once.
pub const AT_ONCE: u32 = 2;
/// A lender that has not reported for this long is no longer counted against its source.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Lenders that can wait for one plugin. A lender turned away asks again by itself.
pub const WAITING_MAX: usize = 16 * 1024;
/// Holders that are remembered for one plugin.
pub const HOLDERS_MAX: usize = 4096;

/// What the machine is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// This home holds a plugin that applications here use.
    Keep {
        /// Which plugin.
        plugin: PluginId,
        /// This node.
        origin: NodeRef,
    },
    /// No application here uses the plugin any more.
    Forget(PluginId),
    /// A lender needs a source.
    Need {
        /// Which plugin.
        plugin: PluginId,
        /// Who.
        lender: NodeRef,
        /// A source that was dealt before and did not deliver.
        failed: Option<NodeId>,
    },
    /// A lender has it all.
    Have {
        /// Which plugin.
        plugin: PluginId,
        /// Who.
        lender: NodeId,
    },
    /// The link to a node is lost.
    Lost(NodeId),
    /// Nothing but time has passed.
    Time,
}

/// What the machine says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Tell `to` to fetch from `source`.
    Source {
        /// The lender whose turn it is.
        to: NodeId,
        /// Which plugin.
        plugin: PluginId,
        /// From whom.
        source: NodeRef,
    },
    /// More than [`WAITING_MAX`] wait: this one was not queued.
    TurnedAway {
        /// The lender.
        lender: NodeId,
        /// Which plugin.
        plugin: PluginId,
    },
}

/// The sources of every plugin that applications of this home use.
#[derive(Debug, Default)]
pub struct Spread {
    plugins: BTreeMap<PluginId, Plugin>,
}

#[derive(Debug)]
struct Plugin {
    origin: NodeId,
    holders: BTreeMap<NodeId, Holder>,
    /// By lender.
    fetching: BTreeMap<NodeId, Fetch>,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Holder {
    node: NodeRef,
    serving: u32,
    /// Served in all: the less used one is asked first.
    served: u64,
}

#[derive(Debug)]
struct Fetch {
    lender: NodeRef,
    source: NodeId,
    since: Tick,
}

#[derive(Debug)]
struct Waiting {
    lender: NodeRef,
    /// The source that failed it last; another is preferred.
    failed: Option<NodeId>,
}

impl Spread {
    /// A machine that knows of no plugin.
    pub fn new() -> Spread {
        Spread::default()
    }

    /// Takes one input; appends what follows from it to `out`.
    pub fn handle(&mut self, now: Tick, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Keep { plugin, origin } => {
                self.plugins.entry(plugin).or_insert_with(|| Plugin::new(origin));
            }
            Input::Forget(plugin) => {
                self.plugins.remove(&plugin);
            }
            Input::Need { plugin: id, lender, failed } => {
                let Some(plugin) = self.plugins.get_mut(&id) else { return };
                plugin.need(id, lender, failed, out);
                plugin.deal(now, id, out);
            }
            Input::Have { plugin: id, lender } => {
                let Some(plugin) = self.plugins.get_mut(&id) else { return };
                plugin.have(lender);
                plugin.deal(now, id, out);
            }
            Input::Lost(node) => {
                for (id, plugin) in &mut self.plugins {
                    plugin.lost(node);
                    plugin.deal(now, *id, out);
                }
            }
            Input::Time => {
                for (id, plugin) in &mut self.plugins {
                    plugin.expire(now);
                    plugin.deal(now, *id, out);
                }
            }
        }
    }

    /// When to call with [`Input::Time`] next.
    pub fn deadline(&self) -> Option<Tick> {
        self.plugins
            .values()
            .flat_map(|plugin| plugin.fetching.values())
            .map(|fetch| fetch.since + PATIENCE)
            .min()
    }
}

impl Plugin {
    fn new(origin: NodeRef) -> Plugin {
        let id = origin.id;
        let holder = Holder { node: origin, serving: 0, served: 0 };
        Plugin {
            origin: id,
            holders: BTreeMap::from([(id, holder)]),
            fetching: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }

    fn need(&mut self, id: PluginId, lender: NodeRef, failed: Option<NodeId>, out: &mut Vec<Output>) {
        // Whoever asks is neither fetching any more nor a holder.
        self.stop_fetching(lender.id);
        if lender.id == self.origin {
            return;
        }
        self.holders.remove(&lender.id);
        // The origin is never given up: it has the files for certain, and may only have been slow.
        if let Some(failed) = failed.filter(|failed| *failed != self.origin) {
            self.holders.remove(&failed);
        }
        if let Some(known) = self.waiting.iter_mut().find(|waiting| waiting.lender.id == lender.id) {
            *known = Waiting { lender, failed };
        } else if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(Waiting { lender, failed });
        } else {
            out.push(Output::TurnedAway { lender: lender.id, plugin: id });
        }
    }

    fn have(&mut self, lender: NodeId) {
        // Only one that was told to fetch is believed: others are not known by address anyway.
        if let Some(node) = self.stop_fetching(lender)
            && self.holders.len() < HOLDERS_MAX
        {
            // Some may still fetch from an earlier life of it as a holder.
            let serving = self.fetching.values().filter(|fetch| fetch.source == lender).count() as u32;
            self.holders.insert(lender, Holder { node, serving, served: 0 });
        }
    }

    fn lost(&mut self, node: NodeId) {
        self.stop_fetching(node);
        self.waiting.retain(|waiting| waiting.lender.id != node);
        if node != self.origin {
            self.holders.remove(&node);
        }
    }

    fn expire(&mut self, now: Tick) {
        let late: Vec<NodeId> = self
            .fetching
            .iter()
            .filter(|(_, fetch)| now - fetch.since >= PATIENCE)
            .map(|(id, _)| *id)
            .collect();
        for lender in late {
            self.stop_fetching(lender);
        }
    }

    fn stop_fetching(&mut self, lender: NodeId) -> Option<NodeRef> {
        let fetch = self.fetching.remove(&lender)?;
        if let Some(holder) = self.holders.get_mut(&fetch.source) {
            holder.serving = holder.serving.saturating_sub(1);
        }
        Some(fetch.lender)
    }

    /// Gives sources to those who wait, first come first served.
    fn deal(&mut self, now: Tick, id: PluginId, out: &mut Vec<Output>) {
        while let Some(next) = self.waiting.front() {
            let Some(source) = self.pick(next.failed) else { return };
            let Some(Waiting { lender, .. }) = self.waiting.pop_front() else { return };
            let Some(holder) = self.holders.get_mut(&source) else { return };
            holder.serving += 1;
            holder.served += 1;
            out.push(Output::Source { to: lender.id, plugin: id, source: holder.node.clone() });
            self.fetching.insert(lender.id, Fetch { lender, source, since: now });
        }
    }

    /// A holder that can serve one more: not the one that failed if there is another, rather not the
    /// origin, then the one used least.
    fn pick(&self, failed: Option<NodeId>) -> Option<NodeId> {
        let open = self.holders.iter().filter(|(_, holder)| holder.serving < AT_ONCE);
        open.min_by_key(|(id, holder)| {
            (Some(**id) == failed, **id == self.origin, holder.serving, holder.served)
        })
        .map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutirao_wire::Incarnation;
    use proptest::prelude::*;
    use std::collections::{BTreeSet, HashMap};

    const PLUGIN: PluginId = PluginId([7; 32]);
    const ORIGIN: u8 = 0;

    fn id(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    fn node(number: u8) -> NodeRef {
        NodeRef {
            id: id(number),
            incarnation: Incarnation(1),
            name: format!("n{number}"),
            addresses: vec!["127.0.0.1:1".parse().unwrap()],
        }
    }

    fn machine() -> Spread {
        let mut spread = Spread::new();
        spread.handle(Tick(0), Input::Keep { plugin: PLUGIN, origin: node(ORIGIN) }, &mut Vec::new());
        spread
    }

    fn need(number: u8, failed: Option<u8>) -> Input {
        Input::Need { plugin: PLUGIN, lender: node(number), failed: failed.map(id) }
    }

    fn have(number: u8) -> Input {
        Input::Have { plugin: PLUGIN, lender: id(number) }
    }

    fn sources(out: &[Output]) -> Vec<(NodeId, NodeId)> {
        let pair = |output: &Output| match output {
            Output::Source { to, source, .. } => Some((*to, source.id)),
            Output::TurnedAway { .. } => None,
        };
        out.iter().filter_map(pair).collect()
    }

    #[test]
    fn a_holder_serves_two_at_once_and_the_third_waits_for_its_turn() {
        let (mut spread, mut out) = (machine(), Vec::new());
        for lender in 1..=3 {
            spread.handle(Tick(0), need(lender, None), &mut out);
        }
        assert_eq!(sources(&out), [(id(1), id(ORIGIN)), (id(2), id(ORIGIN))]);
        out.clear();
        spread.handle(Tick(1), have(1), &mut out);
        assert_eq!(sources(&out), [(id(3), id(1))], "the new holder comes before the origin");
    }

    #[test]
    fn a_failed_source_is_not_dealt_again_but_the_origin_stays() {
        let (mut spread, mut out) = (machine(), Vec::new());
        spread.handle(Tick(0), need(1, None), &mut out);
        spread.handle(Tick(0), have(1), &mut out);
        out.clear();
        spread.handle(Tick(1), need(2, None), &mut out);
        assert_eq!(sources(&out), [(id(2), id(1))]);
        out.clear();
        spread.handle(Tick(2), need(2, Some(1)), &mut out);
        assert_eq!(sources(&out), [(id(2), id(ORIGIN))]);
        assert_eq!(spread.plugins[&PLUGIN].holders.len(), 1);
        out.clear();
        spread.handle(Tick(3), need(2, Some(ORIGIN)), &mut out);
        assert_eq!(sources(&out), [(id(2), id(ORIGIN))], "there is no other, so it is tried again");
    }

    #[test]
    fn one_who_never_reports_frees_the_source() {
        let (mut spread, mut out) = (machine(), Vec::new());
        for lender in 1..=3 {
            spread.handle(Tick(0), need(lender, None), &mut out);
        }
        out.clear();
        let late = spread.deadline().unwrap();
        assert_eq!(late, Tick(0) + PATIENCE);
        spread.handle(late, Input::Time, &mut out);
        assert_eq!(sources(&out), [(id(3), id(ORIGIN))]);
    }

    #[test]
    fn a_claim_by_one_who_was_given_no_source_makes_no_holder() {
        let mut spread = machine();
        spread.handle(Tick(0), have(9), &mut Vec::new());
        assert_eq!(spread.plugins[&PLUGIN].holders.len(), 1);
    }

    /// Plays `lenders` fetching at 100 ms a copy and a stream; `dies` fail the first fetch from them.
    /// Returns how many copies each holder sent, and when the last one was done.
    fn play(lenders: u8, dies: &BTreeSet<u8>) -> (HashMap<NodeId, u32>, Tick) {
        let (mut spread, mut out) = (machine(), Vec::new());
        let mut under_way: Vec<(Tick, NodeId, NodeId)> = Vec::new();
        let mut sent: HashMap<NodeId, u32> = HashMap::new();
        let mut done = BTreeSet::new();
        let mut now = Tick(0);
        let mut inputs: VecDeque<Input> = (1..=lenders).map(|lender| need(lender, None)).collect();
        while done.len() < usize::from(lenders) {
            for input in inputs.drain(..) {
                spread.handle(now, input, &mut out);
            }
            for (to, source) in sources(&out) {
                under_way.push((now + Duration::from_millis(100), to, source));
            }
            out.clear();
            for holder in under_way.iter().map(|(_, _, source)| source) {
                assert!(under_way.iter().filter(|(_, _, other)| other == holder).count() <= AT_ONCE as usize);
            }
            let Some(next) = under_way.iter().map(|fetch| fetch.0).min() else {
                panic!("{} of {lenders} wait for ever", usize::from(lenders) - done.len());
            };
            now = next;
            under_way.retain(|&(when, to, source)| {
                if when > now {
                    return true;
                }
                if source != id(ORIGIN) && dies.contains(&source.0[0]) {
                    inputs.push_back(need(to.0[0], Some(source.0[0])));
                } else {
                    *sent.entry(source).or_default() += 1;
                    done.insert(to);
                    inputs.push_back(have(to.0[0]));
                }
                false
            });
        }
        (sent, now)
    }

    #[test]
    fn the_origin_sends_to_few_of_sixteen() {
        let (sent, end) = play(16, &BTreeSet::new());
        assert_eq!(sent.values().sum::<u32>(), 16);
        assert!(sent[&id(ORIGIN)] <= 6, "the origin sent it {} times", sent[&id(ORIGIN)]);
        assert!(end <= Tick(0) + Duration::from_millis(400), "three rounds or four, not {end:?}");
    }

    proptest! {
        #[test]
        fn everybody_gets_it_whoever_fails(lenders in 1u8..60, dies in prop::collection::btree_set(1u8..60, 0..30)) {
            let (sent, _) = play(lenders, &dies);
            prop_assert_eq!(sent.values().sum::<u32>(), u32::from(lenders));
        }

        #[test]
        fn nobody_waits_while_a_holder_is_open(
            steps in prop::collection::vec((0u8..5, 0u8..12, prop::option::of(0u8..12)), 1..200),
        ) {
            let (mut spread, mut out) = (machine(), Vec::new());
            let mut now = Tick(0);
            for (what, number, failed) in steps {
                now = now + Duration::from_secs(7);
                let input = match what {
                    0 | 1 => need(number, failed),
                    2 => have(number),
                    3 => Input::Lost(id(number)),
                    _ => Input::Time,
                };
                spread.handle(now, input, &mut out);
                let plugin = &spread.plugins[&PLUGIN];
                prop_assert!(plugin.waiting.is_empty() || plugin.holders.values().all(|holder| holder.serving >= AT_ONCE));
                prop_assert!(plugin.holders.contains_key(&id(ORIGIN)));
                for (holder_id, holder) in &plugin.holders {
                    let fetching = plugin.fetching.values().filter(|fetch| fetch.source == *holder_id).count();
                    prop_assert!(holder.serving as usize >= fetching && holder.serving <= AT_ONCE);
                }
            }
        }
    }
}
