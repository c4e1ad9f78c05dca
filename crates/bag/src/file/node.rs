//! A TOML document whose every part knows where it stands.

use mutirao_text::alike;
use std::borrow::Cow;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong, and where: a byte of the text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) reason: String,
}

/// A value.
#[derive(Debug, Clone)]
pub(super) struct Node<'a> {
    at: usize,
    value: Value<'a>,
}

#[derive(Debug, Clone)]
enum Value<'a> {
    Text(Cow<'a, str>),
    /// As it is written, for it may become the value of a parameter.
    Number(String),
    Switch(bool),
    List(Vec<Node<'a>>),
    Table(Table<'a>),
    Date(String),
}

/// A table, out of which its entries are taken.
#[derive(Debug, Clone)]
pub(super) struct Table<'a> {
    pub(super) at: usize,
    /// In the order of the text.
    entries: Vec<(Cow<'a, str>, usize, Node<'a>)>,
    taken: Vec<bool>,
    /// What was looked for and was not there.
    missed: Vec<String>,
}

/// Reads a document.
pub(super) fn parse(text: &str) -> Result<Node<'_>, Wrong> {
    let document = DeTable::parse(text).map_err(|error| Wrong {
        at: error.span().map_or(0, |span| span.start),
        reason: error.message().to_owned(),
    })?;
    Ok(Node { at: 0, value: Value::Table(Table::new(0, document.into_inner())) })
}

impl<'a> Node<'a> {
    fn new(value: Spanned<DeValue<'a>>) -> Node<'a> {
        let at = value.span().start;
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text(text),
            DeValue::Integer(number) => match number.radix() {
                10 => Value::Number(number.as_str().trim_start_matches('+').to_owned()),
                radix => match i128::from_str_radix(number.as_str(), radix) {
                    Ok(plain) => Value::Number(plain.to_string()),
                    Err(_) => Value::Number(number.to_string()),
                },
            },
            DeValue::Float(number) => Value::Number(number.as_str().to_owned()),
            DeValue::Boolean(value) => Value::Switch(value),
            DeValue::Datetime(date) => Value::Date(date.to_string()),
            DeValue::Array(list) => Value::List(list.into_iter().map(Node::new).collect()),
            DeValue::Table(table) => Value::Table(Table::new(at, table)),
        };
        Node { at, value }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn wrong(&self, reason: impl Into<String>) -> Wrong {
        Wrong { at: self.at, reason: reason.into() }
    }

    /// The table that it must be. `what` says what is one.
    pub(super) fn table(self, what: &str) -> Result<Table<'a>, Wrong> {
        match self.value {
            Value::Table(table) => Ok(table),
            _ => Err(self.wrong(format!("{what} is a table"))),
        }
    }

    pub(super) fn as_table(&self) -> Option<Table<'a>> {
        match &self.value {
            Value::Table(table) => Some(table.clone()),
            _ => None,
        }
    }

    pub(super) fn as_list(&self) -> Option<&[Node<'a>]> {
        match &self.value {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    pub(super) fn list(&self) -> Result<&[Node<'a>], Wrong> {
        self.as_list().ok_or_else(|| self.wrong("this must be a list, such as [\"a\", \"b\"]"))
    }

    pub(super) fn text(&self) -> Result<&str, Wrong> {
        match &self.value {
            Value::Text(text) if text.contains('\0') => {
                Err(self.wrong("no text may contain the character 0"))
            }
            Value::Text(text) => Ok(text),
            _ => Err(self.wrong("this must be a text in quotes")),
        }
    }

    /// Text, or a number or switch as it would be written.
    pub(super) fn scalar(&self) -> Result<String, Wrong> {
        match &self.value {
            Value::Text(_) => self.text().map(str::to_owned),
            Value::Number(text) | Value::Date(text) => Ok(text.clone()),
            Value::Switch(value) => Ok(value.to_string()),
            Value::List(_) | Value::Table(_) => Err(self.wrong("this must be a text or a number")),
        }
    }

    /// `true` or `false`.
    pub(super) fn switch(&self) -> Result<bool, Wrong> {
        match self.value {
            Value::Switch(value) => Ok(value),
            _ => Err(self.wrong("this must be true or false")),
        }
    }

    /// A whole number from `least` to `most`.
    pub(super) fn number(&self, least: i64, most: i64) -> Result<i64, Wrong> {
        let number = match &self.value {
            Value::Number(text) => text.replace('_', "").parse::<i64>().ok(),
            _ => None,
        };
        let in_range = number.filter(|number| (least..=most).contains(number));
        in_range.ok_or_else(|| self.wrong(format!("this must be a whole number from {least} to {most}")))
    }

    /// The number that it is, as it is written, if it is one.
    pub(super) fn as_number(&self) -> Option<&str> {
        match &self.value {
            Value::Number(text) => Some(text),
            _ => None,
        }
    }
}

impl<'a> Table<'a> {
    fn new(at: usize, table: DeTable<'a>) -> Table<'a> {
        let entry = |(name, value): (Spanned<Cow<'a, str>>, Spanned<DeValue<'a>>)| {
            let at = name.span().start;
            (name.into_inner(), at, Node::new(value))
        };
        let mut entries: Vec<_> = table.into_iter().map(entry).collect();
        entries.sort_by_key(|(_, at, _)| *at);
        let taken = vec![false; entries.len()];
        Table { at, entries, taken, missed: Vec::new() }
    }

    /// Takes the entry of this name, if there is one.
    pub(super) fn take(&mut self, name: &str) -> Option<Node<'a>> {
        let Some(place) = self.entries.iter().position(|(known, ..)| known == name) else {
            self.missed.push(name.to_owned());
            return None;
        };
        self.taken[place] = true;
        Some(self.entries[place].2.clone())
    }

    pub(super) fn require(&mut self, name: &str, reason: &str) -> Result<Node<'a>, Wrong> {
        if let Some(node) = self.take(name) {
            return Ok(node);
        }
        // Rather than that it is missing, say that it is misspelt.
        let misspelt = self.left().find_map(|(word, at, _)| {
            let reason = format!("there is no setting `{word}`; did you mean `{}`?", self.meant(word)?);
            Some(Wrong { at: *at, reason })
        });
        Err(misspelt.unwrap_or_else(|| Wrong { at: self.at, reason: reason.to_owned() }))
    }

    /// What was looked for in vain that is like this word.
    fn meant(&self, word: &str) -> Option<String> {
        alike(word, self.missed.iter().map(String::as_str))
    }

    /// Entries that were not taken.
    fn left(&self) -> impl Iterator<Item = &(Cow<'a, str>, usize, Node<'a>)> {
        self.entries.iter().zip(&self.taken).filter(|(_, taken)| !**taken).map(|(entry, _)| entry)
    }

    /// All entries in the order of the text.
    pub(super) fn entries(self) -> impl Iterator<Item = (NameAt<'a>, Node<'a>)> {
        self.entries.into_iter().map(|(text, at, node)| (NameAt { text, at }, node))
    }

    /// The first entry that was not taken is one that nobody knows.
    pub(super) fn finish(&self, what: &str) -> Result<(), Wrong> {
        let Some((name, at, _)) = self.left().next() else { return Ok(()) };
        let meant = self.meant(name).map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
        Err(Wrong { at: *at, reason: format!("{what} has no setting `{name}`{meant}") })
    }
}

/// The name of an entry, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct NameAt<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) at: usize,
}
