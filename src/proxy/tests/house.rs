//! A house with listeners, for the tests of everything that reads a message.

use std::net::IpAddr;

use crate::config::Config;
use crate::message::branch::{self, BranchId};
use crate::message::{Message, Uri, scan};
use crate::proxy::Identity;
use crate::proxy::forward::{self, Leg, Ourselves};
use crate::proxy::route::{self, Course, Routing, Whose};
use crate::transport::{Address, Flow};

pub const KEY: branch::Key = branch::Key([1, 2]);

/// Listeners by number: 0 UDP, 1 TCP, 2 SCTP on 192.0.2.9:5060; 3 UDP, 4 SCTP on [2001:db8::9]:5060.
pub const FIVE: &str = r#"
    [[listen]]
    transport = "udp"
    address = "192.0.2.9:5060"
    [[listen]]
    transport = "tcp"
    address = "192.0.2.9:5060"
    [[listen]]
    transport = "sctp"
    address = "192.0.2.9:5060"
    [[listen]]
    transport = "udp"
    address = "[2001:db8::9]:5060"
    [[listen]]
    transport = "sctp"
    address = "[2001:db8::9]:5060"
"#;

/// One listener whose host and port are others outside.
pub const ADVERTISED: &str = r#"
    [[listen]]
    transport = "udp"
    address = "192.0.2.9:5070"
    advertise = "Sip.Example.Net:15060"
    [[listen]]
    transport = "sctp"
    address = "0.0.0.0:5080"
    advertise = "203.0.113.9:15080"
"#;

pub struct House {
    pub config: Config,
    pub identity: Identity,
}

impl House {
    pub fn new(tables: &str) -> House {
        House::on(tables, &[])
    }

    /// On a machine with these addresses.
    pub fn on(tables: &str, interfaces: &[IpAddr]) -> House {
        let text = format!("workers = 1\ndomains = [\"example.test\"]\n{tables}");
        let config = Config::from_text(&text).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        let identity = Identity::new(&config.listen, &config.live, interfaces);
        House { config, identity }
    }

    pub fn ourselves(&self) -> Ourselves<'_> {
        Ourselves { identity: &self.identity, key: &KEY, record_route: true }
    }

    pub fn is_address(&self, text: &str) -> bool {
        self.identity.is_address(&uri(text))
    }

    pub fn is_ours(&self, text: &str) -> bool {
        self.identity.is_ours(&uri(text))
    }

    pub fn preprocess<'m>(&self, m: &Message<'m>) -> Routing<'m> {
        route::preprocess(m, &Uri::parse(m.uri()).expect("a Request-URI"), &self.identity, &KEY)
    }

    pub fn whose<'m>(&self, m: &Message<'m>) -> Whose<'m> {
        route::whose(m, &self.preprocess(m), &self.identity)
    }

    /// The head as it goes from listener `from` to listener `to` with this Request-URI.
    pub fn forwarded(&self, text: &str, from: u8, to: u8, uri: &str) -> String {
        let mut out = Vec::new();
        let m = read(text);
        forward::request(&m, &self.ourselves(), &self.leg(&m, from, to, uri), &mut Vec::new(), &mut out);
        String::from_utf8(out).expect("text")
    }

    pub fn leg<'u>(&self, m: &Message<'_>, from: u8, to: u8, uri: &'u str) -> Leg<'u> {
        let flow = |listener| Flow { listener, peer: Address::new([192, 0, 2, 1].into(), 5060), ..Flow::default() };
        let course = Course::of(m, &self.identity, &KEY);
        Leg { from: flow(from), to: flow(to), id: BranchId { slot: 7, generation: 3 }, uri: uri.as_bytes(), course }
    }

    /// The Record-Route values of that copy, top first, without brackets and without the mark.
    pub fn record_routes(&self, text: &str, from: u8, to: u8) -> Vec<String> {
        let copy = self.forwarded(text, from, to, "sip:z@192.0.2.2");
        values(&copy, "Record-Route").map(|value| value.split(";k=").next().unwrap_or(value).to_owned()).collect()
    }
}

pub fn uri(text: &str) -> Uri<'_> {
    Uri::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"))
}

pub fn read(text: &str) -> Message<'_> {
    scan(text.as_bytes()).unwrap_or_else(|invalid| panic!("{}: {text}", invalid.reason))
}

/// A request from 192.0.2.1 with these further header lines, each with its CRLF.
pub fn request(method: &str, uri: &str, headers: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa\r\n{headers}\
         From: <sip:a@192.0.2.1>;tag=a\r\nTo: <sip:z@example.test>\r\nCall-ID: one\r\nCSeq: 1 {method}\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

/// The same inside a dialog.
pub fn in_dialog(method: &str, uri: &str, headers: &str) -> String {
    request(method, uri, headers).replace("To: <sip:z@example.test>", "To: <sip:z@example.test>;tag=z")
}

/// The values of the header lines with this name, angle brackets taken off.
pub fn values<'t>(text: &'t str, name: &'t str) -> impl Iterator<Item = &'t str> {
    let lines = text.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix(": "));
    lines.flat_map(|line| line.split(", ")).map(|value| value.trim_matches(['<', '>']))
}
