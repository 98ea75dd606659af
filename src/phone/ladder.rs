//! One call's messages as a person would draw them.
//!
//! Owns: what the two phones of one call sent and received, in the order they saw it, by the one clock of their process. What happens
//! inside the proxy is not seen here: a rung on the left is a message between caller and proxy, one on the right between proxy and
//! callee.

use std::fmt::Write;
use std::time::Instant;

use super::agent::CallId;
use crate::message::{self, Method, Start};

/// Whose phone saw the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Caller,
    Callee,
}

/// Which way the message went on its leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToProxy,
    FromProxy,
}

#[derive(Debug)]
struct Rung {
    at: Instant,
    side: Side,
    way: Way,
    name: String,
}

/// The messages of one call.
#[derive(Debug)]
pub struct Ladder {
    call: CallId,
    rungs: Vec<Rung>,
}

/// Characters between two of the three lines.
const LEG: usize = 24;
/// Characters left of the first line.
const MARGIN: usize = 10;

impl Ladder {
    #[must_use]
    pub fn of(call: CallId) -> Ladder {
        Ladder { call, rungs: Vec::new() }
    }

    /// A phone sent or received `bytes`. Messages of other calls are left out.
    pub fn note(&mut self, side: Side, way: Way, bytes: &[u8], at: Instant) {
        let Ok(m) = message::scan(bytes) else { return };
        if m.call_id.of(m.bytes) != &*self.call {
            return;
        }
        let mut name = match m.start {
            Start::Request { method_text, .. } => String::from_utf8_lossy(method_text.of(m.bytes)).into_owned(),
            Start::Response { code, reason } => format!("{code} {}", String::from_utf8_lossy(reason.of(m.bytes))),
        };
        if matches!(m.start, Start::Response { .. }) && m.cseq.method != Method::Invite {
            let _ = write!(name, " ({})", String::from_utf8_lossy(m.cseq.method_text.of(m.bytes)));
        }
        self.rungs.push(Rung { at, side, way, name });
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rungs.is_empty()
    }

    /// The drawing; `heads` names the three lines: caller, proxy, callee. Times are milliseconds since the first message.
    #[must_use]
    pub fn draw(&self, heads: [&str; 3]) -> String {
        let mut out = String::new();
        let blank = " ".repeat(LEG);
        let between = LEG + 1;
        let (side, middle) = (2 * MARGIN + 1, 2 * between - 2 * MARGIN - 1);
        let head = format!("{:^side$}{:^middle$}{:^side$}", heads[0], heads[1], heads[2]);
        let _ = writeln!(out, "{}", head.trim_end());
        let mut rungs: Vec<&Rung> = self.rungs.iter().collect();
        rungs.sort_by_key(|rung| rung.at);
        let began = rungs.first().map(|rung| rung.at);
        for rung in rungs {
            let right = matches!((rung.side, rung.way), (Side::Caller, Way::ToProxy) | (Side::Callee, Way::FromProxy));
            let arrow = arrow(&rung.name, right);
            let (left, right) = match rung.side {
                Side::Caller => (arrow.as_str(), blank.as_str()),
                Side::Callee => (blank.as_str(), arrow.as_str()),
            };
            let ms = began.map_or(0.0, |began| (rung.at - began).as_secs_f64() * 1e3);
            let _ = writeln!(out, "{:MARGIN$}|{left}|{right}|{ms:>9.1} ms", "");
        }
        out
    }
}

/// `---- INVITE ------->`, as wide as a leg.
fn arrow(name: &str, right: bool) -> String {
    let label = format!(" {name:.w$} ", w = LEG - 6);
    match right {
        true => format!("{label:-^w$}>", w = LEG - 1),
        false => format!("<{label:-^w$}", w = LEG - 1),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "phones are outside the message path")]
mod tests {
    use std::time::Duration;

    use super::*;

    fn message(start: &str, call: &str, cseq: &str) -> Vec<u8> {
        format!(
            "{start}\r\nVia: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:z@x>\r\n\
             Call-ID: {call}\r\nCSeq: {cseq}\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes()
    }

    #[test]
    fn arrows_point_the_way_the_message_went_and_other_calls_are_left_out() {
        let t = Instant::now();
        let mut ladder = Ladder::of(b"one".as_slice().into());
        let invite = message("INVITE sip:z@x SIP/2.0", "one", "1 INVITE");
        ladder.note(Side::Caller, Way::ToProxy, &invite, t);
        ladder.note(Side::Callee, Way::FromProxy, &invite, t + Duration::from_micros(1250));
        ladder.note(
            Side::Caller,
            Way::FromProxy,
            &message("SIP/2.0 200 OK", "one", "2 BYE"),
            t + Duration::from_millis(3),
        );
        ladder.note(Side::Caller, Way::ToProxy, &message("BYE sip:z@x SIP/2.0", "two", "2 BYE"), t);
        let lines: Vec<String> = ladder.draw(["a", "strowger", "z"]).lines().map(str::to_owned).collect();
        assert_eq!(
            lines[1..],
            [
                "          |------- INVITE -------->|                        |      0.0 ms",
                "          |                        |------- INVITE -------->|      1.2 ms",
                "          |<---- 200 OK (BYE) -----|                        |      3.0 ms",
            ]
        );
    }
}
