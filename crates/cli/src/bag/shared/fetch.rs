//! How a member that was away for long gets what it lacks: piece by piece, in order, some asked for ahead.

use mutirao_replica::Offer;
use serde::{Deserialize, Serialize};

/// Bytes of what tasks have written, in one piece.
const OUTPUT_BYTES: u64 = super::PIECE_BYTES as u64;
/// Pieces that are asked for ahead.
const AHEAD: u64 = 16;

/// What a member says of the parts of its journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// How many there are.
    pub parts: u64,
    /// Bytes of what tasks had written by then.
    pub outputs: u64,
}

impl Offered {
    pub fn encode(self) -> Vec<u8> {
        postcard::to_stdvec(&self).unwrap_or_default()
    }
}

/// One piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Want {
    /// Of the parts the one with this number, from 0.
    Part(u64),
    /// Of what tasks have written.
    Output { offset: u64, bytes: u32 },
}

/// What was offered, as far as it is there. What tasks have written comes first: it is the same in every later offer.
#[derive(Debug)]
pub struct Fetch {
    offer: Offer,
    offered: Offered,
    /// Bytes of what tasks have written that are there.
    outputs: u64,
    parts: Vec<Vec<u8>>,
    /// What is asked for next.
    ask_output: u64,
    ask_part: u64,
    /// Pieces that have come since time passed last.
    came: u32,
}

impl Fetch {
    /// What tasks have written is there up to `outputs`. `None` if the offer makes no sense.
    pub fn new(offer: Offer, outputs: u64) -> Option<Fetch> {
        let offered: Offered = postcard::from_bytes(&offer.data).ok()?;
        let (parts, ask_output) = (Vec::new(), outputs);
        Some(Fetch { offer, offered, outputs, parts, ask_output, ask_part: 0, came: 0 })
    }

    /// What is to be asked for now.
    pub fn wants(&mut self) -> Vec<Want> {
        let mut wants = Vec::new();
        while self.ask_output < self.offered.outputs && self.ask_output < self.outputs + AHEAD * OUTPUT_BYTES
        {
            let bytes = OUTPUT_BYTES.min(self.offered.outputs - self.ask_output);
            wants.push(Want::Output { offset: self.ask_output, bytes: bytes as u32 });
            self.ask_output += bytes;
        }
        let has_outputs = self.outputs >= self.offered.outputs;
        while has_outputs && self.ask_part < self.offered.parts.min(self.parts.len() as u64 + AHEAD) {
            wants.push(Want::Part(self.ask_part));
            self.ask_part += 1;
        }
        wants
    }

    /// What tasks have written from there on; whether it is the next piece.
    pub fn output(&mut self, offset: u64, bytes: u64) -> bool {
        let end = offset.saturating_add(bytes);
        let is_next = offset == self.outputs && bytes > 0 && end <= self.offered.outputs;
        if is_next {
            self.outputs = end;
            // What nobody reads any more comes in one, however much it is.
            self.ask_output = self.ask_output.max(end);
            self.came += 1;
        }
        is_next
    }

    /// A part of what entries up to `base` have come to.
    pub fn part(&mut self, base: u64, number: u64, bytes: Vec<u8>) {
        if base == self.offer.base.index && number == self.parts.len() as u64 && number < self.offered.parts {
            self.parts.push(bytes);
            self.came += 1;
        }
    }

    /// Time has passed: if nothing came in it, what was asked for was lost.
    pub fn tick(&mut self) {
        if std::mem::take(&mut self.came) == 0 {
            (self.ask_output, self.ask_part) = (self.outputs, self.parts.len() as u64);
        }
    }

    pub fn is_whole(&self) -> bool {
        self.outputs >= self.offered.outputs && self.parts.len() as u64 == self.offered.parts
    }

    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Bytes of what tasks have written that are there.
    pub fn outputs(&self) -> u64 {
        self.outputs
    }

    /// The offer, and its parts.
    pub fn into_parts(self) -> (Offer, Vec<Vec<u8>>) {
        (self.offer, self.parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutirao_replica::{Kept, Member, Timing};

    const TIMING: Timing = Timing { heartbeat: 1, election: 4 };

    /// An offer of so many parts and bytes, as a follower hears it from a leader whose log was cut.
    fn offer(offered: Offered) -> Offer {
        let member = |me| Member::new(me, 3, TIMING, Kept::default(), Vec::new(), Box::new(|_| None));
        let mut members = [member(1), member(2), member(3)];
        let mut lagging = Vec::new();
        members[0].campaign();
        for turn in 0..200 {
            let mut said = Vec::new();
            for (from, member) in (1..).zip(&mut members) {
                member.tick();
                if turn == 50 {
                    // Of whoever leads it comes to count.
                    let _ = member.propose(vec![1]);
                }
                while let Some(work) = member.work() {
                    let places = vec![0; work.lines.len()];
                    said.extend(work.send.into_iter().map(|(to, bytes)| (from, to, bytes)));
                    let written = member.written(&places);
                    said.extend(written.send.into_iter().map(|(to, bytes)| (from, to, bytes)));
                }
                if turn == 100 && from < 3 {
                    let compact = member.compact(0).expect("there is nothing else to do");
                    member.compacted(&compact, offered.encode(), &[]);
                }
            }
            for (from, to, bytes) in said {
                // The third is away at first.
                let is_away = turn < 100 && [from, to].contains(&3);
                if !is_away {
                    lagging.extend(members[to as usize - 1].hear(from, &bytes).expect("it makes sense"));
                }
            }
        }
        lagging.pop().expect("it was offered")
    }

    #[test]
    fn what_is_lost_is_asked_for_again_and_all_comes_in_order() {
        let offered = Offered { parts: 40, outputs: 3 * OUTPUT_BYTES + 5 };
        let mut fetch = Fetch::new(offer(offered), 7).unwrap();
        let base = fetch.offer().base.index;
        let (mut chance, mut asked) = (1u64, Vec::new());
        while !fetch.is_whole() && asked.len() < 1000 {
            let wants = fetch.wants();
            if wants.is_empty() {
                fetch.tick();
                fetch.tick();
            }
            for want in wants {
                asked.push(want);
                // One of five is lost.
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                match want {
                    _ if (chance >> 33) % 5 == 0 => {}
                    Want::Output { offset, bytes } => drop(fetch.output(offset, bytes.into())),
                    Want::Part(number) => fetch.part(base, number, vec![number as u8]),
                }
            }
        }
        assert!(fetch.is_whole() && asked.len() > 44, "{} pieces asked for", asked.len());
        assert_eq!(fetch.outputs(), offered.outputs);
        let (_, parts) = fetch.into_parts();
        assert_eq!(parts, (0..40).map(|number| vec![number]).collect::<Vec<_>>());
    }

    #[test]
    fn what_nobody_reads_any_more_comes_in_one() {
        let offered = Offered { parts: 1, outputs: 1000 * OUTPUT_BYTES };
        let mut fetch = Fetch::new(offer(offered), 0).unwrap();
        assert_eq!(fetch.wants().len() as u64, AHEAD);
        assert!(fetch.output(0, OUTPUT_BYTES));
        assert!(fetch.output(OUTPUT_BYTES, 997 * OUTPUT_BYTES));
        // What was asked for of it comes too late.
        assert!(!fetch.output(2 * OUTPUT_BYTES, OUTPUT_BYTES));
        let (offset, bytes) = (998 * OUTPUT_BYTES, OUTPUT_BYTES as u32);
        let rest = [Want::Output { offset, bytes }, Want::Output { offset: offset + OUTPUT_BYTES, bytes }];
        assert_eq!(fetch.wants(), rest);
        assert!(!fetch.output(offset, 3 * OUTPUT_BYTES), "more than there is");
    }

    #[test]
    fn pieces_of_other_offers_and_out_of_turn_are_not_taken() {
        let mut fetch = Fetch::new(offer(Offered { parts: 1, outputs: 4 }), 0).unwrap();
        let base = fetch.offer().base.index;
        assert!(!fetch.output(1, 3) && !fetch.output(0, 5) && !fetch.output(0, 0));
        fetch.part(base + 1, 0, vec![1]);
        fetch.part(base, 1, vec![1]);
        assert!(fetch.output(0, 4) && !fetch.is_whole());
        fetch.part(base, 0, vec![2]);
        fetch.part(base, 1, vec![3]);
        assert!(fetch.is_whole());
    }
}
