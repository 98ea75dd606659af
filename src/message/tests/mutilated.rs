//! 200,000 mutilated messages: no panic, every span inside the message, and what passes can be forwarded and scanned again.

use super::super::*;
use super::invite;

/// xorshift64*, seeded: a failing run can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides.max(1)
    }
}

const SCRAPS: [&[u8]; 30] = [
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b"\"",
    b"<",
    b">",
    b";",
    b",",
    b":",
    b"=",
    b"\\",
    b"\r\n ",
    b" ",
    b"\t",
    b"@",
    b"?",
    b"[",
    b"]",
    b"%",
    b"Via: SIP/2.0/UDP b, SIP/2.0/TCP c\r\n",
    b"Route: <sip:p;lr>, <sip:q>\r\n",
    b"Contact: *\r\n",
    b"l: 4\r\n",
    b"4294967295",
    b"\r\n\r\n",
    b"SIP/2.0 ",
    b";rport",
    b";received=1.2.3.4",
    b"\xff",
];

fn seeds() -> [Vec<u8>; 4] {
    let long = invite(
        "Record-Route: <sip:o;lr>\r\nRoute: <sip:p;lr>, <sip:p;transport=sctp;lr>\r\nRoute: \"q\" <sip:q>\r\n\
         v: SIP/2.0/TCP [::1]:5060;rport;branch=z9hG4bKb , SIP/2.0/UDP c;received=192.0.2.1\r\n\
         Contact: \"a\" <sip:a@192.0.2.1>;q=0.7;expires=60, sip:b@b\r\nExpires: 60\r\nRequire: x\r\nX: y\r\n z\r\nContent-Length: 4\r\n",
    );
    let short = invite("");
    let response = long.replace("INVITE sip:z@z.example.test SIP/2.0", "SIP/2.0 183 Session Progress");
    let register = long.replace("INVITE", "REGISTER").replace("Contact: ", "Contact: *\r\nm: ");
    [long + "body", short, response + "body", register].map(String::into_bytes)
}

fn mutilate(dice: &mut Dice, message: &mut Vec<u8>) {
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(message.len() + 1);
        let to = (at + dice.roll(12)).min(message.len());
        match dice.roll(6) {
            0 => message.truncate(at),
            1 => drop(message.drain(at..to)),
            2 => {
                if let Some(byte) = message.get_mut(at) {
                    *byte = dice.roll(256) as u8;
                }
            }
            3 => {
                let copied = message[at..to].to_vec();
                let place = dice.roll(message.len() + 1);
                message.splice(place..place, copied);
            }
            _ => drop(message.splice(at..at, SCRAPS[dice.roll(SCRAPS.len())].iter().copied())),
        }
    }
}

fn inside(m: &Message<'_>, span: Span) {
    assert!(span.start <= span.end && span.end as usize <= m.bytes.len(), "{span:?} of {}", m.bytes.len());
}

fn check(m: &Message<'_>, out: &mut Vec<u8>) {
    assert!(m.start_at < m.headers_at && m.headers_at < m.body_at && m.body_at as usize <= m.bytes.len());
    let mut spans = vec![m.via_cut, m.from, m.from_tag, m.to, m.to_tag, m.call_id, m.cseq.method_text];
    spans.extend(m.max_forwards.map(|(_, span)| span));
    spans.extend(m.content_length.map(|(_, span)| span));
    spans.extend([m.expires, m.require, m.proxy_require].into_iter().flatten());
    for via in m.vias() {
        spans.extend([via.value, via.transport, via.host, via.branch, via.received, via.maddr]);
        let _ = via.ip(m.bytes);
    }
    let routes: Vec<_> = m.routes_all().collect();
    for route in &routes {
        spans.extend([route.uri, route.value, route.cut, route.line]);
        let _ = Uri::parse(m.of(route.uri));
    }
    let contacts: Vec<_> = m.contacts().collect();
    for contact in &contacts {
        spans.extend([contact.uri, contact.params]);
        if let Some(uri) = Uri::parse(m.of(contact.uri)) {
            assert!(uri::equals(&uri, &uri));
            uri::canonical(&uri, out);
        }
    }
    spans.extend(m.header("contact"));
    for span in spans {
        inside(m, span);
    }
    assert!(contacts.len() <= usize::from(m.contact_count));
    if m.is_request() {
        assert_eq!(routes.len(), usize::from(m.route_count));
        assert_eq!(routes.last().copied(), m.last_route);
        assert_eq!([routes.first().copied(), routes.get(1).copied()], m.routes);
    }
    assert_eq!(m.vias().next(), Some(m.via));
    let _ = branch::transaction_key(&branch::Key([1, 2]), m);
}

/// Forwards and answers, and scans the result.
fn again(m: &Message<'_>, dice: &mut Dice) {
    let mut out = Vec::new();
    if m.is_request() {
        let cut = dice.roll(5);
        let edit = RequestEdit {
            uri: (dice.roll(2) == 0).then_some(b"sip:z@192.0.2.9"),
            via: b"Via: SIP/2.0/SCTP p;branch=z9hG4bKp\r\n",
            fix_via: Some(ViaFix { received: [192, 0, 2, 3].into(), rport: Some(7) }),
            record_route: b"Record-Route: <sip:p;lr>\r\n",
            max_forwards: 9,
            cut_routes: cut as u16,
            strict_route: [None, None, Some(StrictRoute::Previous), Some(StrictRoute::Next), Some(StrictRoute::Both)]
                [dice.roll(5)],
        };
        forward_request(m, &edit, &mut out);
        out.extend_from_slice(m.body());
        let bad_uri = edit.strict_route.is_some();
        match scan(&out) {
            Ok(forwarded) => {
                assert_eq!((forwarded.via_count, forwarded.body()), (m.via_count + 1, m.body()));
                assert_eq!(forwarded.max_forwards.map(|(hops, _)| hops), Some(9));
                assert_eq!(
                    (forwarded.of(forwarded.from), forwarded.of(forwarded.call_id)),
                    (m.of(m.from), m.of(m.call_id))
                );
                if edit.strict_route.is_none() {
                    assert_eq!(usize::from(forwarded.route_count), usize::from(m.route_count).saturating_sub(cut));
                }
            }
            // A strict route's URI becomes the Request-URI as it is.
            Err(invalid) => assert!(
                invalid.reason.starts_with("Too many") || bad_uri && invalid.reason == "Bad start line",
                "{invalid}\n{}\n{}",
                m.bytes.escape_ascii(),
                out.escape_ascii()
            ),
        }
        out.clear();
        reply(m, &Reply { code: 400, reason: "x", to_tag: Some(b"t"), fix_via: edit.fix_via, extra: b"" }, &mut out);
        // Of a request only the first Via must be good; its response is scanned for the second, too.
        let has_bad_via = m.via_count > 1 && m.next_via.is_none();
        assert!(scan(&out).is_ok() || has_bad_via, "{}\n{}", m.bytes.escape_ascii(), out.escape_ascii());
    } else {
        forward_response(m, &mut out);
        out.extend_from_slice(m.body());
        match scan(&out) {
            Ok(forwarded) => assert_eq!(
                (forwarded.via_count + 1, forwarded.body()),
                (m.via_count, m.body()),
                "{}
{}",
                m.bytes.escape_ascii(),
                out.escape_ascii()
            ),
            Err(invalid) => assert!(m.via_count == 1 || invalid.reason == "Bad Via", "{invalid}"),
        }
    }
}

#[test]
fn mutilated_messages_never_panic_and_keep_their_spans_inside() {
    let mut dice = Dice(0x5eed_0001);
    let seeds = seeds();
    let mut taken = 0;
    let mut scratch = Vec::new();
    for _ in 0..200_000 {
        let mut bytes = seeds[dice.roll(seeds.len())].clone();
        mutilate(&mut dice, &mut bytes);
        scratch.clear();
        match scan(&bytes) {
            Ok(m) => {
                taken += 1;
                check(&m, &mut scratch);
                again(&m, &mut dice);
            }
            Err(invalid) => {
                let saved = salvage(&bytes);
                assert_eq!(saved.is_some(), invalid.answerable);
                if let Some(m) = saved {
                    let answer =
                        Reply { code: invalid.code, reason: invalid.reason, to_tag: None, fix_via: None, extra: b"" };
                    reply(&m, &answer, &mut scratch);
                }
            }
        }
    }
    assert!((10_000..190_000).contains(&taken), "{taken} of 200,000 were taken");
}

#[test]
fn every_truncation_and_every_single_byte_is_survived() {
    for seed in seeds() {
        for at in 0..seed.len() {
            let _ = scan(&seed[..at]).map(|m| check(&m, &mut Vec::new()));
            for byte in [0, b'\r', b'\n', b'"', b'<', b'>', b',', b';', b' ', 0xff] {
                let mut other = seed.clone();
                other[at] = byte;
                let _ = scan(&other).map(|m| check(&m, &mut Vec::new()));
                let _ = salvage(&other);
            }
        }
    }
}
