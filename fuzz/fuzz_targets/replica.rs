//! A member of a journal that three keep: whatever its disk holds, and whatever the others say, it lives on; and what
//! it wrote meanwhile it reads again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mutirao_replica::{Kept, Line, Member, Timing};

const TIMING: Timing = Timing { heartbeat: 2, election: 10 };

fn start(lines: &[Line]) -> Option<Member> {
    let mut kept = Kept::default();
    let is_read = lines.iter().enumerate().all(|(at, line)| kept.read(line, at as u64));
    let lines = lines.to_vec();
    let cold = move |at: u64| match lines.get(usize::try_from(at).ok()?)? {
        Line::Entry { data, .. } => Some(data.clone()),
        _ => None,
    };
    (is_read && kept.is_whole(3)).then(|| Member::new(2, 3, TIMING, kept, vec![1], Box::new(cold)))
}

fn settle(member: &mut Member, lines: &mut Vec<Line>) {
    while let Some(work) = member.work() {
        if !work.base.is_empty() {
            *lines = vec![Line::Part(vec![1])];
            lines.extend(work.base);
        }
        let places: Vec<u64> = (lines.len() as u64..).take(work.lines.len()).collect();
        lines.extend(work.lines);
        lines.extend(member.written(&places).line);
    }
}

fuzz_target!(|input: (Vec<Vec<u8>>, Vec<(u8, Vec<u8>)>)| {
    let (disk, steps) = input;
    let mut lines: Vec<Line> = disk.iter().filter_map(|line| postcard::from_bytes(line).ok()).collect();
    let Some(mut member) = start(&lines) else { return };
    let mut offer = None;
    for (what, bytes) in steps {
        match what {
            0..5 => {
                if let Ok(Some(offered)) = member.hear(what.into(), &bytes) {
                    offer = Some(offered);
                }
            }
            5 => (0..20).for_each(|_| member.tick()),
            6 => drop(member.propose(bytes)),
            7 => member.campaign(),
            8 => {
                if let Some(offer) = offer.take() {
                    member.take(offer);
                }
            }
            9 => {
                if let Some(compact) = member.compact(2) {
                    lines = vec![Line::Part(vec![1]), compact.head.clone()];
                    let places: Vec<u64> = (2..).take(compact.entries.len()).collect();
                    lines.extend(compact.entries.iter().cloned());
                    lines.push(compact.state.clone());
                    member.compacted(&compact, vec![1], &places);
                }
            }
            10 => member.mend(bytes.len() as u64),
            _ => continue,
        }
        settle(&mut member, &mut lines);
    }
    assert!(start(&lines).is_some(), "what it wrote makes no sense: {lines:?}");
});
