//! Members over links that lose, double and delay, which are killed at any moment and forget what was not synced.

use crate::{Entry, Kept, Line, Member, Offer, Refused, Role, Timing};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

const TIMING: Timing = Timing { heartbeat: 2, election: 10 };

/// The disk of a member: lines, of which the first so many outlive a loss of power.
#[derive(Default)]
struct Disk {
    lines: Vec<Line>,
    synced: usize,
}

struct Node {
    member: Option<Member>,
    disk: Arc<Mutex<Disk>>,
    /// What was handed out in this life, behind what the parts said.
    handed: Vec<Entry>,
    /// A kill falls so many steps of writing ahead.
    fuse: Option<u32>,
    /// Its disk has lost something that was synced.
    damaged: bool,
}

/// Three members, the network between them, and what has come to count anywhere.
struct World {
    nodes: Vec<Node>,
    wires: Vec<(u64, u64, Vec<u8>)>,
    counts: BTreeMap<u64, Entry>,
    leaders: BTreeMap<u64, u64>,
    seed: u64,
    cut: Option<u64>,
    proposed: u64,
    compacted: u64,
    taken: u64,
    mended: u64,
    /// Damage is not noticed.
    careless: bool,
}

fn part(entry: &Entry) -> Line {
    Line::Part(postcard::to_stdvec(&(entry.index, entry.term, &entry.data)).unwrap())
}

/// The entries that the parts of a journal say.
fn parts(lines: &[Line]) -> Vec<Entry> {
    let part = |line: &Line| match line {
        Line::Part(bytes) => Some(postcard::from_bytes(bytes).unwrap()),
        _ => None,
    };
    lines.iter().map_while(part).map(|(index, term, data)| Entry { index, term, data }).collect()
}

fn draw(seed: &mut u64) -> u64 {
    // SplitMix64
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl World {
    fn new(seed: u64) -> World {
        let node =
            |_| Node { member: None, disk: Arc::default(), handed: Vec::new(), fuse: None, damaged: false };
        let mut world = World {
            nodes: (0..3).map(node).collect(),
            wires: Vec::new(),
            counts: BTreeMap::new(),
            leaders: BTreeMap::new(),
            seed,
            cut: None,
            proposed: 0,
            compacted: 0,
            taken: 0,
            mended: 0,
            careless: false,
        };
        (1..=3).for_each(|me| world.start(me));
        world
    }

    fn draw(&mut self, below: u64) -> u64 {
        draw(&mut self.seed) % below
    }

    fn start(&mut self, me: u64) {
        let nonce = self.draw(u64::MAX);
        let node = &mut self.nodes[me as usize - 1];
        let mut kept = Kept::default();
        for (at, line) in node.disk.lock().unwrap().lines.iter().enumerate() {
            assert!(kept.read(line, at as u64), "{line:?} makes no sense");
        }
        assert!(kept.is_whole(3));
        node.handed = parts(&node.disk.lock().unwrap().lines);
        assert_eq!(node.handed.len() as u64, kept.base());
        let disk = node.disk.clone();
        let cold = move |at: u64| match &disk.lock().unwrap().lines[at as usize] {
            Line::Entry { data, .. } => Some(data.clone()),
            _ => None,
        };
        let offer = node.handed.len().to_le_bytes().to_vec();
        let mut member = Member::new(me, 3, TIMING, kept, offer, Box::new(cold));
        if node.damaged {
            member.mend(nonce);
        }
        node.member = Some(member);
        self.settle(me);
    }

    /// Killed, and of what was synced only a drawn part is there. Two at once are more than any journal stands.
    fn damage(&mut self, me: u64) {
        if self.nodes.iter().any(|node| node.damaged) {
            return;
        }
        self.kill(me);
        let chance = self.draw(u64::MAX);
        let node = &mut self.nodes[me as usize - 1];
        node.damaged = !self.careless;
        let mut disk = node.disk.lock().unwrap();
        let keep = (chance % (disk.lines.len() as u64 + 1)) as usize;
        disk.lines.truncate(keep);
        let mut kept = Kept::default();
        if !disk.lines.iter().all(|line| kept.read(line, 0)) || !kept.is_whole(3) {
            disk.lines.clear();
        }
        disk.synced = disk.lines.len();
    }

    /// Killed, and of what it wrote last on the disk only a drawn part is there.
    fn kill(&mut self, me: u64) {
        let chance = self.draw(u64::MAX);
        let node = &mut self.nodes[me as usize - 1];
        (node.member, node.fuse) = (None, None);
        let mut disk = node.disk.lock().unwrap();
        let lost = (disk.lines.len() - disk.synced) as u64;
        let keep = disk.synced + (chance % (lost + 1)) as usize;
        disk.lines.truncate(keep);
        disk.synced = keep;
    }

    fn send(&mut self, from: u64, messages: Vec<(u64, Vec<u8>)>) {
        self.wires.extend(messages.into_iter().map(|(to, bytes)| (from, to, bytes)));
    }

    /// Does all there is to do at a member; false if it was killed over it.
    fn settle(&mut self, me: u64) -> bool {
        let place = me as usize - 1;
        loop {
            let node = &mut self.nodes[place];
            let Some(member) = &mut node.member else { return false };
            let Some(work) = member.work() else { break };
            self.send(me, work.send);
            let node = &mut self.nodes[place];
            if !work.base.is_empty() {
                let mut disk = node.disk.lock().unwrap();
                disk.lines = node.handed.iter().map(part).chain(work.base).collect();
                disk.synced = disk.lines.len();
            }
            let mut places = Vec::new();
            {
                let mut disk = node.disk.lock().unwrap();
                for line in work.lines {
                    places.push(disk.lines.len() as u64);
                    disk.lines.push(line);
                }
            }
            if let Some(fuse) = &mut node.fuse {
                *fuse = fuse.saturating_sub(1);
                if *fuse == 0 {
                    self.kill(me);
                    return false;
                }
            }
            let Some(member) = &mut node.member else { return false };
            let mut disk = node.disk.lock().unwrap();
            if work.sync {
                disk.synced = disk.lines.len();
            }
            drop(disk);
            let written = member.written(&places);
            node.disk.lock().unwrap().lines.extend(written.line);
            node.handed.extend(written.entries.iter().cloned());
            self.send(me, written.send);
            for entry in written.entries {
                self.count(entry);
            }
        }
        let node = &mut self.nodes[place];
        if node.damaged && node.member.as_ref().is_some_and(|member| !member.mends()) {
            node.damaged = false;
            self.mended += 1;
        }
        if let Some(Role::Leads(term)) = self.nodes[place].member.as_ref().map(Member::role) {
            assert_eq!(*self.leaders.entry(term).or_insert(me), me, "two lead in term {term}");
        }
        true
    }

    /// Puts what entries have come to, here the entries themselves, in their place.
    fn compact(&mut self, me: u64) {
        let spare = self.draw(3) * 20;
        let node = &mut self.nodes[me as usize - 1];
        let Some(member) = &mut node.member else { return };
        let Some(compact) = member.compact(spare) else { return };
        let mut disk = node.disk.lock().unwrap();
        disk.lines = node.handed.iter().map(part).chain([compact.head.clone()]).collect();
        let places: Vec<u64> = (disk.lines.len() as u64..).take(compact.entries.len()).collect();
        disk.lines.extend(compact.entries.iter().cloned().chain([compact.state.clone()]));
        disk.synced = disk.lines.len();
        drop(disk);
        member.compacted(&compact, node.handed.len().to_le_bytes().to_vec(), &places);
        self.compacted += 1;
    }

    /// Gets what was offered, as it is known to have come to count.
    fn take(&mut self, me: u64, offer: Offer) {
        let count = usize::from_le_bytes(offer.data.clone().try_into().unwrap());
        assert_eq!(count as u64, offer.base.index);
        let node = &mut self.nodes[me as usize - 1];
        let Some(member) = &mut node.member else { return };
        let before = std::mem::replace(&mut node.handed, self.counts.values().take(count).cloned().collect());
        if member.take(offer) {
            self.taken += 1;
        } else {
            node.handed = before;
        }
        self.settle(me);
    }

    /// What counts once counts for ever, everywhere.
    fn count(&mut self, entry: Entry) {
        let known = self.counts.entry(entry.index).or_insert_with(|| entry.clone());
        assert_eq!(*known, entry);
    }

    fn reaches(&self, from: u64, to: u64) -> bool {
        self.cut.is_none_or(|cut| cut != from && cut != to)
    }

    /// Delivers one message, in any order; some never, some twice.
    fn deliver(&mut self, faults: bool) {
        if self.wires.is_empty() {
            return;
        }
        let place = if faults { self.draw(self.wires.len() as u64) as usize } else { 0 };
        let (from, to, bytes) = match faults && self.draw(20) == 0 {
            true => self.wires[place].clone(),
            false => self.wires.remove(place),
        };
        if !self.reaches(from, to) || (faults && self.draw(10) == 0) {
            return;
        }
        if let Some(member) = &mut self.nodes[to as usize - 1].member {
            match member.hear(from, &bytes) {
                Ok(Some(offer)) => self.take(to, offer),
                Ok(None) => drop(self.settle(to)),
                // Until a leader knows that something was lost it counts on it.
                Err(Refused::Lacking { .. }) if member.mends() || self.careless => {}
                Err(refused) => panic!("{refused}"),
            }
        }
    }

    fn tick(&mut self, me: u64) {
        if let Some(member) = &mut self.nodes[me as usize - 1].member {
            member.tick();
            self.settle(me);
        }
    }

    fn propose(&mut self, me: u64) {
        let data = self.proposed.to_le_bytes().to_vec();
        if let Some(member) = &mut self.nodes[me as usize - 1].member
            && member.propose(data).is_ok()
        {
            self.proposed += 1;
            self.settle(me);
        }
    }

    fn step(&mut self) {
        let me = self.draw(3) + 1;
        match self.draw(100) {
            0 => self.kill(me),
            1 => self.nodes[me as usize - 1].fuse = Some(self.draw(5) as u32 + 1),
            2 => self.cut = Some(me).filter(|_| self.draw(2) == 0),
            98 => self.compact(me),
            99 if self.draw(4) == 0 => self.damage(me),
            3..6 if self.nodes[me as usize - 1].member.is_none() => self.start(me),
            3..20 => self.tick(me),
            20..35 => (1..=3).for_each(|me| self.propose(me)),
            _ => self.deliver(true),
        }
    }

    /// Faults stop: all come to the same, and all that ever counted is in it.
    fn come_to_rest(&mut self) {
        self.cut = None;
        for me in 1..=3 {
            self.nodes[me as usize - 1].fuse = None;
            if self.nodes[me as usize - 1].member.is_none() {
                self.start(me);
            }
        }
        for _ in 0..200 {
            (1..=3).for_each(|me| self.tick(me));
            while !self.wires.is_empty() {
                self.deliver(false);
            }
        }
        let leads = |node: &Node| matches!(node.member.as_ref().map(Member::role), Some(Role::Leads(_)));
        assert_eq!(self.nodes.iter().filter(|node| leads(node)).count(), 1, "one leads");
        assert!(self.nodes.iter().all(|node| !node.damaged), "all are mended");
        let counted: Vec<&Entry> = self.counts.values().collect();
        for node in &self.nodes {
            assert_eq!(node.handed.iter().collect::<Vec<_>>(), counted);
        }
    }
}

#[test]
fn whatever_is_lost_or_killed_what_counts_counts_everywhere_and_one_leads() {
    let runs = std::env::var("MUTIRAO_REPLICA_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(300);
    let (mut counted, mut compacted, mut taken, mut mended) = (0, 0, 0, 0);
    for seed in 0..runs {
        let mut world = World::new(seed);
        for _ in 0..2000 {
            world.step();
        }
        world.come_to_rest();
        counted += world.counts.len() as u64;
        (compacted, taken) = (compacted + world.compacted, taken + world.taken);
        mended += world.mended;
    }
    assert!(compacted > runs && taken > runs / 10, "{compacted} journals cut, {taken} offers taken");
    assert!(mended > runs / 2, "{mended} damaged journals mended");
    assert!(counted > runs * 10, "only {counted} entries came to count in {runs} runs");
}

#[test]
#[should_panic(expected = "left == right")]
fn a_damaged_journal_that_passes_for_a_whole_one_loses_what_counts() {
    for seed in 0..300 {
        let mut world = World { careless: true, ..World::new(seed) };
        (0..2000).for_each(|_| world.step());
        world.come_to_rest();
    }
}

#[test]
fn one_alone_counts_nothing_and_two_do() {
    let mut world = World::new(1);
    world.come_to_rest();
    let leader = (1..=3).find(|me| {
        matches!(world.nodes[*me as usize - 1].member.as_ref().map(Member::role), Some(Role::Leads(_)))
    });
    let leader = leader.unwrap();
    let before = world.counts.len();
    world.cut = Some(leader);
    world.propose(leader);
    for _ in 0..100 {
        (1..=3).for_each(|me| world.tick(me));
        while !world.wires.is_empty() {
            world.deliver(false);
        }
    }
    let role = |me: u64| world.nodes[me as usize - 1].member.as_ref().unwrap().role();
    assert!(!matches!(role(leader), Role::Leads(_)), "it hears nobody and steps down");
    let next = (1..=3).find(|me| matches!(role(*me), Role::Leads(_))).expect("the others go on");
    assert_ne!(next, leader);
    let lost = world.counts.values().skip(before).any(|entry| entry.data == 0u64.to_le_bytes());
    assert!(!lost, "what it proposed alone does not count");
    world.propose(next);
    world.come_to_rest();
}

#[test]
fn a_member_alone_counts_at_once() {
    let mut member = Member::new(1, 1, TIMING, Kept::default(), Vec::new(), Box::new(|_| None));
    member.campaign();
    let mut entries = Vec::new();
    let mut proposed = false;
    loop {
        while let Some(work) = member.work() {
            let places: Vec<u64> = work.lines.iter().map(|_| 0).collect();
            entries.extend(member.written(&places).entries);
        }
        if proposed {
            break;
        }
        member.propose(b"x".to_vec()).unwrap();
        proposed = true;
    }
    assert_eq!(entries.last().map(|entry| entry.data.as_slice()), Some(&b"x"[..]));
}
