//! Taking keys out of a table, one by one, with their types and ranges. What is left at the end is unknown.
//!
//! Owns: the wording of mistakes that concern one value. Never compares two.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use ::config::{Map, Value, ValueKind};

use super::Mistake;
use super::source::{from_environment, typed, variable, variable_of};

/// What was found while reading: shared by all tables.
#[derive(Default)]
pub(super) struct Notes {
    mistakes: RefCell<Vec<Mistake>>,
    unknown: RefCell<Vec<Unknown>>,
    /// Every key that was asked for, list positions as `[]`.
    known: RefCell<BTreeSet<String>>,
}

/// A key that means nothing.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Unknown {
    /// Path of its table.
    table: String,
    key: String,
    value: String,
    /// The variable that it came from, if one did.
    variable: Option<String>,
}

impl Unknown {
    /// In the words of whoever wrote it: of a variable, or of a key.
    fn mistake(self, known: &BTreeSet<String>) -> Mistake {
        let near = nearest(known, &self.table, &self.key);
        let said = |what: &str, near: Option<String>| match near {
            Some(near) => format!("no such {what}; did you mean `{near}`?"),
            None => format!("no such {what}; config/strowger.toml explains all of them"),
        };
        match self.variable {
            Some(name) => Mistake::new(name, self.value, said("variable", near.as_deref().map(variable))),
            None => Mistake::new(join(&self.table, &self.key), self.value, said("key", near)),
        }
    }
}

impl Notes {
    pub(super) fn add(&self, key: impl Into<String>, value: impl Display, right: impl Into<String>) {
        self.mistakes.borrow_mut().push(Mistake::new(key, value, right));
    }

    /// Is something wrong already with a key that begins so? Then what depends on it is not judged.
    pub(super) fn blamed(&self, start: &str) -> bool {
        self.mistakes.borrow().iter().any(|mistake| mistake.key.starts_with(start))
    }

    /// Every key of the schema met so far, `listen[].address`.
    #[cfg(test)]
    pub(super) fn known(&self) -> BTreeSet<String> {
        self.known.borrow().clone()
    }

    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        let known = self.known.into_inner();
        let mut unknown = self.unknown.into_inner();
        unknown.sort();
        let mut mistakes = self.mistakes.into_inner();
        mistakes.extend(unknown.into_iter().map(|unknown| unknown.mistake(&known)));
        mistakes
    }
}

fn join(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_string() } else { format!("{table}.{key}") }
}

/// `listen[3]` is `listen[]` in the schema.
fn without_positions(path: &str) -> String {
    let digits = |c: char| c.is_ascii_digit();
    path.split('[').map(|part| part.trim_start_matches(digits)).collect::<Vec<_>>().join("[")
}

/// The key the writer may have meant: one of the same table that looks alike (a letter in three may be wrong), else the same word
/// in another table.
fn nearest(known: &BTreeSet<String>, table: &str, key: &str) -> Option<String> {
    let table = without_positions(table);
    let split = |path: &str| match path.rsplit_once('.') {
        Some((table, key)) => (table.to_string(), key.to_string()),
        None => (String::new(), path.to_string()),
    };
    let here = known.iter().map(|path| split(path)).filter(|(of, _)| *of == table);
    let distance = |other: &str| strsim::damerau_levenshtein(&key.to_ascii_lowercase(), other);
    let close = here.map(|(_, other)| (distance(&other), other)).min();
    if let Some((distance, other)) = close
        && distance <= (key.chars().count() / 3).max(1)
    {
        return Some(join(&table, &other));
    }
    known.iter().find(|path| split(path).1.eq_ignore_ascii_case(key)).cloned()
}

/// How a value looks in a mistake.
pub(super) fn shown(value: &Value) -> String {
    match &value.kind {
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Array(values) => format!("[{}]", values.iter().map(shown).collect::<Vec<_>>().join(", ")),
        ValueKind::Table(table) => {
            let mut pairs: Vec<_> = table.iter().map(|(key, value)| format!("{key} = {}", shown(value))).collect();
            pairs.sort();
            format!("{{ {} }}", pairs.join(", "))
        }
        other => other.to_string(),
    }
}

/// One table on its way to be read. `finish` it: what nobody asked for is a mistake.
pub(super) struct Keys<'n> {
    path: String,
    values: Map<String, Value>,
    notes: &'n Notes,
}

impl<'n> Keys<'n> {
    pub(super) fn new(path: impl Into<String>, values: Map<String, Value>, notes: &'n Notes) -> Keys<'n> {
        Keys { path: path.into(), values, notes }
    }

    /// `sctp.autoclose_s`
    pub(super) fn path(&self, key: &str) -> String {
        join(&self.path, key)
    }

    pub(super) fn wrong(&self, key: &str, value: &Value, right: impl Display) {
        let path = self.path(key);
        let right = match from_environment(value) {
            true => format!("{right} (set by {})", variable(&path)),
            false => right.to_string(),
        };
        self.notes.add(path, shown(value), right);
    }

    /// Is the key given?
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// A key that stands where it must not, or does not stand where it must.
    pub(super) fn missing(&self, key: &str, right: &str) {
        let value = self.values.get(key).map(shown).unwrap_or_default();
        self.notes.add(self.path(key), value, right);
    }

    /// Takes the value of a key, as it is.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.notes.known.borrow_mut().insert(without_positions(&self.path(key)));
        self.values.remove(key)
    }

    /// A whole number of `unit` within `range`.
    pub(super) fn number<T>(&mut self, key: &str, default: T, range: RangeInclusive<i64>, unit: &str) -> T
    where
        T: TryFrom<i64> + Display,
    {
        let (from, to) = (range.start(), range.end());
        let right = format!("a whole number of {unit} from {from} to {to} (default {default})");
        self.within(key, range, &right).unwrap_or(default)
    }

    /// A UDP port; `absent` says what an absent one means.
    pub(super) fn port(&mut self, key: &str, absent: &str) -> Option<u16> {
        self.within(key, 1..=65_535, &format!("a UDP port from 1 to 65535 ({absent})"))
    }

    fn within<T: TryFrom<i64>>(&mut self, key: &str, range: RangeInclusive<i64>, right: &str) -> Option<T> {
        let value = self.take(key)?;
        let number = match typed(value.clone()).kind {
            ValueKind::I64(number) => Some(number),
            ValueKind::U64(number) => i64::try_from(number).ok(),
            _ => None,
        };
        let number = number.filter(|number| range.contains(number)).and_then(|number| T::try_from(number).ok());
        if number.is_none() {
            self.wrong(key, &value, right);
        }
        number
    }

    pub(super) fn boolean(&mut self, key: &str, default: bool) -> bool {
        let Some(value) = self.take(key) else { return default };
        match typed(value.clone()).kind {
            ValueKind::Boolean(boolean) => boolean,
            _ => {
                self.wrong(key, &value, format!("true or false (default {default})"));
                default
            }
        }
    }

    /// A text that `parse` understands; what would be right when it does not.
    pub(super) fn text<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let value = self.take(key)?;
        let parsed = match &value.kind {
            ValueKind::String(text) => parse(text),
            _ => Err("a text in quotes".to_string()),
        };
        parsed.map_err(|right| self.wrong(key, &value, right)).ok()
    }

    /// A list of texts; one text alone, or with commas in a variable, is a list too.
    pub(super) fn texts<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<Vec<T>> {
        let value = self.take(key)?;
        let values = match typed(value.clone()).kind {
            ValueKind::Array(values) => values,
            ValueKind::String(text) if from_environment(&value) => {
                text.split(',').map(|part| Value::new(None, part.trim())).collect()
            }
            ValueKind::String(_) => vec![value],
            _ => {
                self.wrong(key, &value, "a list of texts: [\"...\", \"...\"]");
                return None;
            }
        };
        let each = values.iter().enumerate().filter_map(|(at, value)| {
            let parsed = match &value.kind {
                ValueKind::String(text) => parse(text),
                _ => Err("a text in quotes".to_string()),
            };
            parsed.map_err(|right| self.wrong(&format!("{key}[{at}]"), value, right)).ok()
        });
        Some(each.collect())
    }

    /// A list of texts that must be there and not be empty; `right` says of what.
    pub(super) fn some_texts<T>(
        &mut self,
        key: &str,
        right: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let empty = |value: &Value| matches!(&value.kind, ValueKind::Array(values) if values.is_empty());
        match self.values.get(key) {
            None => self.missing(key, &format!("missing: {right}")),
            Some(value) if empty(value) => self.missing(key, right),
            Some(_) => {}
        }
        self.texts(key, parse)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, default: T, words: &[(&str, T)]) -> T {
        let right = || format!("one of {}", words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", "));
        let find = |text: &str| words.iter().find(|(word, _)| *word == text).map(|(_, is)| *is).ok_or_else(right);
        self.text(key, find).unwrap_or(default)
    }

    /// The table `[key]`; an empty one when absent.
    pub(super) fn table(&mut self, key: &str) -> Keys<'n> {
        let path = self.path(key);
        let values = match self.take(key) {
            None => Map::new(),
            Some(value) => match typed(value.clone()).kind {
                ValueKind::Table(values) => values,
                _ => {
                    self.wrong(key, &value, format!("a table: [{path}]"));
                    Map::new()
                }
            },
        };
        Keys::new(path, values, self.notes)
    }

    /// The tables `[[key]]`; none when absent.
    pub(super) fn tables(&mut self, key: &str) -> Option<Vec<Keys<'n>>> {
        let value = self.take(key)?;
        let path = self.path(key);
        let right = format!("a list of tables: [[{path}]], or {}='[{{...}}, {{...}}]'", variable(&path));
        let ValueKind::Array(values) = typed(value.clone()).kind else {
            self.wrong(key, &value, right);
            return None;
        };
        let each = values.into_iter().enumerate().filter_map(|(at, value)| match value.kind {
            ValueKind::Table(values) => Some(Keys::new(format!("{path}[{at}]"), values, self.notes)),
            _ => {
                self.wrong(&format!("{key}[{at}]"), &value, &right);
                None
            }
        });
        Some(each.collect())
    }

    /// Whatever is left has no meaning.
    pub(super) fn finish(self) {
        let left = self.values.into_iter().map(|(key, value)| {
            let (variable, value) = match variable_of(&join(&self.path, &key), &value) {
                Some((variable, part)) => (Some(variable), shown(part)),
                None => (None, shown(&value)),
            };
            Unknown { table: self.path.clone(), key, value, variable }
        });
        self.notes.unknown.borrow_mut().extend(left);
    }
}

/// `192.0.2.1:5060` or `[2001:db8::1]:5060`, with a port that is not 0.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let right = "IP:PORT such as 192.0.2.1:5060 or [2001:db8::1]:5060, port 1 to 65535";
    text.parse().ok().filter(|address: &SocketAddr| address.port() != 0).ok_or_else(|| right.to_string())
}
