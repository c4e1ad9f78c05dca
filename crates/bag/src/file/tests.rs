use super::*;
use crate::template::Work;
use crate::words::Named;
use proptest::prelude::*;

fn load(name: &str) -> Result<Vec<u8>, String> {
    match name {
        "answer" => Ok(vec![0xff, 0, 1]),
        "list.txt" => Ok("first line\n\nsecond\n".into()),
        other => Err(format!("there is no {other}")),
    }
}

fn read_text(text: &str) -> Result<Draft, Error> {
    read(text, Settings::default(), &load)
}

fn commands(draft: &Draft) -> Vec<String> {
    let command = |(number, task): (usize, &crate::record::NewTask)| {
        let named = Named { task: number as u64, values: &task.values };
        match &draft.templates[task.template as usize].work {
            Work::Shell(words) => words.fill_quoted(&named),
            Work::Program(words) => words.iter().map(|word| word.fill(&named)).collect::<Vec<_>>().join("|"),
            Work::Ipar { .. } => String::new(),
            Work::Operation { name, argument, .. } => format!("{name}({})", argument.fill(&named)),
        }
    };
    draft.tasks.iter().enumerate().map(command).collect()
}

#[test]
fn a_grid_is_all_combinations_and_an_array_is_row_by_row() {
    let draft = read_text(
        "[task.solve]\ncommand = ['solve', '{b}', '{alpha}', '{n}']\n\
         grid = { b = ['x y', 2], alpha = { from = 0.1, to = 0.3, step = 0.1 } }\narray = { n = [1, 0x10] }\n",
    )
    .unwrap();
    let commands = commands(&draft);
    assert_eq!(commands.len(), 12);
    assert_eq!(commands[..3], ["solve|x y|0.1|1", "solve|x y|0.1|16", "solve|x y|0.2|1"]);
    assert_eq!(commands[11], "solve|2|0.3|16");
}

#[test]
fn a_bag_may_be_of_a_programs_operations() {
    let draft = read_text(
        "program = './p'\n[task.a]\noperation = 'square'\nargument = '{n}'\narray = { n = [1, 2] }\n",
    )
    .unwrap();
    assert_eq!(commands(&draft), ["square(1)", "square(2)"]);
    assert_eq!(draft.settings.program.unwrap().path, "./p");
}

#[test]
fn lines_of_a_file_and_repeats_make_tasks() {
    let draft =
        read_text("[task.a]\ncommand = 'echo {line} {repeat}'\nlines = 'list.txt'\nrepeat = 2\n").unwrap();
    let expected = ["echo 'first line' 1", "echo 'first line' 2", "echo second 1", "echo second 2"];
    assert_eq!(commands(&draft), expected);
}

#[test]
fn tasks_come_after_those_they_wait_for() {
    let draft = read_text(
        "name = 'n'\n[task.join]\ncommand = 'j'\nafter = ['solve', 'prepare']\n[task.solve]\ncommand = 's'\n\
         after_each = ['prepare']\n[task.prepare]\ncommand = 'p'\n",
    )
    .unwrap();
    let names: Vec<&str> = draft.templates.iter().map(|template| template.name.as_str()).collect();
    assert_eq!(names, ["prepare", "solve", "join"]);
    assert_eq!((&draft.templates[2].after, &draft.templates[1].after_each), (&vec![1, 0], &vec![0]));
}

#[test]
fn everything_a_task_may_say_is_read() {
    let draft = read_text(
        "scheduler = 'workqueue'\nreplicas = 3\nslots_max = 7\nnodes = ['n1']\nlabels = ['ssd']\nlist = 'l.txt'\n\
         [defaults]\nretries = 4\nenvironment = { A = '1' }\n[task.a]\ncommand = 'c'\ncores = 3\nmemory = '1.5GiB'\n\
         resources = { gpu = 1 }\ntime_limit = '90s'\npriority = -2\ncrash_limit = 5\nstdin = 'in'\nretries = 1\n\
         inputs = ['/data/in.bin', { here = '../x', there = 'x' }]\noutputs = ['out/{task}.txt']\n",
    )
    .unwrap();
    let template = &draft.templates[0];
    assert_eq!((template.slots, template.memory_mib, template.limit_ms), (3, 1536, Some(90_000)));
    assert_eq!((template.priority, template.retries, template.crash_limit), (-2, 1, 5));
    assert_eq!(template.resources.len() + template.environment.len(), 2);
    assert!(template.has_playpen());
    let named = Named { task: 7, values: &[] };
    let there: Vec<String> =
        template.inputs.iter().chain(&template.outputs).map(|f| f.there.fill(&named)).collect();
    assert_eq!(there, ["in.bin", "x", "out/7.txt"]);
    assert_eq!((draft.settings.slots_max, draft.settings.replicas), (7, 3));
}

#[test]
fn known_answers_are_compared_as_results_are() {
    use crate::checks::{Accept, Checks, content_hash};
    let draft = read_text(
        "[results]\naccept = 'majority of 3'\nspot_checks = 0.05\nliars = 0.2\n\
         [task.a]\ncommand = 'c {n}'\narray = { n = [1] }\noutputs = ['out-{n}']\n\
         known = [{ values = { n = 7 }, stdout = \"49\\n\", outputs = { out-7 = 'answer' } }]\n",
    )
    .unwrap();
    let checks =
        Checks { accept: Accept::Majority { of: 3 }, spot_millionths: 50_000, liars_millionths: 200_000 };
    assert_eq!(draft.settings.checks, checks);
    let known = &draft.templates[0].known[0];
    assert_eq!(&*known.values[0], "7");
    assert_eq!(known.result, content_hash(b"49\n", [("out-7", &[0xff, 0, 1][..])], ""));
}

#[test]
fn what_is_wrong_is_told_where_it_stands() {
    let cases = [
        ("[results]\naccept = 'majority of 1'\n[task.a]\ncommand = 'x'\n", 2, 10, "no majority"),
        ("[results]\nspot_checks = 1\n[task.a]\ncommand = 'x'\n", 2, 15, "less than 1"),
        ("[results]\nliars = 0.5\n[task.a]\ncommand = 'x'\n", 2, 9, "below 0.5"),
        ("[results]\nall = 1\n[task.a]\ncommand = 'x'\n", 2, 1, "no setting `all`"),
        ("[task.a]\ncommand = 'x'\nknown = [{}]\n", 3, 10, "`stdout`, `outputs` or both"),
        (
            "[task.a]\ncommand = '{n}'\narray = { n = [1] }\nknown = [{ stdout = '' }]\n",
            4,
            10,
            "parameters: n",
        ),
        ("[task.a]\ncommand = 'x'\noutputs = ['o']\nknown = [{ stdout = '' }]\n", 4, 10, "as `o` must be"),
        ("members = ['a', 'b']\n[task.a]\ncommand = 'x'\n", 1, 11, "by 1 or 3 nodes, not by 2"),
        ("members = ['a', 'b', 'a']\n[task.a]\ncommand = 'x'\n", 1, 11, "`a` is named twice"),
        ("name = 'a'\n", 1, 1, "there is no task"),
        ("[task.a]\noperation = 'x'\n", 1, 7, "of which `program`"),
        ("program = 'p'\n[task.a]\ncommand = 'x'\n", 2, 7, "its tasks are operations"),
        ("program = 'p'\n[task.a]\noperation = 'x'\nstdin = 'y'\n", 2, 7, "has no `inputs`"),
        ("[task.a]\ncommand = 'x {y}'\n", 2, 11, "no parameter `y`"),
        ("[task.a]\ncommand = 'x'\ncoers = 2\n", 3, 1, "no setting `coers`; did you mean `cores`?"),
        ("[task.a]\ncores = 1\ncomand = 'x'\n", 3, 1, "no setting `comand`; did you mean `command`?"),
        ("[task.a]\nopertion = 'x'\n", 2, 1, "did you mean `operation`?"),
        ("nmae = 'n'\n[task.a]\ncommand = 'x'\n", 1, 1, "did you mean `name`?"),
        ("[tsak.a]\ncommand = 'x'\n", 1, 2, "did you mean `task`?"),
        ("[task.a]\ncommand = 'x'\ncores = 0\n", 3, 9, "whole number from 1"),
        ("[task.a]\ncommand = 'x'\nmemory = '2'\n", 3, 10, "2GiB"),
        ("[task.a]\ncommand = 'x'\nafter = ['b']\n", 3, 10, "no task `b`"),
        ("[task.a]\ncommand = 'x'\nafter = ['a']\n", 3, 10, "waits for this task"),
        ("[task.a]\n", 1, 7, "no `command`"),
        ("[task.a]\ncommand = 'x\n", 2, 13, ""),
        ("scheduler = 'best'\n[task.a]\ncommand = 'x'\n", 1, 13, "no scheduler"),
        ("[task.a]\ncommand = '{a}{b}'\narray = { a = [1], b = [1, 2] }\n", 3, 24, "`b` has 2, those before"),
        ("[task.a]\ncommand = '{a}'\ngrid = { a = { from = 2, to = 1 } }\n", 3, 23, "greater"),
        ("[task.a]\ncommand = 'x'\nlines = 'none'\n", 3, 9, "there is no none"),
        ("[task.a]\ncommand = 'x'\noutputs = ['../y']\n", 3, 12, "downwards"),
        ("[task.7a]\ncommand = 'x'\n", 1, 7, "begins with a letter"),
    ];
    for (text, line, column, reason) in cases {
        match read_text(text) {
            Err(Error::File { at: At { line: l, column: c }, reason: r }) => {
                assert!((l, c) == (line, column) && r.contains(reason), "{text}: {l}:{c} {r}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[\\[\\]a-z{}='\".,0-9 \n]{0,200}") {
        let _ = read_text(&text);
    }
}

#[test]
fn a_checkpoint_is_a_file_in_the_directory_of_the_task() {
    let draft = read_text("[task.a]\ncommand = 'x'\ncheckpoint = 'state.dat'\n").unwrap();
    let template = &draft.templates[0];
    assert_eq!(template.checkpoint.as_deref(), Some("state.dat"));
    assert!(template.has_playpen());
    for name in ["", "a/b", "../a", ".hidden"] {
        let text = format!("[task.a]\ncommand = 'x'\ncheckpoint = '{name}'\n");
        let error = read_text(&text).unwrap_err().to_string();
        assert!(error.contains("line 3, column 14") && error.contains("name of a file"), "{error}");
    }
}

#[test]
fn an_operation_says_whether_it_saves_state() {
    let text = |switch: &str| format!("program = 'p'\n[task.a]\noperation = 'x'\ncheckpoint = {switch}\n");
    assert!(read_text(&text("true")).unwrap().templates[0].checkpoint.is_some());
    assert!(read_text(&text("false")).unwrap().templates[0].checkpoint.is_none());
    let error = read_text(&text("'state'")).unwrap_err().to_string();
    assert!(error.contains("true or false"), "{error}");
}

fn refusal(text: &str) -> String {
    read_text(text).unwrap_err().to_string()
}

#[test]
fn outputs_of_others_are_inputs_and_come_before() {
    let solve = "[task.solve]\ncommand = 's'\nrepeat = 2\noutputs = ['r/{repeat}']\n";
    let draft =
        read_text(&format!("[task.join]\ncommand = 'j'\ninputs = ['@solve', './@b']\n{solve}")).unwrap();
    let join = &draft.templates[1];
    assert_eq!((&join.after, &join.gathers, join.inputs.len()), (&vec![0], &vec![0], 1));
    assert!(join.has_playpen());
    let each = format!(
        "{solve}[task.each]\ncommand = 'e'\nafter_each = ['solve']\ninputs = ['@solve']\nrepeat = 2\n"
    );
    let each = &read_text(&each).unwrap().templates[1];
    assert_eq!((each.after.len(), &each.after_each, &each.gathers), (0, &vec![0], &vec![0]));
    let unknown = refusal("[task.a]\ncommand = 'j'\ninputs = ['@b']\n");
    assert!(unknown.contains("line 3") && unknown.contains("no task `b`"), "{unknown}");
    let nothing = refusal("[task.a]\ncommand = 'j'\ninputs = ['@b']\n[task.b]\ncommand = 'j'\n");
    assert!(nothing.contains("task `b` has no `outputs`"), "{nothing}");
    let many = "[task.a]\ncommand = 'j'\ninputs = ['@b']\n[task.b]\ncommand = 'j'\nrepeat = 4097\n\
                outputs = ['{repeat}']\n";
    assert!(refusal(many).contains("4097 files, at most 4096"), "{}", refusal(many));
}

#[test]
fn no_two_tasks_bring_the_same_file_unless_one_comes_after_the_other() {
    let twice = refusal("[task.a]\ncommand = 'c'\noutputs = ['x']\nrepeat = 3\n");
    for part in ["line 1", "`a.0` and `a.1`", "`x`", "{task}"] {
        assert!(twice.contains(part), "{twice}");
    }
    let of_two = |b: &str, c: &str| {
        let head = "[task.a]\ncommand = 'c'\noutputs = ['x{repeat}']\nrepeat = 2\n";
        read_text(&format!("{head}[task.b]\ncommand = 'c'\n{b}\nrepeat = 2\n[task.c]\ncommand = 'c'\n{c}\n"))
    };
    let brings = "repeat = 2\noutputs = ['x{repeat}']";
    assert!(of_two("", brings).unwrap_err().to_string().contains("`a.0` and `c.0`"));
    of_two("after = ['a']", &format!("after = ['b']\n{brings}")).unwrap();
    of_two("after_each = ['a']", &format!("after_each = ['b']\n{brings}")).unwrap();
    of_two("after_each = ['a']", "after = ['b']\noutputs = ['x2']").unwrap();
    // The one at the same place brings another.
    let other_place = of_two("after_each = ['a']", "after_each = ['b']\noutputs = ['x2']\n");
    assert!(other_place.unwrap_err().to_string().contains("`a.1` and `c.0`"));
}

#[test]
fn an_output_that_no_later_task_takes_is_remarked() {
    let head = "[task.a]\ncommand = 'c'\noutputs = ['x{repeat}']\nrepeat = 2\n[task.b]\ncommand = 'c'\n";
    for (more, remarked) in [
        ("after = ['a']", true),
        ("after_each = ['a']\ninputs = ['y']", true),
        ("after = ['a']\ninputs = ['x2']", false),
        ("after = ['a']\ninputs = ['@a']", false),
        ("after = ['a']\nin_place = true", false),
        ("", false),
    ] {
        let draft = read_text(&format!("{head}{more}\n")).unwrap();
        assert_eq!(draft.unwanted_output(), remarked.then_some(("b", "a")), "{more}");
    }
}

#[test]
fn what_can_never_run_is_refused() {
    for (text, part) in [
        ("[task.a]\ncommand = ' '\n", "the command is empty"),
        ("[task.a]\ncommand = ['']\n", "the command is empty"),
        ("[task.a]\ncommand = 5\n", "or a list of a program and its arguments"),
        ("[task.a]\ncommand = 'c'\narray = { a = [1, 2], b = [1] }\n", "`b` has 1, those before have 2"),
    ] {
        assert!(refusal(text).contains(part), "{}", refusal(text));
    }
    let named = |bytes: usize| format!("name = '{}'\n[task.a]\ncommand = 'c'\n", "n".repeat(bytes));
    read_text(&named(59)).unwrap();
    assert!(refusal(&named(60)).contains("60 bytes, at most 59"), "{}", refusal(&named(60)));
}
