//! An administrator changes the tree of a pool that runs.

mod lab;

use lab::{Lab, busy};
use serde_json::Value;

fn parent(lab: &Lab, name: &str) -> Value {
    lab.nodes().into_iter().find(|row| row["name"] == name).map_or(Value::Null, |row| row["parent"].clone())
}

#[test]
fn nodes_are_moved_removed_and_added_while_the_pool_runs() {
    let lab = Lab::new();
    let file = lab.file("tree", "n1 n2 n3\nn2 n4\nn4 n5\n");
    lab.up_local(5, 2, &["--topology", file.to_str().unwrap()]);

    // What was listed is found at once, however deep in the tree it joined.
    lab.run(["alloc", "-n", "10", "--", "true"]).well();
    lab.until("all is free", || lab.free_slots() == 10);

    // Work goes on meanwhile, on all nodes.
    let calls = lab.flow("n1", "sleep", 40, 10);
    lab.until("the nodes work", || busy(&lab.rows(["ps"]), "n5") == 2);
    lab.run(["tree", "move", "n4", "n3"]).well();
    assert_eq!(parent(&lab, "n4"), "n3");
    assert_eq!(parent(&lab, "n5"), "n4", "what is below it came along");
    calls.end_well();

    let complaint = lab.run(["tree", "move", "n3", "n5"]).complaint();
    assert!(complaint.contains("`n3`") && complaint.contains("`n5`"), "{complaint}");
    assert!(lab.run(["tree", "move", "n1", "n1"]).complaint().contains("`n1`"));
    for unknown in [&["tree", "move", "nobody", "n1"][..], &["tree", "remove", "nobody"]] {
        let complaint = lab.run(unknown).complaint();
        assert!(complaint.contains("`nobody` is not in the pool"), "{complaint}");
    }
    assert_eq!(parent(&lab, "n3"), "n1", "what was refused changed nothing");

    lab.run(["tree", "remove", "n3"]).well();
    lab.until("it is gone and its child is with its parent", || {
        lab.nodes().len() == 4 && parent(&lab, "n4") == "n1"
    });
    lab.run(["tree", "remove", "n5", "--drain"]).well();
    lab.until("it is gone", || lab.nodes().len() == 3);

    // A node that has joined nobody.
    lab.run(["up", "--name", "n5", "--slots", "1", "--listen", "127.0.0.1:0"]).well();
    let alone = lab.run(["--node", "n5", "nodes", "--output", "json"]).json();
    let address = alone[0]["addresses"][0].as_str().unwrap().to_owned();
    assert_eq!(alone.as_array().map(Vec::len), Some(1));
    lab.run(["tree", "add", "n2", &address]).well();
    lab.until("it is there", || parent(&lab, "n5") == "n2");
    let complaint = lab.run(["tree", "add", "n2", "127.0.0.1:9"]).complaint();
    assert!(complaint.contains("127.0.0.1:9"), "{complaint}");
}
