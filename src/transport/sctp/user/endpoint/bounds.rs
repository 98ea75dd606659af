//! What one packet may ask of the protocol. The crate answers almost every control chunk with a packet of its own, and keeps
//! something for every stream that it hears of, announced or not: without a bound 64 kB from a peer bring 16,000 packets, and one
//! message on each of 65,536 streams keeps megabytes until the association ends.
//!
//! Owns: these bounds, which no honest peer meets; looked at before a packet is handed on. Never what a packet means.

use super::packet::{Chunk, Packet, TLV, u16_at};

const DATA: u8 = 0;
const I_DATA: u8 = 64;
const RE_CONFIG: u8 = 130;
const FORWARD_TSN: u8 = 192;
const I_FORWARD_TSN: u8 = 194;

/// Chunks of one packet that may be answered, each by itself: honest peers bundle two or three.
pub const MOST_CONTROLS: usize = 16;
/// Parameters of one RE-CONFIG (RFC 6525 §3.1).
const RE_CONFIG_PARAMETERS: usize = 2;

/// May the protocol see it? `streams`: so many were announced.
pub fn are_kept(packet: &Packet<'_>, streams: u16) -> bool {
    let mut controls = 0;
    packet.chunks().all(|chunk| {
        controls += usize::from(is_control(&chunk));
        controls <= MOST_CONTROLS && speaks_of(&chunk, streams)
    })
}

/// Data without data is an error, and answered (RFC 9260 §6.2).
fn is_control(chunk: &Chunk<'_>) -> bool {
    match chunk.kind {
        DATA => chunk.value.len() <= 12,
        I_DATA => chunk.value.len() <= 16,
        _ => true,
    }
}

/// Of streams that were announced, and of no more than it may?
fn speaks_of(chunk: &Chunk<'_>, streams: u16) -> bool {
    let is_announced = |at| u16_at(chunk.value, at).is_none_or(|stream| stream < streams);
    match chunk.kind {
        DATA | I_DATA => is_announced(4),
        FORWARD_TSN => (4..chunk.value.len()).step_by(4).all(is_announced),
        I_FORWARD_TSN => (4..chunk.value.len()).step_by(8).all(is_announced),
        RE_CONFIG => parameters(chunk.value).take(RE_CONFIG_PARAMETERS + 1).count() <= RE_CONFIG_PARAMETERS,
        _ => true,
    }
}

/// The length of each.
fn parameters(mut value: &[u8]) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(value, 2)?).max(TLV);
        value = value.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(length)
    })
}
