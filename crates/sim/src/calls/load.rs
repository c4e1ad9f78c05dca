//! What programs with calls do in a run under faults.

use super::Program;
use super::ledger::operation;
use crate::programs::plugin;
use crate::scenario::{Plan, settle};
use crate::world::World;
use core::time::Duration;
use mutirao_schedule::hold::{Call, Input};
use mutirao_wire::AppId;
use mutirao_wire::local::Leave;
use mutirao_wire::node::Want;

/// By when all calls must be over once the faults have stopped.
const OVER_BY: Duration = Duration::from_secs(180);
/// Bytes of arguments.
const SIZES: [u32; 6] = [0, 8, 46, 47, 5_000, 120_000];

impl World {
    /// Adds a program with calls to a node.
    pub(crate) fn open_program(&mut self, node: usize) -> AppId {
        let id = self.open(node);
        let copies = self.random.chance(70);
        if let Some(app) = self.nodes[node].apps.get_mut(&id) {
            app.program = Some(Box::new(Program::new(node, id, copies)));
        }
        id
    }

    /// Programs and the nodes they are at home on.
    fn programs(&self) -> Vec<(usize, AppId)> {
        let of = |(index, node): (usize, &crate::Node)| {
            let apps = node.apps.values().filter(|app| app.has_calls());
            apps.map(move |app| (index, app.id)).collect::<Vec<_>>()
        };
        self.nodes.iter().enumerate().flat_map(of).collect()
    }
}

/// Something happens to the calls of some program.
pub(crate) fn work(world: &mut World) {
    let programs = world.programs();
    let Some(&(node, app)) = programs.get(world.random.below(programs.len())) else { return };
    match world.random.below(20) {
        0 => world.break_data(),
        1 => world.crash_worker(),
        2 => world.with_program(node, app, |world, program| {
            let calls = world.calls.ledger.unfinished(app);
            for _ in 0..1 + world.random.below(4) {
                if let Some(call) = calls.get(world.random.below(calls.len())) {
                    world.cancel_call(program, *call);
                }
            }
            world.turn_ends(program);
        }),
        3 => world.with_program(node, app, |world, program| {
            let handles = program.handles();
            if let Some(&handle) = handles.get(world.random.below(handles.len())) {
                let leave = [Leave::Finish, Leave::Rerun, Leave::Abandon][world.random.below(3)];
                if leave == Leave::Abandon {
                    world.calls.ledger.lease_ended(app, handle, false);
                }
                world.tell_hold(program, Input::Retire { handle, leave });
            }
            world.turn_ends(program);
        }),
        _ => world.with_program(node, app, |world, program| {
            for _ in 0..1 + world.random.below(30) {
                submit(world, program);
            }
            world.turn_ends(program);
        }),
    }
}

fn submit(world: &mut World, program: &mut Program) {
    use operation::{CRASH, ECHO, FAIL, LARGE, LONG, SLOW, STALL};
    const USUAL: [u32; 6] = [ECHO, ECHO, ECHO, SLOW, SLOW, LONG];
    let random = &mut world.random;
    let operation = match random.below(60) {
        0 => FAIL,
        1 => STALL,
        2 => LARGE,
        3 => CRASH,
        n => USUAL[n % USUAL.len()],
    };
    let limited = operation == STALL || random.chance(5);
    let limit_ms = if limited { 5 + random.below(500) as u32 } else { 0 };
    let sizes = if random.chance(90) { SIZES.len() - 1 } else { SIZES.len() };
    let bytes = SIZES[random.below(sizes)];
    let repeatable = random.chance(50);
    let handles = program.handles();
    let only = if random.chance(3) { handles.get(random.below(handles.len())).copied() } else { None };
    world.submit(program, Call { operation, bytes, repeatable, limit_ms, only });
}

/// The faults have stopped: programs with unfinished calls get slots where they need some, those without go;
/// in the end every call is over and nothing is left of them.
pub(crate) fn finish(plan: &Plan, world: &mut World) -> Result<(), String> {
    let by = world.now() + OVER_BY;
    let mut sequence = 1_000_000;
    loop {
        let programs = world.programs();
        let Some(&(node, app)) = programs.first() else { break };
        if world.now() >= by {
            let calls = world.calls.ledger.unfinished(app).len();
            let program = world.nodes[node].apps.get(&app).and_then(|app| app.program.as_ref());
            let state = program.map(|program| program.describe()).unwrap_or_default();
            return Err(format!("{calls} calls of {app:?} on n{node} are never over: {state}"));
        }
        for (node, app) in programs {
            if world.calls.ledger.unfinished(app).is_empty() {
                world.close(node, app);
                continue;
            }
            let idle = world.nodes[node].apps.get(&app).is_some_and(|app| app.leases.is_empty());
            if idle {
                sequence += 1;
                let asker = world.asker(node, app, Some(plugin(1)));
                world.request(node, asker, sequence, Want::default(), 0);
            }
        }
        world.run(Duration::from_secs(1));
    }
    settle(plan, world)?;
    world.check_no_calls_left()
}
