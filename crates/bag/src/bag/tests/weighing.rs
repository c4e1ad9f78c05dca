//! Tasks go where what they read lies already.

use super::*;
use crate::template::FileName;

fn reads(name: &str, path: &str, after: &[u32]) -> Template {
    let file = FileName { here: Words::plain(path), there: Words::plain(path) };
    Template { inputs: vec![file], after: after.to_vec(), ..shell(name) }
}

fn node_that_runs(world: &World, task: u32) -> NodeId {
    node_of(world.running[&world.attempt_of(task)].1)
}

#[test]
fn a_task_goes_where_what_it_reads_was_read_or_made_whatever_the_order() {
    for swapped in [false, true] {
        let (third, fourth) = if swapped { ("y", "x") } else { ("x", "y") };
        let templates = vec![
            reads("a", "x", &[]),
            reads("b", "y", &[]),
            reads("c", third, &[0, 1]),
            reads("d", fourth, &[0, 1]),
        ];
        let mut draft = draft(templates, &[1, 1, 1, 1]);
        draft.settings.scheduler = "storage-affinity".into();
        draft.settings.replicas = 1;
        let mut world = World::new(draft);
        world.bag.know_length("x".into(), 1000);
        world.bag.know_length("y".into(), 2000);
        world.worker();
        world.worker();
        let nodes = [node_that_runs(&world, 0), node_that_runs(&world, 1)];
        assert_ne!(nodes[0], nodes[1]);
        for task in [0, 1] {
            world.end(world.attempt_of(task), End::Done);
        }
        world.write_all();
        let (of_x, of_y) = if swapped { (3, 2) } else { (2, 3) };
        assert_eq!([node_that_runs(&world, of_x), node_that_runs(&world, of_y)], nodes, "swapped: {swapped}");
        assert_eq!(world.bag.run_counts().brought_bytes, 3000, "each was brought once");
    }
}
