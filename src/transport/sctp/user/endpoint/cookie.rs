//! Sealed State Cookies (RFC 9260 §5.1.3): a keyed MAC and the time of making behind the cookie that the protocol wrote.
//!
//! Owns: sealing an INIT ACK on its way out, opening a COOKIE ECHO on its way in. So an INIT leaves nothing here, and nobody but who
//! got the INIT ACK can bring the cookie back. Never keeps anything but the key, which all processes share.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use zerocopy::IntoBytes;

use super::packet::{self, COOKIE_ECHO, INIT_ACK, Packet, TLV};
use crate::timer::Tick;
use crate::transport::Address;

/// Valid.Cookie.Life (§16), milliseconds.
const LIFE_MS: u64 = 60_000;
const TIME: usize = 8;
/// Half of HMAC-SHA256: more than anybody can guess within a cookie's life.
const MAC: usize = 16;
/// The peer's own tag, for what must be said to it without an association.
const PEER_TAG: usize = 4;
/// Bytes that a seal adds; a multiple of 4, so padding stays as it was.
const SEAL: usize = TIME + PEER_TAG + MAC;

pub struct Seal {
    keyed: Hmac<Sha256>,
}

/// Why a cookie was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not ours, not for this peer, or not whole.
    Forged,
    /// Ours, and this many milliseconds too old; the tag is the peer's.
    Stale { late_ms: u64, peer_tag: u32 },
}

impl Seal {
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Seal {
        // HMAC takes a key of any length (RFC 2104 §2), so this is never an error; `expect` would be a panic all the same.
        let keyed = Hmac::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default()));
        Seal { keyed }
    }

    /// Puts the seal on the cookie of an INIT ACK to `peer` (its IP address and SCTP port).
    #[must_use]
    pub fn put(&self, mut bytes: Vec<u8>, peer: Address, now: Tick) -> Option<Vec<u8>> {
        let packet = Packet::read(&bytes)?;
        let chunk = packet.first().filter(|chunk| chunk.kind == INIT_ACK)?;
        let tag = chunk.initiate_tag()?;
        let (parameter, start, end) = packet::state_cookie(&chunk)?;
        let (chunk_at, port, peer_tag) = (chunk.at, packet.source, packet.tag);
        let mut seal = [0; SEAL];
        let (noted, mac) = seal.split_at_mut(TIME + PEER_TAG);
        noted.iter_mut().zip(now.0.to_be_bytes().into_iter().chain(peer_tag.to_be_bytes())).for_each(|(to, b)| *to = b);
        mac.copy_from_slice(&self.mac(bytes.get(start..end)?, noted, peer, port, tag));
        bytes.splice(end..end, seal);
        packet::lengthen(&mut bytes, parameter, SEAL as i16);
        packet::lengthen(&mut bytes, chunk_at, SEAL as i16);
        packet::mend(&mut bytes);
        Some(bytes)
    }

    /// Takes the seal off the cookie of a COOKIE ECHO from `peer`.
    ///
    /// # Errors
    /// The cookie is forged or stale: the packet is not for the protocol.
    pub fn take(&self, packet: &Packet<'_>, peer: Address, now: Tick) -> Result<Vec<u8>, Refusal> {
        let chunk = packet.first().filter(|chunk| chunk.kind == COOKIE_ECHO).ok_or(Refusal::Forged)?;
        let cookie = chunk.value.len().checked_sub(SEAL).ok_or(Refusal::Forged)?;
        let (cookie, seal) = chunk.value.split_at(cookie);
        let (noted, mac) = seal.split_at(TIME + PEER_TAG);
        let right = self.mac(cookie, noted, peer, packet.destination, packet.tag);
        // Without a hint of how much of it was right.
        if !bool::from(subtle::ConstantTimeEq::ct_eq(mac, &right[..])) {
            return Err(Refusal::Forged);
        }
        let (time, peer_tag) = noted.split_at(TIME);
        let age = now.since(Tick(time.try_into().map_or(0, u64::from_be_bytes)));
        if age > LIFE_MS {
            let peer_tag = peer_tag.try_into().map_or(0, u32::from_be_bytes);
            return Err(Refusal::Stale { late_ms: age - LIFE_MS, peer_tag });
        }
        let end = chunk.at + TLV + chunk.value.len();
        let mut bytes = packet.bytes.to_vec();
        bytes.drain(end - SEAL..end);
        packet::lengthen(&mut bytes, chunk.at, -(SEAL as i16));
        packet::mend(&mut bytes);
        Ok(bytes)
    }

    /// Over the cookie, what is noted behind it, for whom it is, and under which verification tag it must come back.
    fn mac(&self, cookie: &[u8], noted: &[u8], peer: Address, port: u16, tag: u32) -> [u8; MAC] {
        let mut mac = self.keyed.clone();
        mac.update(noted);
        mac.update(peer.as_bytes());
        mac.update(&port.to_be_bytes());
        mac.update(&tag.to_be_bytes());
        mac.update(cookie);
        let whole = mac.finalize().into_bytes();
        let mut half = [0; MAC];
        half.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
        half
    }
}
