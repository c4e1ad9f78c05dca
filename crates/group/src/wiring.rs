//! From an application to what each process is told.

use crate::application::{Application, Channel, End};
use crate::plan::{Edge, GroupId, Peer, PortPlan, ProcessPlan, Shape, Step};
use crate::record::Depth;

/// The pipe between the master and a process, in one of its lives. Numbers stay below those that homes give
/// (`mutirao_wire::pipe::GUEST_PIPES`).
pub fn console_pipe(rank: u32, life: u32) -> u64 {
    1 << 62 | u64::from(life & 0x3fff_ffff) << 32 | u64::from(rank)
}

/// A pipe between two processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PipePlan {
    /// Its number.
    pub pipe: u64,
    /// The rank at one end,
    pub a: u32,
    /// and at the other.
    pub b: u32,
}

/// What all processes are told, by rank, and the pipes there must be: one for each pair of ends that a channel joins,
/// and those of the collectives. `turn` says how often this group was joined before, for fresh numbers.
pub fn plan(
    application: &Application,
    group: GroupId,
    name: &str,
    record: Option<Depth>,
    turn: u32,
) -> (Vec<ProcessPlan>, Vec<PipePlan>) {
    let size = application.processes.len() as u32;
    // Stands until `join` comes to it: in a checked application every end is joined.
    let unwired = PortPlan { mode: None, one: true, shape: Shape::OneToOne, peers: Vec::new() };
    let mut plans: Vec<ProcessPlan> = application
        .processes
        .iter()
        .zip(0..)
        .map(|(process, rank)| ProcessPlan {
            group,
            name: name.to_owned(),
            program: process.program.clone(),
            instance: process.instance,
            rank,
            size,
            inputs: vec![unwired.clone(); process.inputs as usize],
            outputs: vec![unwired.clone(); process.outputs as usize],
            collectives: Vec::new(),
            stored_bytes_max: application.settings.stored_bytes_max,
            spill: application.settings.spill,
            record,
        })
        .collect();
    let mut pipes = Pipes { first: u64::from(turn & 0x3f_ffff) << 40, list: Vec::new() };
    for channel in &application.channels {
        join(channel, &mut plans, &mut pipes);
    }
    if application.settings.collectives {
        join_all(&mut plans, &mut pipes);
    }
    (plans, pipes.list)
}

/// Pipes, numbered as they come.
struct Pipes {
    first: u64,
    list: Vec<PipePlan>,
}

impl Pipes {
    /// The number of the next.
    fn next(&self) -> u64 {
        self.first + self.list.len() as u64
    }
}

fn join(channel: &Channel, plans: &mut [ProcessPlan], pipes: &mut Pipes) {
    let (mode, shape) = (channel.mode, channel.shape());
    let port = |ends: &[End]| PortPlan { mode, shape, one: ends.len() == 1, peers: Vec::new() };
    for output in &channel.outputs {
        plans[output.rank as usize].outputs[output.port as usize] = port(&channel.outputs);
    }
    for input in &channel.inputs {
        plans[input.rank as usize].inputs[input.port as usize] = port(&channel.inputs);
        for output in &channel.outputs {
            let pipe = pipes.next();
            pipes.list.push(PipePlan { pipe, a: output.rank, b: input.rank });
            let to = peer(plans, pipe, *input);
            plans[output.rank as usize].outputs[output.port as usize].peers.push(to);
            let from = peer(plans, pipe, *output);
            plans[input.rank as usize].inputs[input.port as usize].peers.push(from);
        }
    }
}

fn peer(plans: &[ProcessPlan], pipe: u64, End { rank, port }: End) -> Peer {
    let ProcessPlan { program, instance, .. } = &plans[rank as usize];
    Peer { pipe, program: program.clone(), instance: *instance, port, rank }
}

/// Joins every rank with those a power of two further, round the circle: what a barrier in so many rounds wants.
fn join_all(plans: &mut [ProcessPlan], pipes: &mut Pipes) {
    let size = plans.len() as u32;
    for step in (0..).map(|power| 1_u32 << power).take_while(|step| *step < size) {
        let first = pipes.next();
        let pipe_from = |rank: u32| first + u64::from(rank);
        for rank in 0..size {
            let (further, back) = ((rank + step) % size, (rank + size - step) % size);
            pipes.list.push(PipePlan { pipe: pipe_from(rank), a: rank, b: further });
            plans[rank as usize].collectives.push(Step {
                to: Edge { pipe: pipe_from(rank), rank: further },
                from: Edge { pipe: pipe_from(back), rank: back },
            });
        }
    }
}
