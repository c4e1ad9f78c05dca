//! Small changes to the text of a charter, which leave the rest as it was written.

use super::text::{ceiling, datetime, is_user, key, quoted, unquoted};
use super::{Ceiling, Charter, CharterError, app_id};
use mutirao_wire::charter::{CharterChange, Who};
use std::collections::BTreeMap;

/// Makes `changes`, all or none, to `text`, and takes out the rights to allocate that have ended by
/// `now_unix_s`.
///
/// Comments and order are kept, unless the text expresses the lists in a way that cannot be changed line
/// by line: then the whole is written anew.
pub fn change(text: &str, changes: &[CharterChange], now_unix_s: u64) -> Result<String, CharterError> {
    let mut charter = Charter::parse_known(text)?;
    let mut lines = Lines(text.lines().map(str::to_owned).collect());
    for change in changes {
        apply(&mut charter, &mut lines, change)?;
    }
    prune(&mut charter.admitted.users, "admitted.users", &mut lines, now_unix_s);
    prune(&mut charter.admitted.applications, "admitted.applications", &mut lines, now_unix_s);
    let edited = lines.0.join("\n") + "\n";
    let text = match Charter::parse_known(&edited) {
        Ok(read) if read == charter => edited,
        _ => charter.to_text(),
    };
    match Charter::parse_known(&text) {
        Ok(read) if read == charter => Ok(text),
        Ok(_) => Err(CharterError::NothingToDo(
            "this change cannot be expressed; use `mutirao charter edit`".into(),
        )),
        Err(error) => Err(error),
    }
}

fn apply(charter: &mut Charter, lines: &mut Lines, change: &CharterChange) -> Result<(), CharterError> {
    match change {
        CharterChange::Revoke { who, reason } => {
            let (list, section, who) = deny_list(charter, who)?;
            let (who, reason) = (who.to_owned(), reason.clone());
            lines.set(section, &who, &quoted(&reason));
            list.insert(who, reason);
        }
        CharterChange::Restore(who) => {
            let (list, section, who) = deny_list(charter, who)?;
            if list.remove(who).is_none() {
                let text = format!("`{who}` is not in [{section}]; see `mutirao charter show`");
                return Err(CharterError::NothingToDo(text));
            }
            lines.take(section, who);
        }
        CharterChange::Admit { who, slots, until_unix_s } => {
            let until = until_unix_s.and_then(datetime);
            if until_unix_s.is_some() && until.is_none() {
                let text = "the right would end beyond the year 9999; leave out when it ends".into();
                return Err(CharterError::NothingToDo(text));
            }
            let (list, section, who) = right_list(charter, who)?;
            let right = Ceiling { slots: *slots, until };
            lines.set(section, &who, &ceiling(&right));
            list.insert(who, right);
        }
        CharterChange::Dismiss(who) => {
            let (list, section, who) = right_list(charter, who)?;
            if list.remove(&who).is_none() {
                let text = format!("`{who}` is not in [{section}]; see `mutirao admin ls`");
                return Err(CharterError::NothingToDo(text));
            }
            lines.take(section, &who);
        }
    }
    Ok(())
}

type List<'a, T> = (&'a mut BTreeMap<String, T>, &'static str);

fn deny_list<'a, 'b>(
    charter: &'a mut Charter,
    who: &'b Who,
) -> Result<(&'a mut BTreeMap<String, String>, &'static str, &'b str), CharterError> {
    match who {
        Who::Node(name) => Ok((&mut charter.deny.nodes, "deny.nodes", name)),
        Who::User(name) => Ok((&mut charter.deny.users, "deny.users", name)),
        Who::App(_) => Err(CharterError::NothingToDo(
            "applications are not denied; deny their user, or end them with `mutirao kill`".into(),
        )),
    }
}

fn right_list<'a>(
    charter: &'a mut Charter,
    who: &Who,
) -> Result<(&'a mut BTreeMap<String, Ceiling>, &'static str, String), CharterError> {
    let (list, name): (List<'a, Ceiling>, String) = match who {
        Who::App(app) => ((&mut charter.admitted.applications, "admitted.applications"), app.to_string()),
        Who::User(name) => ((&mut charter.admitted.users, "admitted.users"), name.clone()),
        Who::Node(name) => {
            let text = format!("`{name}` is a node; users and applications are let in");
            return Err(CharterError::NothingToDo(text));
        }
    };
    if !(is_user(&name) || app_id(&name).is_some()) {
        let text = format!("`{name}` is no user: neither a name nor NAME@NODE");
        return Err(CharterError::NothingToDo(text));
    }
    Ok((list.0, list.1, name))
}

fn prune(list: &mut BTreeMap<String, Ceiling>, section: &str, lines: &mut Lines, now_unix_s: u64) {
    for (who, _) in list.extract_if(.., |_, right| !right.holds_at(now_unix_s)) {
        lines.take(section, &who);
    }
}

/// A text, line by line.
struct Lines(Vec<String>);

impl Lines {
    /// Where the entries of a section are: after its head, up to the next.
    fn section(&self, section: &str) -> Option<std::ops::Range<usize>> {
        let head = format!("[{section}]");
        let is_head = |line: &String| line.split('#').next().unwrap_or_default().trim() == head;
        let start = self.0.iter().position(is_head)? + 1;
        let length = self.0[start..].iter().position(|line| line.trim_start().starts_with('['));
        Some(start..length.map_or(self.0.len(), |length| start + length))
    }

    fn take(&mut self, section: &str, who: &str) {
        let Some(range) = self.section(section) else { return };
        let sets = |line: &String| line.split_once('=').is_some_and(|(key, _)| unquoted(key) == who);
        if let Some(at) = self.0[range.clone()].iter().position(sets) {
            self.0.remove(range.start + at);
        }
    }

    fn set(&mut self, section: &str, who: &str, value: &str) {
        self.take(section, who);
        let line = format!("{} = {value}", key(who));
        match self.section(section) {
            Some(range) => self.0.insert(range.start, line),
            None => self.0.extend([String::new(), format!("[{section}]"), line]),
        }
    }
}
