//! A mistake in the configuration, as the operator reads it: one line.

use std::fmt;

/// Which key, what was given, what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// `sctp.autoclose_s`, `listen[1].address`; the file itself when it cannot be read.
    pub key: String,
    /// As written, shortened; empty when nothing was.
    pub value: String,
    /// What would be right.
    pub right: String,
}

impl Mistake {
    pub(crate) fn new(key: impl Into<String>, value: impl fmt::Display, right: impl Into<String>) -> Mistake {
        Mistake { key: key.into(), value: shorten(&value.to_string()), right: right.into() }
    }
}

/// Longest value repeated in a line, characters.
const VALUE_CHARS: usize = 80;

/// One line, without what could move the cursor of a terminal, of bearable length.
pub(super) fn shorten(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut short: String = clean.clone().take(VALUE_CHARS).collect();
    if clean.count() > VALUE_CHARS {
        short.push_str("...");
    }
    short
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.is_empty() {
            true => write!(f, "{}: {}", self.key, self.right),
            false => write!(f, "{} = {}: {}", self.key, self.value, self.right),
        }
    }
}
