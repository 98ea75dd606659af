//! Via: RFC 3261 §20.42, RFC 3581 (rport).
//!
//! Owns: reading one Via value, and walking all of them. Never decides where a response goes.

use std::net::IpAddr;

use super::headers::Values;
use super::reader::{Reader, is_word};
use super::span::Span;
use super::uri::ip_of;

/// The rport parameter (RFC 3581 §3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rport {
    #[default]
    Absent,
    /// There without a value: the next server is to fill it in.
    Asked,
    Filled(u16),
}

/// One Via value; spans into the message's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Via {
    /// From `SIP/2.0` to the end of the last parameter.
    pub value: Span,
    pub transport: Span,
    /// The host of sent-by, an IPv6 address with its brackets.
    pub host: Span,
    pub port: Option<u16>,
    /// Empty when absent.
    pub branch: Span,
    /// Empty when absent.
    pub received: Span,
    pub rport: Rport,
    /// Just behind the name `rport`; 0 when absent.
    pub rport_at: u32,
    /// Empty when absent.
    pub maddr: Span,
    /// Where a further parameter can be put.
    pub params_end: u32,
}

impl Via {
    /// Reads one value; `behind` then stands at the end or before the comma of the next value. None: not a Via.
    /// Unknown, valueless and quoted parameters pass (B10).
    #[inline]
    pub fn read(behind: &mut Reader<'_>) -> Option<Via> {
        // One of our own lives in registers.
        let mut reader = *behind;
        reader.skip_space();
        let start = reader.at();
        if !reader.eat_exactly(b"SIP/2.0/") {
            // The same in small letters or with white space around the slashes.
            for part in [&b"SIP"[..], b"/", b"2.0", b"/"] {
                reader.skip_space();
                if !reader.eat_text(part) {
                    return None;
                }
            }
        }
        reader.skip_space();
        let transport = reader.token();
        let before = reader.at();
        reader.skip_space();
        if transport.is_empty() || reader.at() == before {
            return None;
        }
        let host = if reader.peek() == b'[' {
            let start = reader.at();
            reader.skip_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'[' | b':' | b'.' | b'%'));
            if !reader.eat(b']') {
                return None;
            }
            Span::new(start, reader.at())
        } else {
            reader.host()
        };
        let mut via = Via { transport, host, ..Via::default() };
        if reader.peek() != b';' {
            reader.skip_space();
            if reader.eat(b':') {
                reader.skip_space();
                via.port = Some(u16::try_from(reader.number()?).ok()?);
            }
        }
        // A value that is read later: the port lies in the same bytes.
        let mut filled = Span::EMPTY;
        let end = reader.parameters(|name, at, value| match name.len() {
            6 if is_word(name, b"branch") => via.branch = value,
            5 if is_word(name, b"rport") => {
                via.rport = Rport::Asked;
                via.rport_at = at.end;
                filled = value;
            }
            8 if is_word(name, b"received") => via.received = value,
            5 if is_word(name, b"maddr") => via.maddr = value,
            _ => {}
        })?;
        if !filled.is_empty() {
            via.rport =
                reader.number_in(filled).and_then(|port| u16::try_from(port).ok()).map_or(Rport::Absent, Rport::Filled);
        }
        via.value = Span::new(start, end);
        via.params_end = via.value.end;
        let complete = reader.is_at_end() || reader.peek() == b',';
        if !complete || host.is_empty() {
            return None;
        }
        *behind = reader;
        Some(via)
    }

    /// The host as an address; none when it is a name.
    #[must_use]
    pub fn ip(&self, bytes: &[u8]) -> Option<IpAddr> {
        ip_of(self.host.of(bytes))
    }

    /// Host and port as written, as they are compared with our own.
    #[must_use]
    pub fn sent_by<'b>(&self, bytes: &'b [u8]) -> (&'b [u8], Option<u16>) {
        (self.host.of(bytes), self.port)
    }
}

/// All Via values of a message, topmost first. A value that cannot be read is passed over (B10).
#[derive(Clone, Debug)]
pub struct Vias<'a> {
    values: Values<'a>,
}

impl<'a> Vias<'a> {
    #[must_use]
    pub(super) fn new(values: Values<'a>) -> Vias<'a> {
        Vias { values }
    }
}

impl Iterator for Vias<'_> {
    type Item = Via;

    fn next(&mut self) -> Option<Via> {
        loop {
            let mut reader = self.values.next()?;
            if let Some(via) = Via::read(&mut reader) {
                return Some(via);
            }
        }
    }
}
