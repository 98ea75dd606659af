//! Cutting a stream into messages: RFC 3261 §18.3, §7.5; RFC 5626 §4.4.1 (keep-alive).
//!
//! Owns: where a message of a stream ends. Pure: never reads a socket, never copies, never looks into a message beyond its
//! Content-Length.

use memchr::{memchr, memmem};

use crate::message::ends::Ends;
use crate::message::headers::{Line, Lines, Name, Step, step};
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

/// Like `cut`; the first `searched` bytes gave `Cut::Need` before (that buffer's length). They are not walked line by line again: one
/// quick search says whether the head ended among them, so a peer that sends byte by byte costs hardly more than its system calls.
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
    let whole = if searched == 0 { whole_head(buffer) } else { None };
    let (body_at, length) = match whole {
        Some(found) => found,
        None => match head_end(buffer, searched) {
            Ok(Some(body_at)) => (body_at, content_length(buffer.get(..body_at).unwrap_or_default())),
            Ok(None) if buffer.len() >= limit => return Cut::Bad("Message too long"),
            // What is there may be the beginning of the empty line.
            Ok(None) if buffer.ends_with(b"\r\n\r") => return Cut::Need(1),
            Ok(None) if buffer.ends_with(b"\r\n") => return Cut::Need(2),
            Ok(None) if buffer.ends_with(b"\r") => return Cut::Need(3),
            Ok(None) => return Cut::Need(4),
            Err(reason) => return Cut::Bad(reason),
        },
    };
    if body_at > limit {
        return Cut::Bad("Message too long");
    }
    match length {
        Ok(length) => match body_at.checked_add(length).filter(|end| *end <= limit) {
            Some(end) if end <= buffer.len() => Cut::Message { start: 0, end },
            Some(end) => Cut::Need(end - buffer.len()),
            None => Cut::Bad("Message too long"),
        },
        Err(reason) => Cut::Bad(reason),
    }
}

/// The usual case in one walk: the whole head is here, with good line ends. Where the body begins, and its length.
fn whole_head(buffer: &[u8]) -> Option<(usize, Result<usize, &'static str>)> {
    let mut ends = Ends::new(buffer, 0);
    let mut at = ends.line_end()? + 2;
    let mut length = ContentLength::default();
    loop {
        let end = ends.line_end()?;
        if end == at {
            return Some((at + 2, length.value()));
        }
        // Lines that go on (folded) begin with white space; what they go on with is read with the line that began.
        if matches!(
            buffer.get(at..end)?,
            [b'l' | b'L', b':' | b' ' | b'\t', ..] | [b'c' | b'C', _, _, _, _, _, _, _, b'l' | b'L', ..]
        ) && let Step::Line(found) = step(&mut Ends::new(buffer, at), at)
        {
            length.take(buffer, &found.line(buffer));
        }
        at = end + 2;
    }
}

/// Where the body begins, if the empty line has come; lines that end before `searched` are known to be good, but the empty line may
/// be among them (the body was not whole), and then what looks like one in the body is none.
fn head_end(buffer: &[u8], searched: usize) -> Result<Option<usize>, &'static str> {
    let mut at = searched.min(buffer.len());
    if let Some(end) = buffer.get(..at).and_then(|seen| memmem::find(seen, b"\r\n\r\n")) {
        return Ok(Some(end + 4));
    }
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
    let mut length = ContentLength::default();
    for line in Lines::new(head, u32::try_from(start).map_err(|_| "Message too long")?) {
        length.take(head, &line);
    }
    length.value()
}

/// What the Content-Length lines of a head say together.
#[derive(Default)]
struct ContentLength {
    found: Option<u32>,
    wrong: Option<&'static str>,
}

impl ContentLength {
    fn take(&mut self, head: &[u8], line: &Line) {
        if line.kind != Name::ContentLength {
            return;
        }
        match Reader::new(head, line.value).number_in(line.value).filter(|n| *n < u32::MAX) {
            None => self.wrong = self.wrong.or(Some("Bad Content-Length")),
            Some(length) if self.found.is_some_and(|before| before != length) => {
                self.wrong = self.wrong.or(Some("Several Content-Length"));
            }
            Some(length) => self.found = Some(length),
        }
    }

    fn value(&self) -> Result<usize, &'static str> {
        match (self.wrong, self.found) {
            (Some(wrong), _) => Err(wrong),
            (None, found) => found.map(|length| length as usize).ok_or("No Content-Length"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"OPTIONS sip:z@z SIP/2.0\r\nVia: x\r\nContent-Length : 4\r\n\r\nbody";
    const LIMIT: usize = 1000;

    #[test]
    fn a_stream_is_cut_into_messages_pings_and_single_line_ends() {
        let mut stream = b"\r\n".to_vec();
        stream.extend_from_slice(MESSAGE);
        stream.extend_from_slice(b"\r\n\r\n");
        stream.extend_from_slice(MESSAGE);
        assert_eq!(cut(&stream, LIMIT), Cut::Skip { end: 2 }); // E10
        assert_eq!(cut(&stream[2..], LIMIT), Cut::Message { start: 0, end: MESSAGE.len() });
        assert_eq!(cut(&stream[2 + MESSAGE.len()..], LIMIT), Cut::Ping { end: 4 }); // K15
        assert_eq!(cut(&stream[6 + MESSAGE.len()..], LIMIT), Cut::Message { start: 0, end: MESSAGE.len() });
    }

    #[test]
    fn a_message_that_dribbles_in_is_cut_when_its_last_byte_is_there_and_never_asks_for_too_much() {
        let mut searched = 0;
        for have in 0..MESSAGE.len() {
            let Cut::Need(more) = cut_from(&MESSAGE[..have], searched, LIMIT) else { panic!("{have}") };
            assert!(more >= 1 && have + more <= MESSAGE.len(), "{have} {more}");
            searched = have;
        }
        assert_eq!(cut_from(MESSAGE, searched, LIMIT), Cut::Message { start: 0, end: MESSAGE.len() });
    }

    #[test]
    fn an_empty_line_in_a_body_that_dribbles_in_ends_nothing() {
        let message = b"BYE sip:z SIP/2.0\r\nl: 10\r\n\r\n12\r\n\r\n7890";
        let mut searched = 0;
        for have in 0..message.len() {
            assert!(matches!(cut_from(&message[..have], searched, LIMIT), Cut::Need(_)), "{have}");
            searched = have;
        }
        assert_eq!(cut_from(message, searched, LIMIT), Cut::Message { start: 0, end: message.len() });
    }

    #[test]
    fn one_walk_finds_what_two_find() {
        let heads = [
            "BYE sip:z SIP/2.0\r\nVia: x\r\nContent-Length: 4\r\nCall-ID: l\r\n\r\nbody",
            "BYE sip:z SIP/2.0\r\nl:\r\n 4\r\nL : 4\r\ncontent-length\t: 4\r\nl\r\n\r\nbody",
            "BYE sip:z SIP/2.0\r\nSubject: a\r\n l: 7\r\nContent-Len: 9\r\nCONTENT-LENGTH: 1\r\n\r\nbody",
        ];
        let mut random = fastrand::Rng::with_seed(7);
        let mut walked = 0;
        for round in 0..30_000 {
            let mut bytes = heads[round % heads.len()].as_bytes().to_vec();
            for _ in 0..round % 4 {
                let at = random.usize(..bytes.len());
                bytes[at] = *random.choice(b"\r\n\0 :lLcC4x\t").unwrap();
            }
            let Some((body_at, length)) = whole_head(&bytes) else { continue };
            walked += 1;
            assert_eq!(head_end(&bytes, 0), Ok(Some(body_at)), "{}", bytes.escape_ascii());
            assert_eq!(length, content_length(&bytes[..body_at]), "{}", bytes.escape_ascii());
        }
        assert!(walked > 15_000, "{walked}");
    }

    #[test]
    fn half_a_ping_waits() {
        for (bytes, more) in [(&b""[..], 1), (b"\r", 1), (b"\r\n", 2), (b"\r\n\r", 1)] {
            assert_eq!(cut(bytes, LIMIT), Cut::Need(more)); // K15
        }
    }

    #[test]
    fn a_stream_without_a_good_content_length_is_lost() {
        for (lines, reason) in [
            ("", "No Content-Length"),
            ("Content-Length: -1\r\n", "Bad Content-Length"),
            ("l: x\r\n", "Bad Content-Length"),
            ("l: 99999999999\r\n", "Bad Content-Length"),
            ("l: 1\r\nContent-Length: 2\r\n", "Several Content-Length"),
            ("l: 2000\r\n", "Message too long"),
        ] {
            assert_eq!(cut(format!("BYE sip:z SIP/2.0\r\n{lines}\r\nxx").as_bytes(), LIMIT), Cut::Bad(reason)); // E10, E13, E14
        }
        let folded = b"BYE sip:z SIP/2.0\r\nl:\r\n 2\r\n\r\nxx";
        assert_eq!(cut(folded, LIMIT), Cut::Message { start: 0, end: folded.len() });
    }

    #[test]
    fn an_endless_head_and_one_without_carriage_returns_end_the_stream() {
        assert_eq!(cut(&b"X".repeat(LIMIT), LIMIT), Cut::Bad("Message too long"));
        assert_eq!(cut(&b"X: y\r\n".repeat(LIMIT), LIMIT), Cut::Bad("Message too long"));
        assert_eq!(cut(b"BYE sip:z SIP/2.0\nVia", LIMIT), Cut::Bad("Bare LF"));
        assert_eq!(cut(b"\nBYE", LIMIT), Cut::Bad("Bare LF"));
        assert_eq!(cut(b"\rBYE", LIMIT), Cut::Bad("Bare CR"));
    }
}
