//! The branch we put in Via: it names slot and generation, carries loop detection (RFC 5393 §4.2) and a keyed hash.
//!
//! Owns: writing and reading that branch, and the key by which a server transaction is found. Never looks into the table.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;
use siphasher::sip128;
use siphasher::sip128::Hasher128;

use super::scan::Message;

/// Names a transaction's slot in the table: global index (0 is none) and generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BranchId {
    pub slot: u32,
    pub generation: u32,
}

/// Marks a branch as unique over space and time (RFC 3261 §8.1.1.7).
pub const COOKIE: &[u8] = b"z9hG4bK";

/// Bytes of a branch of ours.
pub const LENGTH: usize = COOKIE.len() + 8 + 8 + 1 + 8 + 1 + 16;

/// The daemon's secret, drawn at its start: no branch recurs after a restart, and nobody else can make one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key(pub [u64; 2]);

/// What a branch of ours says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ours {
    /// Slot 0: sent without a transaction (an ACK to a 2xx).
    pub id: BranchId,
    /// The second part of RFC 5393 §4.2.1 (B07).
    pub loop_hash: u32,
    pub mac: u64,
}

/// Appends a branch: cookie, slot, generation, `.`, loop hash, `.`, keyed hash, in hexadecimal of fixed width. `upstream_branch` is
/// that of the request as it came: it stands in the Via below ours when the response comes back.
pub fn write(out: &mut Vec<u8>, key: &Key, id: BranchId, loop_hash: u32, upstream_branch: &[u8]) {
    let mut text = [0u8; LENGTH];
    let mut rest = text.as_mut_slice();
    for part in [COOKIE, &hex32(id.slot), &hex32(id.generation), b".", &hex32(loop_hash), b"."] {
        rest = put(rest, part);
    }
    let mac = mac(key, id, loop_hash, upstream_branch);
    #[allow(clippy::cast_possible_truncation)]
    let (high, low) = ((mac >> 32) as u32, mac as u32);
    rest = put(rest, &hex32(high));
    put(rest, &hex32(low));
    out.extend_from_slice(&text);
}

/// Reads a branch; none when it does not have the form of ours. `verify` says whether it is.
#[must_use]
pub fn read(branch: &[u8]) -> Option<Ours> {
    let rest = branch.strip_prefix(COOKIE).filter(|_| branch.len() == LENGTH)?;
    let (slot, rest) = unhex32(rest)?;
    let (generation, rest) = unhex32(rest)?;
    let (loop_hash, rest) = unhex32(rest.strip_prefix(b".")?)?;
    let (high, rest) = unhex32(rest.strip_prefix(b".")?)?;
    let (low, _) = unhex32(rest)?;
    Some(Ours { id: BranchId { slot, generation }, loop_hash, mac: u64::from(high) << 32 | u64::from(low) })
}

impl Ours {
    /// Did we write it, for a request that came with this branch?
    #[must_use]
    pub fn verify(&self, key: &Key, upstream_branch: &[u8]) -> bool {
        self.mac == mac(key, self.id, self.loop_hash, upstream_branch)
    }

    /// Did we write it, for whatever request? All that can be asked of the response to a CANCEL of ours: no Via of the caller stands
    /// below ours in it (C22).
    #[must_use]
    pub fn verify_alone(&self, key: &Key) -> bool {
        self.mac >> 32 == mac(key, self.id, self.loop_hash, &[]) >> 32
    }
}

/// A keyed hash of a Call-ID and a tag as eight hexadecimal digits, for marks of ours that must not be forged.
#[must_use]
pub fn mark(key: &Key, call_id: &[u8], tag: &[u8]) -> [u8; 8] {
    let mut hasher = SipHasher13::new_with_keys(key.0[1], key.0[0]);
    hasher.write(call_id);
    // Neither has a NUL in it: where the one ends and the other begins is part of the mark.
    hasher.write_u8(0);
    hasher.write(tag);
    hex32((hasher.finish() >> 32) as u32)
}

fn mac(key: &Key, id: BranchId, loop_hash: u32, upstream_branch: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(key.0[0], key.0[1]);
    hasher.write_u64(u64::from(id.slot) << 32 | u64::from(id.generation));
    hasher.write_u32(loop_hash);
    // The upper half vouches for what we wrote, the lower half for the request it was written for.
    let alone = hasher.finish() & !u64::from(u32::MAX);
    hasher.write(upstream_branch);
    alone | hasher.finish() & u64::from(u32::MAX)
}

/// The key of the server transaction that a request belongs to: branch and sent-by of the top Via (D22). The method is left to the
/// caller: an ACK finds the INVITE's, a CANCEL any (D23). A branch without the cookie is replaced by the fields of RFC 2543:
/// Request-URI, From tag, Call-ID, CSeq number and the whole top Via (RFC 3261 §17.2.3; the To tag, which an ACK has and its INVITE
/// has not, is left out). SipHash-1-3, 128 bits, keyed: nobody can aim at a bucket.
#[must_use]
pub fn transaction_key(key: &Key, m: &Message<'_>) -> u128 {
    let mut hasher = sip128::SipHasher13::new_with_keys(key.0[0], key.0[1]);
    let via = &m.via;
    let branch = m.of(via.branch);
    if branch.get(..COOKIE.len()).is_some_and(|cookie| cookie.eq_ignore_ascii_case(COOKIE)) {
        hasher.write(branch);
        hasher.write_u32(0x1_0000 | u32::from(via.port.unwrap_or(0)));
        hasher.write(m.of(via.host));
    } else {
        for part in [m.uri(), m.of(m.from_tag), m.of(m.call_id), m.of(via.value)] {
            hasher.write(part);
            hasher.write_u8(0);
        }
        hasher.write_u32(m.cseq.number);
    }
    hasher.finish128().as_u128()
}

/// Copies `part` to the front of `place`, gives back what is left.
fn put<'a>(place: &'a mut [u8], part: &[u8]) -> &'a mut [u8] {
    match place.split_at_mut_checked(part.len()) {
        Some((front, rest)) => {
            front.copy_from_slice(part);
            rest
        }
        None => &mut [],
    }
}

/// Eight hexadecimal digits, made side by side in one word.
fn hex32(value: u32) -> [u8; 8] {
    let mut nibbles = u64::from(value);
    nibbles = (nibbles << 16 | nibbles) & 0x0000_ffff_0000_ffff;
    nibbles = (nibbles << 8 | nibbles) & 0x00ff_00ff_00ff_00ff;
    nibbles = (nibbles << 4 | nibbles) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = ((nibbles + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (nibbles + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

/// Reads eight lower-case hexadecimal digits.
fn unhex32(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_first_chunk::<8>()?;
    let mut value = 0;
    for digit in digits {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        value = value << 4 | u32::from(nibble);
    }
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key([1, 2]);

    #[test]
    fn a_branch_of_ours_reads_back_and_verifies_only_with_key_and_upstream_branch() {
        let id = BranchId { slot: 0x0123_4567, generation: 0x89ab_cdef };
        let mut out = Vec::new();
        write(&mut out, &KEY, id, 0xfedc_ba98, b"z9hG4bKcaller");
        assert_eq!(out.len(), LENGTH);
        assert!(out.starts_with(b"z9hG4bK0123456789abcdef.fedcba98.")); // B34
        let ours = read(&out).unwrap();
        assert_eq!((ours.id, ours.loop_hash), (id, 0xfedc_ba98));
        assert!(ours.verify(&KEY, b"z9hG4bKcaller"));
        assert!(!ours.verify(&KEY, b"z9hG4bKcalles"));
        assert!(!ours.verify(&Key([1, 3]), b"z9hG4bKcaller"));
        assert!(!Ours { id: BranchId { slot: 1, ..id }, ..ours }.verify(&KEY, b"z9hG4bKcaller"));
    }

    #[test]
    fn a_foreign_branch_is_not_ours() {
        let mut out = Vec::new();
        write(&mut out, &KEY, BranchId::default(), 0, b"");
        for at in 0..out.len() {
            let mut other = out.clone();
            other[at] = b'!';
            assert_eq!(read(&other), None);
            assert_eq!(read(&out[..at]), None);
        }
        assert_eq!(read(b""), None);
    }

    #[test]
    fn hexadecimal_is_what_the_standard_library_writes() {
        for value in [0u32, 1, 9, 10, 15, 16, 0xdead_beef, 0x9999_aaaa, u32::MAX] {
            assert_eq!(hex32(value), format!("{value:08x}").as_bytes());
        }
    }
}
