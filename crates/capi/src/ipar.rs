//! `ipar.h`: reports of an ipar application to its manager.

use crate::convert::{c_text, path, texts};
use crate::error::Error;
use mutirao_bag::report::Said;
use mutirao_bag::{REPORT_BYTES_MAX, VALUE_BYTES_MAX};
use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int};
use std::fs::OpenOptions;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

const EARGUMENT: c_int = -1;
const EMANAGER: c_int = -2;
const ETOOLONG: c_int = -3;
const ESYSTEM: c_int = -4;

thread_local! {
    static LAST: RefCell<CString> = RefCell::new(CString::default());
}

/// A number, and a text that says more.
type Refusal = (c_int, String);

/// What a call gives back to C. No panic leaves it.
fn outcome(body: impl FnOnce() -> Result<(), Refusal>) -> c_int {
    let result = catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|_| Err((ESYSTEM, "a fault of the library, please report it".into())));
    match result {
        Ok(()) => 0,
        Err((code, text)) => {
            LAST.with(|last| *last.borrow_mut() = c_text(&text));
            code
        }
    }
}

fn argument(error: Error) -> Refusal {
    (EARGUMENT, error.text.to_string_lossy().into_owned())
}

/// Makes a report.
///
/// # Safety
/// `manager` is NULL or as `ipar.h` says.
unsafe fn report(manager: *const c_char, said: &Said) -> Result<(), Refusal> {
    // SAFETY: the caller's promise.
    let manager = unsafe { path(manager, "manager") }.map_err(argument)?;
    let line = said.line();
    if line.len() > REPORT_BYTES_MAX {
        let bytes = line.len();
        return Err((
            ETOOLONG,
            format!(
                "the list has {bytes} bytes, at most {REPORT_BYTES_MAX} are possible: list fewer tasks, and split \
                 them in `executa`"
            ),
        ));
    }
    write(&manager, &line).map_err(|error| {
        let manager = manager.display();
        (EMANAGER, format!("the manager cannot be reached by `{manager}` ({error}): name it by argument 0"))
    })
}

/// The manager is reached by a file in the directory of the run's worker, which is there for as long as it runs.
fn write(manager: &Path, line: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(manager)?;
    // At once, so that lines of several processes do not mix.
    file.write_all(line.as_bytes())
}

/// See ipar.h.
///
/// # Safety
/// The texts are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipar_lista_tarefas(
    manager: *const c_char,
    tasks: *const *const c_char,
    count: usize,
) -> c_int {
    outcome(|| {
        // SAFETY: the caller's promise.
        let tasks = unsafe { texts(tasks, count, "tasks") }.map_err(argument)?;
        if let Some(place) = tasks.iter().position(|task| task.len() > VALUE_BYTES_MAX) {
            let bytes = tasks[place].len();
            return Err((
                ETOOLONG,
                format!("task {place} of the list has {bytes} bytes, at most {VALUE_BYTES_MAX} are possible"),
            ));
        }
        // SAFETY: the caller's promise.
        unsafe { report(manager, &Said::Tasks(tasks)) }
    })
}

/// See ipar.h.
///
/// # Safety
/// The text is as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipar_tarefa(manager: *const c_char, id: c_int, ok: c_int) -> c_int {
    // SAFETY: the caller's promise.
    outcome(|| unsafe { report(manager, &Said::Task { id: id.into(), ok: ok != 0 }) })
}

/// See ipar.h.
///
/// # Safety
/// The text is as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipar_finaliza(manager: *const c_char, ok: c_int) -> c_int {
    // SAFETY: the caller's promise.
    outcome(|| unsafe { report(manager, &Said::End(ok != 0)) })
}

/// See ipar.h.
#[unsafe(no_mangle)]
pub extern "C" fn ipar_error() -> *const c_char {
    LAST.with(|last| last.borrow().as_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutirao_bag::Report;
    use std::ffi::CStr;
    use std::os::unix::ffi::OsStrExt;
    use std::ptr::null;

    fn last() -> String {
        // SAFETY: never NULL, and no call of this thread fails meanwhile.
        unsafe { CStr::from_ptr(ipar_error()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn the_manager_reads_what_was_reported() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("report");
        let manager = CString::new(file.as_os_str().as_bytes()).unwrap();
        let manager = manager.as_ptr();
        let tasks = [c"1 2".as_ptr(), c"two\nlines".as_ptr()];
        // SAFETY: all texts are zero-terminated, and there are as many as said.
        let codes = unsafe {
            [
                ipar_lista_tarefas(manager, tasks.as_ptr(), 2),
                ipar_tarefa(manager, 3, 7),
                ipar_finaliza(manager, 0),
                ipar_lista_tarefas(manager, null(), 0),
            ]
        };
        assert_eq!(codes, [0; 4]);
        let said = Report::read(&std::fs::read(file).unwrap()).unwrap().said;
        let listed = Said::Tasks(vec!["1 2".into(), "two\nlines".into()]);
        let expected = [listed, Said::Task { id: 3, ok: true }, Said::End(false), Said::Tasks(Vec::new())];
        assert_eq!(said, expected);
    }

    #[test]
    fn what_cannot_be_reported_is_an_error_with_a_text() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("report");
        let manager = CString::new(file.as_os_str().as_bytes()).unwrap();
        let (manager, nowhere) = (manager.as_ptr(), c"/nonexistent/report".as_ptr());
        let long = CString::new("x".repeat(VALUE_BYTES_MAX + 1)).unwrap();
        let most = CString::new("x".repeat(VALUE_BYTES_MAX)).unwrap();
        let tasks = |text: *const c_char, count: usize| vec![text; count];
        let (many, one, wrong) =
            (tasks(most.as_ptr(), 300), tasks(long.as_ptr(), 1), tasks(c"\xff".as_ptr(), 1));
        // SAFETY: NULL, or zero-terminated, and there are as many as said.
        let list =
            |tasks: &[*const c_char]| unsafe { ipar_lista_tarefas(manager, tasks.as_ptr(), tasks.len()) };
        // SAFETY: NULL, or zero-terminated.
        let end = |manager: *const c_char| unsafe { ipar_finaliza(manager, 1) };
        let null_task = [null()];
        let refused =
            [(&many[..], ETOOLONG, "fewer"), (&one, ETOOLONG, "task 0"), (&wrong, EARGUMENT, "UTF-8")];
        for (tasks, code, word) in refused.into_iter().chain([(&null_task[..], EARGUMENT, "NULL")]) {
            assert_eq!(list(tasks), code, "{word}");
            assert!(last().contains(word), "{}", last());
        }
        assert_eq!(end(null()), EARGUMENT);
        assert_eq!(end(nowhere), EMANAGER);
        assert!(last().contains("/nonexistent/report"), "{}", last());
        assert!(!file.exists(), "nothing was reported");
    }
}
