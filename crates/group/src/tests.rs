//! Files of both forms: what they come to, and how their mistakes are told.

use crate::draw;
use crate::plan::{GroupId, Mode, Shape};
use crate::wiring::plan;
use crate::{Application, Strategy};
use proptest::prelude::{TestCaseError, any, prop, prop_assert, prop_assert_eq, proptest};
use proptest::strategy::Strategy as _;

const MANDEL: &str = "\
P rubi
P topazio

T xmandel 1 1 1   # shows
T gmandel 2 1 1
L xmandel 0 aplic/mandel/ rubi -2.5 0.5 -1 1
L gmandel 0 aplic/mandel/ rubi
L gmandel 1 aplic/mandel topazio
C xmandel 0 0 = gmandel 0 0 , gmandel 1 0
C gmandel 0 0,gmandel 1 0=xmandel 0 0
";

const MANDEL_TOML: &str = "\
# The same.
[group]
name = \"mandel\"
collectives = true
stored-mib = 2
restart = \"one-for-one\"
restarts = 5

[program.xmandel]
executable = \"aplic/mandel/xmandel\"
terminal = true
arguments = [\"-2.5\", \"0.5\", \"-1\", \"1\"]
stations = [\"rubi\"]
files = [\"colours\"]
environment = { LANG = \"C\" }

[program.gmandel]
executable = \"aplic/mandel/gmandel\"
instances = 2
stations = [\"rubi\", \"topazio\"]

[[channel]]
from = \"gmandel.*:0\"
to = \"xmandel.0:0\"

[[channel]]
from = \"xmandel.0:0\"
to = [\"gmandel.0:0\", \"gmandel.1:0\"]
mode = \"async\"
";

fn read(text: &str) -> Application {
    Application::read(text, |_, _| None).unwrap()
}

/// All mistakes of a text, a line each.
fn mistakes(text: &str) -> Vec<String> {
    let problems = Application::read(text, |_, _| None).expect_err(text);
    problems.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn begins(text: &str, expected: &[&str]) {
    let told = mistakes(text);
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(expected), "{told}\nwanted: {expected}");
    }
}

#[test]
fn the_sources_own_file_is_understood() {
    let application = read(MANDEL);
    assert_eq!(application.stations, ["rubi", "topazio"]);
    let names: Vec<String> = application.processes.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["xmandel.0", "gmandel.0", "gmandel.1"]);
    let last = &application.processes[2];
    assert_eq!(last.executable, "aplic/mandel/gmandel");
    assert_eq!(last.station.as_deref(), Some("topazio"));
    assert_eq!(application.processes[0].arguments, ["-2.5", "0.5", "-1", "1"]);
    let shapes: Vec<Shape> = application.channels.iter().map(|channel| channel.shape()).collect();
    assert_eq!(shapes, [Shape::ManyToOne, Shape::OneToMany]);
    assert_eq!(application.rank("gmandel.1"), Some(2));
}

#[test]
fn both_forms_say_the_same() {
    let (classic, toml) = (read(MANDEL), read(MANDEL_TOML));
    assert_eq!(toml.stations, classic.stations);
    assert_eq!(toml.settings.restart.strategy, Strategy::OneForOne);
    assert_eq!((toml.settings.restart.most, toml.settings.stored_bytes_max), (5, 2 << 20));
    assert_eq!(toml.channels[1].mode, Some(Mode::Async));
    assert_eq!(toml.processes[0].files, ["colours"]);
    for (one, other) in toml.processes.iter().zip(&classic.processes) {
        assert_eq!((&one.executable, &one.station), (&other.executable, &other.station));
        assert_eq!((one.inputs, one.outputs), (other.inputs, other.outputs));
    }
    for (one, other) in toml.channels.iter().zip(&classic.channels) {
        assert_eq!((&one.inputs, &one.outputs), (&other.inputs, &other.outputs));
    }
}

#[test]
fn plans_lead_to_one_another() {
    let (plans, pipes) = plan(&read(MANDEL_TOML), GroupId(7), "mandel", None, 0);
    assert_eq!(plans.len(), 3);
    let deal = &plans[0].outputs[0];
    assert!(deal.one && deal.shape == Shape::OneToMany && deal.mode == Some(Mode::Async));
    assert_eq!(
        deal.peers.iter().map(|peer| (peer.rank, peer.instance)).collect::<Vec<_>>(),
        [(1, 0), (2, 1)]
    );
    assert!(!plans[1].inputs[0].one);
    assert!(plans[0].inputs[0].one && !plans[2].outputs[0].one);
    // Four pairs of ends, and three ranks that are joined with those one and two further.
    assert_eq!(pipes.len(), 4 + 6);
    assert!(pipes.iter().zip(0..).all(|(pipe, number)| pipe.pipe == number));
    for pipe in &pipes {
        for (rank, other) in [(pipe.a, pipe.b), (pipe.b, pipe.a)] {
            let me = &plans[rank as usize];
            let peers = me.inputs.iter().chain(&me.outputs).flat_map(|port| &port.peers);
            let ends = peers.map(|peer| (peer.pipe, peer.rank));
            let edges = me
                .collectives
                .iter()
                .flat_map(|step| [step.to, step.from])
                .map(|edge| (edge.pipe, edge.rank));
            assert_eq!(ends.chain(edges).filter(|end| *end == (pipe.pipe, other)).count(), 1);
        }
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    begins(
        "P rubi\nP rubi\nT a 2 1 1\nT b 1 1 0\nL a 0 d ruby\nL a 2 d rubi\nL c 0 d rubi\nL a 0 d rubi\n\
         L b 0 d rubi\nC a 0 0 = a 1 0\nC b 0 0 = a 1 0\nC a 1 1 = a 0 0\n",
        &[
            "line 2, column 3: the station `rubi` was declared before, on line 1",
            "line 3, column 3: `a.1` has no place: add `L a 1 <directory> <station>`",
            "line 3, column 3: input channel 0 of `a.1` leads nowhere",
            "line 5, column 9: the station `ruby` is unknown: add `P ruby`, or use one that a P line names; did you mean `rubi`?",
            "line 6, column 3: there is no `a.2`: `a` has 2 instances (line 3)",
            "line 7, column 3: the program `c` is unknown: declare it, or use one that is declared; did you mean `a`?",
            "line 8, column 3: `a.0` has a place already, on line 5",
            "line 11, column 11: output channel 0 of `a.1` is wired already, on line 10",
            "line 12, column 3: `a.1` has no input channel 1: line 3 declares 1 of them",
        ],
    );
}

#[test]
fn lines_that_cannot_be_read_are_shown_how() {
    begins(
        "X y\nP\nP a b\nT p 1 1\nT p one 1 1\nT -p 1 1 1\nL p 0 d\nC p 0 0\nC p 0 0 = , p 1 0\nC p 0 = p 1 0\nC = =\n",
        &[
            "line 1, column 1: `X` is no command",
            "line 2, column 2: the station is missing; the form is `P <station>`",
            "line 3, column 5: there is more than belongs",
            "line 4, column 8: numbers are missing; the form is `T <program>",
            "line 5, column 5: `one` is not a number for instances",
            "line 6, column 3: `-p` cannot be the name of a program",
            "line 7, column 8: the station is missing",
            "line 8, column 8: there is no `=`",
            "line 9, column 18: an end is missing",
            "line 10, column 3: the end at `p` is not three words",
            "line 11, column 6: there is a second `=`",
        ],
    );
    begins("", &["line 1, column 1: no program is declared"]);
    begins("T a 0 0 0\n", &["line 1, column 3: `a` has no instances"]);
}

#[test]
fn lists_on_both_sides_and_circles_are_refused() {
    let head = "P r\nT a 2 1 1\nL a 0 d r\nL a 1 d r\n";
    begins(
        &format!("{head}C a 0 0, a 1 0 = a 0 0, a 1 0\n"),
        &[
            "line 5, column 1: there are lists on both sides",
            "line 5, column 3: `a.0` would be joined with itself",
            "line 5, column 10: `a.1` would be joined with itself",
        ],
    );
}

#[test]
fn missing_files_are_told_where_they_are_named() {
    let look = |path: &str, executable: bool| {
        (path == "aplic/mandel/gmandel").then(|| format!("is not there ({executable})"))
    };
    let problems = Application::read(MANDEL, look).unwrap_err();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["line 7, column 13: `aplic/mandel/gmandel` is not there (true)"]);
}

#[test]
fn the_toml_form_tells_places_too() {
    let program = "[program.a]\nexecutable = \"a\"\n";
    let channel = |from: &str, to: &str| format!("{program}[[channel]]\nfrom = \"{from}\"\nto = {to}\n");
    begins(&channel("a:0", "\"b.0:0\""), &["line 4, column 8: `a:0` is no end of a channel"]);
    begins(
        &channel("a.1:0", "[\"b.0:0\"]"),
        &[
            "line 4, column 8: there is no `a.1`: `a` has 1 instance (line 1)",
            "line 5, column 7: the program `b` is unknown: declare it, or use one that is declared; did you mean `a`?",
        ],
    );
    begins("[program.a]\n", &["line 1, column 1: `executable` is missing"]);
    begins(
        "[program.a]\nexecutable = 1\n",
        &["line 2, column 14: a text in quotes is expected here, not `1`"],
    );
    begins("[group]\nwrong = 1\n", &["line 2, column 1: there is no setting `wrong` here; there is "]);
    // Of each table what is wrong there.
    begins(
        "[group]\nwrong = 1\n[program.a]\n[[channel]]\nfrom = 7\nto = \"a.0:0\"\n[[channel]]\nfrom = \"a.0:0\"\n[more]\n",
        &[
            "line 2, column 1: there is no setting `wrong` here",
            "line 3, column 1: `executable` is missing",
            "line 5, column 8: ",
            "line 7, column 1: `to` is missing",
        ],
    );
    begins("[group]\nname = \"a\"\n[more]\n", &["line 3, column 2: there is no setting `more` here"]);
    begins(
        &format!("{program}instances = 3\nstations = [\"x\", \"y\"]\n"),
        &["line 4, column 12: 2 stations for 3 instances of `a`"],
    );
}

#[test]
fn more_than_can_be_is_refused_before_it_takes_memory() {
    let program = |i| format!("[program.p{i}]\nexecutable = \"x\"\ninstances = 1000\n");
    let channel = "[[channel]]\nfrom = \"p0.0:0\"\nto = \"p1.*:0\"\n";
    let text: String = (0..3).map(program).chain((0..30).map(|_| channel.to_owned())).collect();
    let told = mistakes(&text);
    assert!(told.iter().any(|told| told.starts_with("line 4, column 10: too many processes")), "{told:#?}");
    assert!(told.iter().any(|told| told.contains("too many channels")), "{told:#?}");
    assert!(mistakes(&" ".repeat(crate::limits::FILE_BYTES_MAX + 1))[0].contains("too many bytes"));
}

#[test]
fn drawings_show_the_wiring() {
    let application = read(MANDEL);
    assert_eq!(
        draw::text(&application),
        "xmandel.0 on rubi\n└─ 0 ─▶ gmandel.0:0 | gmandel.1:0  (whoever asks first)\n\
         gmandel.0 on rubi\n└─ 0 ─▶ xmandel.0:0\ngmandel.1 on topazio\n└─ 0 ─▶ xmandel.0:0\n"
    );
    let dot = draw::dot(&application);
    assert!(
        dot.contains("subgraph \"cluster_topazio\" {\n    label=\"topazio\";\n    \"gmandel.1\";"),
        "{dot}"
    );
    assert_eq!(dot.matches(" -> ").count(), 4);
    let svg = draw::svg(&application);
    assert_eq!((svg.matches("<text").count(), svg.matches("Q").count()), (3, 4));
}

/// A classic file of a random application, all of it wired.
fn wired() -> impl proptest::strategy::Strategy<Value = String> {
    (prop::collection::vec(1u32..4, 1..5), any::<u64>()).prop_map(|(counts, seed)| {
        let processes: Vec<(usize, u32)> =
            counts.iter().enumerate().flat_map(|(p, count)| (0..*count).map(move |i| (p, i))).collect();
        let mut text = String::from("P r\n");
        let (mut chance, mut channels) = (seed, String::new());
        let mut ports = vec![(0u32, 0u32); counts.len()];
        // One channel from each program to another: from its first instance to all of that one's.
        for from in 0..counts.len() {
            chance = chance.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let to = (chance >> 33) as usize % counts.len();
            if to == from || counts[from] != 1 {
                continue;
            }
            let list: Vec<String> = (0..counts[to]).map(|i| format!("p{to} {i} {}", ports[to].0)).collect();
            channels += &format!("C {} = p{from} 0 {}\n", list.join(" , "), ports[from].1);
            ports[to].0 += 1;
            ports[from].1 += 1;
        }
        for (p, count) in counts.iter().enumerate() {
            text += &format!("T p{p} {count} {} {}\n", ports[p].0, ports[p].1);
        }
        for (p, i) in processes {
            text += &format!("L p{p} {i} d r a{i}\n");
        }
        text + &channels
    })
}

proptest! {
    #[test]
    fn whatever_is_wired_is_planned(text in wired()) {
        let application = Application::read(&text, |_, _| None).map_err(|p| TestCaseError::fail(format!("{p:?}\n{text}")))?;
        let (plans, pipes) = plan(&application, GroupId(1), "g", None, 0);
        let ends: usize = plans.iter().flat_map(|plan| plan.inputs.iter().chain(&plan.outputs)).map(|port| port.peers.len()).sum();
        prop_assert_eq!(ends, 2 * pipes.len());
        for port in plans.iter().flat_map(|plan| plan.inputs.iter().chain(&plan.outputs)) {
            prop_assert!(!port.peers.is_empty());
        }
    }

    #[test]
    fn any_text_is_read_or_refused_with_places(
        lines in prop::collection::vec("([PTLCX]|\\[program.a\\]|executable|\\[\\[channel\\]\\])( ?[a-c0-3=,#\"']{0,4}){0,8}", 0..12)
    ) {
        let text = lines.join("\n");
        match Application::read(&text, |_, _| None) {
            Ok(application) => prop_assert!(!application.processes.is_empty()),
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                for problem in &problems {
                    prop_assert!(problem.at.line >= 1 && problem.at.line <= lines.len().max(1), "{}", problem);
                    prop_assert!(problem.at.column >= 1, "{}", problem);
                }
            }
        }
    }
}
