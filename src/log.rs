//! The log: one line per event on stderr, and never a wait for whoever reads it.
//!
//! Owns: the form of a line and the way it leaves. A line is time (UTC, RFC 3339), level, process, message, fields; the field
//! of a message's Call-ID is `call_id`. The master and the timer process never have a thread: they write through a descriptor
//! that does not block. A worker hands its lines to one writer thread over a bounded channel. Where a line finds no room it is
//! dropped and counted: a stderr that nobody reads stops nothing.
//! Never decides what is worth a line.

mod line;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use sys::log_descriptor::Unblocked;
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

pub use line::{Role, Text};

use crate::config::Level;

/// Lines that wait for a worker's writer thread.
const WAITING_LINES: usize = 1_024;
/// Longest line, bytes: what a pipe takes whole or not at all (PIPE_BUF, pipe(7)), so lines of several processes never mix.
const LINE_BYTES: usize = 4_096;
/// How long a dying worker waits for its last lines.
const LAST_LINES: Duration = Duration::from_millis(100);

static THRESHOLD: AtomicU8 = AtomicU8::new(Level::Info as u8);
static DROPPED: AtomicU64 = AtomicU64::new(0);
/// The descriptor that does not block: master, timer process, and a worker that cannot start its thread.
static DIRECT: Mutex<Option<Unblocked>> = Mutex::new(None);
/// The last line did not go out whole: the next one begins on a line of its own.
static CUT: AtomicBool = AtomicBool::new(false);
/// The way to this worker's writer thread. The master never sets it, so no child inherits one.
static CHANNEL: OnceLock<Sender<Parcel>> = OnceLock::new();

enum Parcel {
    Line(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(Sender<()>),
}

/// Sets the log up in the master, before the first fork and before privileges are dropped. Starts no thread. Panics are
/// logged from here on, too: std's own message would wait for a full pipe for ever. A second call changes only the level.
///
/// # Errors
/// stderr is closed, or not to be written. Nothing else is missing then: lines are dropped and counted.
pub fn start(level: Level) -> io::Result<()> {
    set_level(level);
    let direct = Unblocked::stderr();
    let lines = tracing_subscriber::fmt::layer()
        .event_format(line::Line::for_stderr())
        .with_ansi(false)
        .log_internal_errors(false)
        .with_writer(|| Outlet);
    let subscriber = tracing_subscriber::registry().with(Threshold).with(lines);
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        std::panic::set_hook(Box::new(|info| {
            tracing::error!("panic: {info}");
            finish();
        }));
    }
    // Lines of other thresholds were perhaps met before there was a subscriber.
    tracing::callsite::rebuild_interest_cache();
    *DIRECT.lock().unwrap_or_else(PoisonError::into_inner) = Some(direct?);
    Ok(())
}

/// Says who writes from here on: called by a child right after its fork. A worker starts its writer thread here.
///
/// # Errors
/// The thread could not be started; lines then go out as in the master, and nothing else changes.
pub fn take_role(role: Role) -> io::Result<()> {
    role.take();
    if !matches!(role, Role::Worker(_)) || CHANNEL.get().is_some() {
        return Ok(());
    }
    let (sender, receiver) = bounded(WAITING_LINES);
    std::thread::Builder::new().name("log".to_string()).spawn(move || write_out(&receiver))?;
    let _ = CHANNEL.set(sender);
    Ok(())
}

/// Changes the threshold of this process.
pub fn set_level(level: Level) {
    THRESHOLD.store(level as u8, Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
}

/// Lines of this process that found no room.
#[must_use]
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Waits until this worker's lines are written, but not longer than 100 ms. For the end of a process.
pub fn finish() {
    let Some(channel) = CHANNEL.get() else { return };
    let (sender, receiver) = bounded(1);
    if channel.send_timeout(Parcel::Flush(sender), LAST_LINES).is_ok() {
        let _ = receiver.recv_timeout(LAST_LINES);
    }
}

/// The writer thread: the only place where a full pipe may be waited for.
fn write_out(lines: &Receiver<Parcel>) {
    for parcel in lines {
        match parcel {
            Parcel::Line(line) => {
                if io::stderr().write_all(&line).is_err() {
                    DROPPED.fetch_add(1, Ordering::Relaxed);
                }
            }
            Parcel::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}

/// Where `tracing_subscriber` writes a finished line. Never fails, never waits.
struct Outlet;

impl Write for Outlet {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let kept = cut(line);
        let out = match CHANNEL.get() {
            Some(channel) => channel.try_send(Parcel::Line(kept)).is_ok(),
            None => write_now(&kept),
        };
        if !out {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// At most `LINE_BYTES`, with the line end.
fn cut(line: &[u8]) -> Vec<u8> {
    let mut kept = line.get(..LINE_BYTES).unwrap_or(line).to_vec();
    if line.len() > kept.len() {
        kept.truncate(LINE_BYTES - "...\n".len());
        kept.extend_from_slice(b"...\n");
    }
    kept
}

/// One attempt. False: the line, or its end, was lost.
fn write_now(line: &[u8]) -> bool {
    let mut direct = DIRECT.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(direct) = direct.as_mut() else { return false };
    if CUT.load(Ordering::Relaxed) {
        match direct.write(b"\n") {
            Ok(1) => CUT.store(false, Ordering::Relaxed),
            _ => return false,
        }
    }
    match direct.write(line) {
        Ok(written) => {
            CUT.store(written > 0 && written < line.len(), Ordering::Relaxed);
            written == line.len()
        }
        Err(_) => false,
    }
}

/// Lets through what the level asks for. A call site that is off costs one load.
struct Threshold;

impl Threshold {
    fn now() -> LevelFilter {
        match THRESHOLD.load(Ordering::Relaxed) {
            0 => LevelFilter::ERROR,
            1 => LevelFilter::WARN,
            2 => LevelFilter::INFO,
            3 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        }
    }
}

impl<S: Subscriber> Layer<S> for Threshold {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() <= Threshold::now()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(Threshold::now())
    }
}
