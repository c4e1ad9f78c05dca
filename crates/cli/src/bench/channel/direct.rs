//! Two processes that are joined without any node, as the nodes join them.

use super::super::{pin, unpin};
use super::process::{STORED, SYNC, answer};
use anyhow::{Context, Result};
use mutirao::group::plan::{GroupId, Peer, PortPlan, ProcessPlan, Shape};
use mutirao::group::{Direct, Group, Over};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

fn plan(rank: u32) -> ProcessPlan {
    let port = |out: bool, number: u32| PortPlan {
        mode: None,
        one: true,
        shape: Shape::OneToOne,
        peers: vec![Peer {
            pipe: u64::from(if out { rank } else { 1 - rank }) * 2 + u64::from(number),
            program: "bench".into(),
            instance: 1 - rank,
            port: number,
            rank: 1 - rank,
        }],
    };
    ProcessPlan {
        group: GroupId(0),
        name: "bench".into(),
        program: "bench".into(),
        instance: rank,
        rank,
        size: 2,
        inputs: vec![port(false, SYNC), port(false, STORED)],
        outputs: vec![port(true, SYNC), port(true, STORED)],
        collectives: Vec::new(),
        stored_bytes_max: 64 << 20,
        spill: false,
        record: None,
    }
}

/// The two processes, of which this is the one that measures.
pub struct Two {
    /// This one's place.
    pub group: Group,
    _direct: Direct,
    child: Child,
}

impl Two {
    /// Starts the other and keeps this one on processor 0, the other on processor 1.
    pub fn start(over: Over) -> Result<Two> {
        unpin(None)?;
        let (direct, places) = Direct::new(&[plan(0), plan(1)], over)?;
        let [ours, theirs] = <[_; 2]>::try_from(places).ok().context("two processes have two places")?;
        let child = Command::new(std::env::current_exe()?)
            .args(["floor-peer", "channel", "-", "-"])
            .stdin(Stdio::from(theirs))
            .spawn()
            .context("cannot start the other process")?;
        let group = Group::join(ours)?;
        // Not before it has joined: a process that may use one processor never spins.
        pin(None, 0)?;
        Ok(Two { group, _direct: direct, child })
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other process: its place in the group is its standard input.
pub fn peer() -> Result<()> {
    let group = Group::join(std::io::stdin().as_fd().try_clone_to_owned()?)?;
    pin(None, 1)?;
    answer(&group)
}
