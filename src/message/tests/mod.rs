//! The room's tests, grouped by what a message suffers: scanned, forwarded, answered, mutilated.

mod forwarded;
mod mutilated;
mod scanned;
mod second_opinion;
mod written;

use super::{Message, scan};

/// A request between peers `a` and `z` with these header lines more.
fn invite(more: &str) -> String {
    format!(
        "INVITE sip:z@z.example.test SIP/2.0\r\nVia: SIP/2.0/UDP a.example.test;branch=z9hG4bKa1\r\nMax-Forwards: 70\r\n\
         From: <sip:a@example.test>;tag=from\r\nTo: <sip:z@example.test>\r\nCall-ID: call@a\r\nCSeq: 1 INVITE\r\n{more}\r\n"
    )
}

fn scanned(text: &str) -> Message<'_> {
    match scan(text.as_bytes()) {
        Ok(message) => message,
        Err(invalid) => panic!("{}: {text}", invalid.reason),
    }
}

/// The reason why a message is refused.
fn refused(text: impl AsRef<[u8]>) -> &'static str {
    scan(text.as_ref()).err().map_or("taken", |invalid| invalid.reason)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
