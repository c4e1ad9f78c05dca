//! Text with parameters in it: `solve --alpha {alpha}`.

use serde::{Deserialize, Serialize};

/// A parameter that nobody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown(pub String);

/// A text with the places in it where values of a task go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Piece {
    Text(String),
    /// By its place among the parameters.
    Value(u32),
    /// The number of the task.
    Task,
}

/// The parameter that is the number of the task.
const TASK: &str = "task";

impl Words {
    /// A text without parameters.
    pub fn plain(text: impl Into<String>) -> Words {
        let text = text.into();
        Words { pieces: if text.is_empty() { Vec::new() } else { vec![Piece::Text(text)] } }
    }

    /// Reads a text in which `{name}` is the value of a parameter, `{task}` the number of the task, and `{{` and
    /// `}}` are braces. Braces around anything but a name are left as they are, for shells.
    pub fn read(text: &str, parameters: &[String]) -> Result<Words, Unknown> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(place) = rest.find(['{', '}']) {
            plain += &rest[..place];
            let tail = &rest[place..];
            if tail.starts_with("{{") || tail.starts_with("}}") {
                plain += &tail[..1];
                rest = &tail[2..];
                continue;
            }
            let name = tail.strip_prefix('{').and_then(|inner| inner.split_once('}')).map(|(name, _)| name);
            let Some(name) = name.filter(|name| is_name(name)) else {
                plain += &tail[..1];
                rest = &tail[1..];
                continue;
            };
            // What a shell calls `${name}` is the shell's.
            if plain.ends_with('$') {
                plain += &tail[..name.len() + 2];
                rest = &tail[name.len() + 2..];
                continue;
            }
            let piece = match parameters.iter().position(|known| known == name) {
                Some(place) => Piece::Value(place as u32),
                None if name == TASK => Piece::Task,
                None => return Err(Unknown(name.to_owned())),
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece);
            rest = &tail[name.len() + 2..];
        }
        plain += rest;
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Words { pieces })
    }

    /// The text of one task.
    pub fn fill(&self, named: &Named<'_>) -> String {
        self.filled(named, |value| value.to_owned())
    }

    /// The text of one task, for a shell: no value is more than one word.
    pub fn fill_quoted(&self, named: &Named<'_>) -> String {
        self.filled(named, quoted)
    }

    fn filled(&self, named: &Named<'_>, written: impl Fn(&str) -> String) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Value(place) => written(named.values.get(*place as usize).map_or("", |value| value)),
            Piece::Task => named.task.to_string(),
        };
        self.pieces.iter().map(piece).collect()
    }
}

/// The values of one task.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// The number of the task.
    pub task: u64,
    /// Its values, in the order of the parameters of its template.
    pub values: &'a [Box<str>],
}

/// Whether it can name a parameter.
pub fn is_name(text: &str) -> bool {
    let first = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    first && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// One word for a POSIX shell.
fn quoted(word: &str) -> String {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+=.,/:@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(safe) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str, values: &[(&str, &str)]) -> String {
        let names: Vec<String> = values.iter().map(|(name, _)| (*name).to_owned()).collect();
        let values: Vec<Box<str>> = values.iter().map(|(_, value)| (*value).into()).collect();
        let named = Named { task: 7, values: &values };
        Words::read(text, &names)
            .map_or_else(|unknown| format!("? {}", unknown.0), |words| words.fill_quoted(&named))
    }

    #[test]
    fn values_go_where_they_are_named() {
        let values = [("a", "0.5"), ("b", "two words; rm")];
        assert_eq!(filled("f {a} {b} {task}", &values), "f 0.5 'two words; rm' 7");
        assert_eq!(filled("{b}", &[("b", "it's")]), "'it'\\''s'");
        assert_eq!(filled("{b}", &[("b", "")]), "''");
    }

    #[test]
    fn braces_of_shells_and_programs_stay() {
        assert_eq!(
            filled("awk '{print $1}' ${HOME} {} {1..3} {{a}} {", &[("a", "x")]),
            "awk '{print $1}' ${HOME} {} {1..3} {a} {"
        );
        assert_eq!(filled("a } b }} c", &[]), "a } b } c");
    }

    #[test]
    fn an_unknown_name_is_told() {
        assert_eq!(filled("f {alpha}", &[("a", "1")]), "? alpha");
    }
}
