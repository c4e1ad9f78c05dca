//! Applications of the ipar framework: `inicia` makes the list of tasks, `executa` does one, `finaliza` joins the
//! results. Each run reports to its manager exactly once, then exits.

use crate::bag::Draft;
use crate::end::End;
use crate::report::{Report, Said};
use crate::template::{Settings, Template, Work};
use serde::{Deserialize, Serialize};

/// A method of an application: each run of its program is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// Prepares, and returns the list of tasks.
    Inicia,
    /// Does one task.
    Executa,
    /// Joins the partial results.
    Finaliza,
}

/// The template of the tasks that the application itself lists.
pub const TASKS: u32 = 1;
/// The name of the file with the state that a run saves.
const STATE: &str = "state";

impl Method {
    /// As the program finds it in its arguments.
    pub fn word(self) -> &'static str {
        match self {
            Method::Inicia => "inicia",
            Method::Executa => "executa",
            Method::Finaliza => "finaliza",
        }
    }
}

/// The bag that runs an application: one task for `inicia`, those that it lists, one for `finaliza`.
/// `files` are brought along to where it cannot reach them. With `saves_state`, what a run saves is there for its next
/// attempt.
pub fn bag(
    settings: Settings,
    program: Vec<String>,
    files: Vec<String>,
    retries: u32,
    saves_state: bool,
) -> Draft {
    let checkpoint = saves_state.then(|| STATE.to_owned());
    let template = |method: Method| {
        let work = Work::Ipar { program: program.clone(), files: files.clone(), method };
        Template { retries, checkpoint: checkpoint.clone(), ..Template::new(method.word(), work) }
    };
    let executa = Template { parameters: vec!["tarefa".into()], ..template(Method::Executa) };
    let finaliza = Template { after: vec![0, TASKS], ..template(Method::Finaliza) };
    let mut draft = Draft::new(settings);
    for template in [template(Method::Inicia), executa, finaliza] {
        draft.templates.push(template);
    }
    draft.push(0, Vec::new());
    draft.push(2, Vec::new());
    draft
}

/// What a run comes to that ended so and reported this, and the tasks that it has listed. `id` is that of the
/// task, its place in the list.
pub fn judge(method: Method, id: u32, end: End, report: &Report) -> (End, Vec<String>) {
    let said = match report.said.as_slice() {
        [said] => said,
        [] => {
            let why = match end {
                End::Done => "it ended without a word".to_owned(),
                other => return (other, Vec::new()),
            };
            return (End::NoReport(why), Vec::new());
        }
        several => {
            return (
                End::NoReport(format!("it reported {} times instead of once", several.len())),
                Vec::new(),
            );
        }
    };
    match (method, said) {
        (Method::Inicia | Method::Executa, Said::Tasks(tasks)) => (End::Done, tasks.clone()),
        (Method::Executa, Said::Task { id: other, .. }) if *other != i64::from(id) => {
            (End::NoReport(format!("it reported task {other} while it ran task {id}")), Vec::new())
        }
        (Method::Executa, Said::Task { ok, .. }) | (Method::Finaliza, Said::End(ok)) => {
            (if *ok { End::Done } else { End::ReportedFailure }, Vec::new())
        }
        (method, said) => {
            let word = method.word();
            (End::NoReport(format!("`{word}` cannot report with `{}`", said.word())), Vec::new())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(said: &[Said]) -> Report {
        Report { said: said.to_vec(), ..Report::default() }
    }

    #[test]
    fn a_run_reports_once_and_what_it_may() {
        let (done, failed) = (Said::Task { id: 3, ok: true }, Said::Task { id: 3, ok: false });
        let of = |method, said: &[Said]| judge(method, 3, End::Done, &report(said)).0;
        assert_eq!(of(Method::Executa, std::slice::from_ref(&done)), End::Done);
        assert_eq!(of(Method::Executa, std::slice::from_ref(&failed)), End::ReportedFailure);
        assert!(matches!(of(Method::Executa, &[done.clone(), failed]), End::NoReport(_)));
        assert!(matches!(of(Method::Executa, &[Said::Task { id: 4, ok: true }]), End::NoReport(_)));
        assert!(matches!(of(Method::Executa, &[]), End::NoReport(_)));
        assert!(matches!(of(Method::Finaliza, &[done]), End::NoReport(_)));
        assert_eq!(of(Method::Finaliza, &[Said::End(true)]), End::Done);
    }

    #[test]
    fn a_task_that_lists_others_was_split() {
        let said = Said::Tasks(vec!["a".into(), "b".into()]);
        for method in [Method::Inicia, Method::Executa] {
            let judged = judge(method, 0, End::Done, &report(std::slice::from_ref(&said)));
            assert_eq!(judged, (End::Done, vec!["a".to_owned(), "b".to_owned()]));
        }
    }

    #[test]
    fn what_ended_badly_without_a_word_keeps_its_own_reason() {
        let none = report(&[]);
        assert_eq!(judge(Method::Executa, 0, End::Signal(11), &none).0, End::Signal(11));
        assert_eq!(judge(Method::Executa, 0, End::TimeLimit, &none).0, End::TimeLimit);
    }
}
