//! Request validation: RFC 3261 §16.3, RFC 5393 §4.2.

use std::borrow::Cow;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::identity::Identity;
use crate::message::{Message, Method, Scheme, Uri, branch};

/// Why a request is not forwarded: the answer to it. `extra` are complete header lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub extra: Cow<'static, [u8]>,
}

impl Refusal {
    #[must_use]
    pub fn new(code: u16, reason: &'static str) -> Refusal {
        Refusal { code, reason, extra: Cow::Borrowed(&[]) }
    }
}

/// Says what forbids to forward the request. `loop_hash` is what `loop_hash()` gives for it.
///
/// # Errors
/// 416, 420, 482 or 483 as RFC 3261 §16.3 has it. ACK and CANCEL are not asked for options (§8.2.2.3).
pub fn validate(m: &Message<'_>, uri: Option<&Uri<'_>>, identity: &Identity, loop_hash: u32) -> Result<(), Refusal> {
    let Some(uri) = uri else { return Err(Refusal::new(400, "Bad Request-URI")) };
    if uri.scheme != Scheme::Sip {
        return Err(Refusal::new(416, "Unsupported URI Scheme"));
    }
    // The final recipient may answer an OPTIONS instead (item 3): we are it when it names no user and no further Route.
    let for_us = m.method() == Method::Options && !uri.has_user && m.route_count == 0 && identity.is_ours(uri);
    if matches!(m.max_forwards, Some((0, _))) && !for_us {
        return Err(Refusal::new(483, "Too Many Hops"));
    }
    if m.proxy_require.is_some() && !matches!(m.method(), Method::Ack | Method::Cancel) {
        // We understand no option yet, so all of them are unsupported (item 5).
        let mut extra = Vec::new();
        for value in m.header("Proxy-Require") {
            extra.extend_from_slice(b"Unsupported: ");
            extra.extend(m.of(value).iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b }));
            extra.extend_from_slice(b"\r\n");
        }
        return Err(Refusal { extra: Cow::Owned(extra), ..Refusal::new(420, "Bad Extension") });
    }
    if is_loop(m, identity, loop_hash) {
        return Err(Refusal::new(482, "Loop Detected"));
    }
    Ok(())
}

/// Have we seen this request with the same Request-URI and the same routes (RFC 5393 §4.2.2)? With others it is a spiral.
fn is_loop(m: &Message<'_>, identity: &Identity, loop_hash: u32) -> bool {
    let ours = |via: &crate::message::Via| {
        let (host, port) = via.sent_by(m.bytes);
        identity.is_sent_by(host, port)
            && branch::read(m.of(via.branch)).is_some_and(|ours| ours.loop_hash == loop_hash)
    };
    ours(&m.via) || m.via_count > 1 && m.vias().any(|via| ours(&via))
}

/// The second part of our branch: all that routing reads, never the method; and what differs per transaction (RFC 5393 §4.2.1,
/// §4.2.4).
#[must_use]
pub fn loop_hash(m: &Message<'_>, key: &branch::Key) -> u32 {
    let mut hasher = SipHasher13::new_with_keys(key.0[1], key.0[0]);
    hasher.write(m.uri());
    for route in m.routes_at_hand().take(usize::from(m.route_count)) {
        hasher.write(m.of(route.value));
    }
    hasher.write(m.of(m.call_id));
    hasher.write_u32(m.cseq.number);
    hasher.finish() as u32
}
