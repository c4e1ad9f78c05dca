//! Groups of C programs, joined directly: which node starts them is no matter of theirs.

use crate::support::{Linking, Scene, compile, root};
use mutirao::group::plan::{GroupId, Peer, PortPlan, ProcessPlan, Shape};
use mutirao::group::{Direct, Over};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn plan(program: &str, instance: u32, rank: u32, size: u32) -> ProcessPlan {
    ProcessPlan {
        group: GroupId(3),
        name: "test".into(),
        program: program.into(),
        instance,
        rank,
        size,
        inputs: Vec::new(),
        outputs: Vec::new(),
        collectives: Vec::new(),
        stored_bytes_max: 1 << 20,
        spill: false,
        record: None,
    }
}

/// Joins the next output channel of some to the next input channel of others.
fn join(plans: &mut [ProcessPlan], from: &[u32], to: &[u32]) {
    let shape = match (from.len(), to.len()) {
        (1, 1) => Shape::OneToOne,
        (1, _) => Shape::OneToMany,
        _ => Shape::ManyToOne,
    };
    // Of each the same number of channels is joined already.
    let (port_out, port_in) = (plans[from[0] as usize].outputs.len(), plans[to[0] as usize].inputs.len());
    let peer = |from: u32, to: u32, there: u32, port: usize, plans: &[ProcessPlan]| Peer {
        pipe: u64::from(from) * 1000 + u64::from(to) + port_out as u64 * 100_000,
        program: plans[there as usize].program.clone(),
        instance: plans[there as usize].instance,
        port: port as u32,
        rank: there,
    };
    for f in from {
        let peers = to.iter().map(|t| peer(*f, *t, *t, port_in, plans)).collect();
        plans[*f as usize].outputs.push(PortPlan { mode: None, one: from.len() == 1, shape, peers });
    }
    for t in to {
        let peers = from.iter().map(|f| peer(*f, *t, *f, port_out, plans)).collect();
        plans[*t as usize].inputs.push(PortPlan { mode: None, one: to.len() == 1, shape, peers });
    }
}

/// A process that finds its place in the group as descriptor 3; it is given as standard input, which can be any.
fn in_group(scene: &Scene, program: &Path, place: OwnedFd) -> Command {
    let mut command = scene.command(Path::new("/bin/sh"), None);
    command
        .args(["-c", "exec 3<&0 </dev/null; exec \"$@\"", "sh"])
        .arg(program)
        .env("MUTIRAO_GROUP_FD", "3")
        .stdin(Stdio::from(place));
    command
}

fn example(scene: &Scene, name: &str) -> std::path::PathBuf {
    compile(&root().join("examples/c/group").join(name), scene.directory.path(), Linking::Shared)
}

fn finish(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_application_of_the_sources_draws_the_mandelbrot_set() {
    let scene = Scene::new();
    let (xmandel, gmandel) = (example(&scene, "xmandel.c"), example(&scene, "gmandel.c"));
    for over in [Over::Rings(64 * 1024), Over::Sockets] {
        let mut plans = vec![plan("xmandel", 0, 0, 3), plan("gmandel", 0, 1, 3), plan("gmandel", 1, 2, 3)];
        join(&mut plans, &[1, 2], &[0]);
        join(&mut plans, &[0], &[1, 2]);
        let (direct, places) = Direct::new(&plans, over).unwrap();
        let mut places = places.into_iter();
        let mut master = in_group(&scene, &xmandel, places.next().unwrap());
        master.args(["-2.5", "0.5", "-1.5", "1.5", "90", "2"]);
        let generators: Vec<Child> = places
            .map(|place| in_group(&scene, &gmandel, place).stderr(Stdio::piped()).spawn().unwrap())
            .collect();
        let mut output = None;
        let file = scene.directory.path().join("picture.pgm");
        master.stdout(std::fs::File::create(&file).unwrap());
        let status = master.spawn().unwrap().wait().unwrap();
        if status.success() {
            output = std::fs::read(&file).ok();
        }
        generators.into_iter().for_each(finish);
        let picture = output.expect("xmandel has ended well");
        let head = b"P5 90 90 255\n";
        assert!(picture.starts_with(head));
        assert_eq!(picture.len(), head.len() + 90 * 90);
        let point = |x: usize, y: usize| picture[head.len() + y * 90 + x];
        // The origin never escapes, the corner does at once.
        assert_eq!((point(75, 45), point(0, 0)), (255, 1));
        drop(direct);
    }
}

#[test]
fn channels_do_in_c_what_the_header_says() {
    let scene = Scene::new();
    let source = root().join("crates/capi/tests/c/channels.c");
    let program = compile(&source, scene.directory.path(), Linking::Shared);
    for over in [Over::Rings(64 * 1024), Over::Sockets] {
        let mut plans = vec![plan("channels", 0, 0, 2), plan("channels", 1, 1, 2)];
        join(&mut plans, &[0], &[1]);
        join(&mut plans, &[0], &[1]);
        join(&mut plans, &[1], &[0]);
        let (direct, places) = Direct::new(&plans, over).unwrap();
        let both: Vec<Child> = places
            .into_iter()
            .map(|place| in_group(&scene, &program, place).stderr(Stdio::piped()).spawn().unwrap())
            .collect();
        both.into_iter().for_each(finish);
        drop(direct);
    }
}

#[test]
fn a_ring_counts_its_processes() {
    let scene = Scene::new();
    let ring = example(&scene, "ring.c");
    let mut plans: Vec<ProcessPlan> = (0..4).map(|rank| plan("ring", rank, rank, 4)).collect();
    (0..4).for_each(|rank| join(&mut plans, &[rank], &[(rank + 1) % 4]));
    let (direct, places) = Direct::new(&plans, Over::Rings(4096)).unwrap();
    let mut places = places.into_iter();
    let first = places.next().unwrap();
    let others: Vec<Child> = places
        .map(|place| in_group(&scene, &ring, place).arg("next").stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    let output = in_group(&scene, &ring, first).arg("first").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "4 processes\n", "{output:?}");
    others.into_iter().for_each(finish);
    drop(direct);
}

#[test]
fn a_program_outside_a_group_is_told_how_to_start_it() {
    let scene = Scene::new();
    let ring = example(&scene, "ring.c");
    let output = scene.command(&ring, None).env_remove("MUTIRAO_GROUP_FD").output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("mutirao group run"), "{said}");
}
