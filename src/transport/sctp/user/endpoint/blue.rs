//! Packets out of the blue: for no association of ours (RFC 9260 §8.4).
//!
//! Owns: what is answered to them. Never keeps anything of them.

use super::packet::{
    ABORT, COOKIE_ACK, COOKIE_ECHO, ERROR, Packet, REFLECTED, SHUTDOWN_ACK, SHUTDOWN_COMPLETE, TLV, build, u16_at,
};

/// Error cause: Stale Cookie (§3.3.10.3).
const STALE_COOKIE: u16 = 3;

/// The answer, if there is one. INIT and COOKIE ECHO are the endpoint's, which answers them before it asks here.
#[must_use]
pub fn answer(packet: &Packet<'_>) -> Option<Vec<u8>> {
    // Tag 0 is INIT's alone (§8.5.1 A); nobody is told of an end who tells one.
    if packet.tag == 0 || packet.has(ABORT) || packet.has(SHUTDOWN_COMPLETE) || packet.has(COOKIE_ACK) {
        return None;
    }
    let is_stale_cookie = |value: &[u8]| u16_at(value, 0) == Some(STALE_COOKIE);
    if packet.chunks().any(|chunk| chunk.kind == ERROR && is_stale_cookie(chunk.value)) {
        return None;
    }
    let kind = if packet.has(SHUTDOWN_ACK) { SHUTDOWN_COMPLETE } else { ABORT };
    Some(build(packet.destination, packet.source, packet.tag, kind, REFLECTED, &[]))
}

/// ERROR for a cookie that came back too late (§5.2.6), to who holds `peer_tag`; the measure is in microseconds.
#[must_use]
pub fn stale_cookie(packet: &Packet<'_>, peer_tag: u32, late_ms: u64) -> Vec<u8> {
    let measure = u32::try_from(late_ms.saturating_mul(1000)).unwrap_or(u32::MAX);
    let mut cause = Vec::with_capacity(TLV + 4);
    cause.extend_from_slice(&STALE_COOKIE.to_be_bytes());
    cause.extend_from_slice(&8_u16.to_be_bytes());
    cause.extend_from_slice(&measure.to_be_bytes());
    build(packet.destination, packet.source, peer_tag, ERROR, 0, &cause)
}

/// An association that we do not know any more, ended for the peer: the T bit with the tag it writes to us (§8.5.1 B).
#[must_use]
pub fn abort(source: u16, destination: u16, our_tag: u32) -> Vec<u8> {
    build(source, destination, our_tag, ABORT, REFLECTED, &[])
}

/// Is this one of the packets whose tag may be the peer's own (§8.5.1 B, C, E), so that only its address says whose it is?
#[must_use]
pub fn may_reflect(packet: &Packet<'_>) -> bool {
    packet.chunks().any(|chunk| match chunk.kind {
        ABORT | SHUTDOWN_COMPLETE => chunk.is_reflected(),
        SHUTDOWN_ACK | COOKIE_ECHO => true,
        _ => false,
    })
}
