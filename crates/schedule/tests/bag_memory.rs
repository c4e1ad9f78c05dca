//! What a waiting task takes; alone in its process, since it looks at the memory of all of it.

use mutirao_schedule::bag::{Event, Needs, Order, Outcome, Scheduler, Task, by_name};
use mutirao_wire::Tick;

const TASKS: u64 = 1_000_000;
const BYTES_A_TASK_MAX: u64 = 200;

#[test]
fn a_million_waiting_tasks_are_small_and_all_run() {
    let before = resident_bytes();
    let mut scheduler = Scheduler::new(by_name("wqr", 2).expect("a known name"), 1);
    let mut orders = Vec::new();
    for task in 0..TASKS {
        scheduler.handle(Tick(0), Event::TaskReady(Task::new(task)), &mut orders);
    }
    let bytes = (resident_bytes() - before) / TASKS;
    assert!(bytes < BYTES_A_TASK_MAX, "a waiting task takes {bytes} bytes");
    for worker in 0..100 {
        let up = Event::WorkerUp { worker, site: 0, offers: Needs::default(), ahead: 4 };
        scheduler.handle(Tick(0), up, &mut orders);
    }
    let mut started = 0;
    let mut next = Vec::new();
    scheduler.place(Tick(0), &mut orders);
    while !orders.is_empty() {
        for order in orders.drain(..) {
            let Order::Start { attempt, .. } = order else { continue };
            started += 1;
            let ended = Event::Ended { attempt, outcome: Outcome::Done, brought_bytes: 0 };
            scheduler.handle(Tick(started), ended, &mut next);
        }
        scheduler.place(Tick(started), &mut next);
        std::mem::swap(&mut orders, &mut next);
    }
    assert_eq!(started, TASKS);
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has this line");
    let kib: u64 = line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number");
    kib * 1024
}
