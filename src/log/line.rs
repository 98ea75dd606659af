//! The form of one line, and who writes it.
//!
//! Owns: the role of this process. Never lets a control character of a peer's out: one event stays one line.

use std::fmt::{self, Write};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Which process writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Master,
    Timer,
    Supervisor,
    Owner,
    /// A worker's seat.
    Worker(usize),
}

const MASTER: usize = 0;
const TIMER: usize = 1;
const SUPERVISOR: usize = 2;
const OWNER: usize = 3;
const FIRST_WORKER: usize = 4;

static ROLE: AtomicUsize = AtomicUsize::new(MASTER);

impl Role {
    /// This process is `self` from now on.
    pub(super) fn take(self) {
        let number = match self {
            Role::Master => MASTER,
            Role::Timer => TIMER,
            Role::Supervisor => SUPERVISOR,
            Role::Owner => OWNER,
            Role::Worker(seat) => FIRST_WORKER + seat,
        };
        ROLE.store(number, Ordering::Relaxed);
    }

    fn now() -> Role {
        match ROLE.load(Ordering::Relaxed) {
            MASTER => Role::Master,
            TIMER => Role::Timer,
            SUPERVISOR => Role::Supervisor,
            OWNER => Role::Owner,
            number => Role::Worker(number - FIRST_WORKER),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Master => f.write_str("master"),
            Role::Timer => f.write_str("timer"),
            Role::Supervisor => f.write_str("supervisor"),
            Role::Owner => f.write_str("owner"),
            Role::Worker(seat) => write!(f, "worker {seat}"),
        }
    }
}

/// Bytes of a message as text, for a field: `call_id = %Text(call_id)`. What is not UTF-8 becomes U+FFFD.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a>(pub &'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_char(char::REPLACEMENT_CHARACTER)?;
            }
        }
        Ok(())
    }
}

/// `2026-11-22T12:59:21.123Z INFO  worker 0: registered call_id=...`
pub(super) struct Line {
    colour: bool,
}

impl Line {
    /// Colours only for a person at a terminal who did not refuse them (NO_COLOR).
    pub(super) fn for_stderr() -> Line {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Line { colour: !refused && std::io::stderr().is_terminal() }
    }

    #[cfg(test)]
    pub(super) fn plain() -> Line {
        Line { colour: false }
    }
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    // The time of a line is the log's own affair; no rule of a protocol hangs on it.
    #[allow(clippy::disallowed_methods)]
    fn format_event(&self, fields: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        let level = *event.metadata().level();
        match self.colour {
            true => write!(out, "{time} \x1b[{}m{level:5}\x1b[0m {}: ", colour(level), Role::now())?,
            false => write!(out, "{time} {level:5} {}: ", Role::now())?,
        }
        fields.format_fields(Writer::new(&mut OneLine(&mut out)), event)?;
        out.write_char('\n')
    }
}

/// SGR codes (ECMA-48 §8.3.117).
fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "31",
        Level::WARN => "33",
        Level::INFO => "32",
        _ => "2",
    }
}

/// Writes control characters as escapes.
struct OneLine<'w, 'o>(&'w mut Writer<'o>);

impl fmt::Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            let Some(control) = part.chars().next_back().filter(|c| c.is_control()) else {
                self.0.write_str(part)?;
                continue;
            };
            self.0.write_str(part.strip_suffix(control).unwrap_or(part))?;
            write!(self.0, "{}", control.escape_default())?;
        }
        Ok(())
    }
}
