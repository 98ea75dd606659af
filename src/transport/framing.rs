//! Cutting a stream into messages: RFC 3261 §18.3, §7.5; RFC 5626 §4.4.1 (keep-alive).
//!
//! Owns: where a message of a stream ends. Pure: never reads a socket, never copies, never looks into a message beyond its
//! Content-Length.

use memchr::memchr;

use crate::message::headers::{Lines, Name};
use crate::message::reader::Reader;

/// What the front of a stream's buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A whole message.
    Message { start: usize, end: usize },
    /// A double CRLF between messages: to be answered by one CRLF (K15). The next message begins at `end`.
    Ping { end: usize },
    /// A single CRLF before a start line (E10), or the answer to a ping. The next message begins at `end`.
    Skip { end: usize },
    /// Not whole: at least so many more bytes are needed.
    Need(usize),
    /// The stream cannot be followed any further: answer when possible, then close (E13).
    Bad(&'static str),
}

/// Looks at the front of `buffer`, which begins where a message begins. `limit`: bytes that a message may have, head and body.
#[must_use]
pub fn cut(buffer: &[u8], limit: usize) -> Cut {
    cut_from(buffer, 0, limit)
}

/// Like `cut`; the first `searched` bytes gave `Cut::Need` before (that buffer's length) and are not searched again for the end of
/// the head, so a peer that sends byte by byte costs no more than one that sends at once.
#[must_use]
pub fn cut_from(buffer: &[u8], searched: usize, limit: usize) -> Cut {
    match buffer {
        [] => return Cut::Need(1),
        [b'\r', b'\n', b'\r', b'\n', ..] => return Cut::Ping { end: 4 },
        [b'\r'] => return Cut::Need(1),
        // It may become a ping.
        [b'\r', b'\n'] => return Cut::Need(2),
        [b'\r', b'\n', b'\r'] => return Cut::Need(1),
        [b'\r', b'\n', ..] => return Cut::Skip { end: 2 },
        [b'\r', ..] => return Cut::Bad("Bare CR"),
        _ => {}
    }
    let body_at = match head_end(buffer, searched) {
        Ok(Some(body_at)) if body_at > limit => return Cut::Bad("Message too long"),
        Ok(Some(body_at)) => body_at,
        Ok(None) if buffer.len() >= limit => return Cut::Bad("Message too long"),
        // What is there may be the beginning of the empty line.
        Ok(None) if buffer.ends_with(b"\r\n\r") => return Cut::Need(1),
        Ok(None) if buffer.ends_with(b"\r\n") => return Cut::Need(2),
        Ok(None) if buffer.ends_with(b"\r") => return Cut::Need(3),
        Ok(None) => return Cut::Need(4),
        Err(reason) => return Cut::Bad(reason),
    };
    match content_length(buffer.get(..body_at).unwrap_or_default()) {
        Ok(length) => match body_at.checked_add(length).filter(|end| *end <= limit) {
            Some(end) if end <= buffer.len() => Cut::Message { start: 0, end },
            Some(end) => Cut::Need(end - buffer.len()),
            None => Cut::Bad("Message too long"),
        },
        Err(reason) => Cut::Bad(reason),
    }
}

/// Where the body begins, if the empty line has come; only lines that end behind `searched` are looked at.
fn head_end(buffer: &[u8], searched: usize) -> Result<Option<usize>, &'static str> {
    let mut at = searched.min(buffer.len());
    while let Some(length) = buffer.get(at..).and_then(|rest| memchr(b'\n', rest)) {
        let end = at + length + 1;
        match buffer.get(..end) {
            Some([.., b'\r', b'\n', b'\r', b'\n']) => return Ok(Some(end)),
            Some([.., b'\r', b'\n']) => at = end,
            // Nobody may wait for an empty line that never comes.
            _ => return Err("Bare LF"),
        }
    }
    Ok(None)
}

/// The Content-Length of a head: on a stream there must be one, and only one value (E10, E14).
fn content_length(head: &[u8]) -> Result<usize, &'static str> {
    let start = memchr(b'\n', head).map_or(head.len(), |at| at + 1);
    let mut found: Option<u32> = None;
    for line in Lines::new(head, u32::try_from(start).map_err(|_| "Message too long")?) {
        if Name::read(line.name.of(head)) != Name::ContentLength {
            continue;
        }
        let length = Reader::new(head, line.value).number_in(line.value).filter(|n| *n < u32::MAX);
        let length = length.ok_or("Bad Content-Length")?;
        if found.is_some_and(|before| before != length) {
            return Err("Several Content-Length");
        }
        found = Some(length);
    }
    found.map(|length| length as usize).ok_or("No Content-Length")
}
