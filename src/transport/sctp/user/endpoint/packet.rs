//! SCTP packets as bytes: what the endpoint reads and mends by itself (RFC 9260 §3, appendix A).
//!
//! Owns: offsets, lengths, the checksum. Never keeps a packet, never trusts a length.

/// Bytes of the common header.
pub const HEADER: usize = 12;
/// Bytes of a chunk's or a parameter's type, flags and length.
pub const TLV: usize = 4;
/// Fixed bytes of INIT and INIT ACK behind the chunk's header (§3.3.2).
const INIT_FIXED: usize = 16;

pub const INIT: u8 = 1;
pub const INIT_ACK: u8 = 2;
pub const ABORT: u8 = 6;
pub const SHUTDOWN_ACK: u8 = 8;
pub const ERROR: u8 = 9;
pub const COOKIE_ECHO: u8 = 10;
pub const COOKIE_ACK: u8 = 11;
pub const SHUTDOWN_COMPLETE: u8 = 14;

/// The T bit of ABORT and SHUTDOWN COMPLETE: the verification tag is the sender's, reflected (§8.5.1).
pub const REFLECTED: u8 = 1;
/// The parameter State Cookie (§3.3.3.1).
const STATE_COOKIE: u16 = 7;

/// A packet whose common header and first chunk are there.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'p> {
    pub source: u16,
    pub destination: u16,
    /// Verification tag.
    pub tag: u32,
    pub bytes: &'p [u8],
}

/// One chunk; `at` is where it begins in the packet.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'p> {
    pub kind: u8,
    pub flags: u8,
    pub at: usize,
    /// Behind type, flags and length, without padding.
    pub value: &'p [u8],
}

impl<'p> Packet<'p> {
    /// None: too short for a packet with a chunk.
    #[must_use]
    pub fn read(bytes: &'p [u8]) -> Option<Packet<'p>> {
        let packet =
            Packet { source: u16_at(bytes, 0)?, destination: u16_at(bytes, 2)?, tag: u32_at(bytes, 4)?, bytes };
        packet.first().map(|_| packet)
    }

    /// Is the checksum right (appendix A)?
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.bytes.get(8..HEADER).is_some_and(|field| field == checksum(self.bytes).to_le_bytes())
    }

    #[must_use]
    pub fn first(&self) -> Option<Chunk<'p>> {
        self.chunks().next()
    }

    /// The chunks up to the first that is not whole.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk<'p>> + use<'p> {
        let (bytes, mut at) = (self.bytes, HEADER);
        std::iter::from_fn(move || {
            let chunk = chunk_at(bytes, at)?;
            at += (TLV + chunk.value.len()).next_multiple_of(4);
            Some(chunk)
        })
    }

    #[must_use]
    pub fn has(&self, kind: u8) -> bool {
        self.chunks().any(|chunk| chunk.kind == kind)
    }
}

impl Chunk<'_> {
    /// The Initiate Tag of INIT and INIT ACK; never 0 (§3.3.2).
    #[must_use]
    pub fn initiate_tag(&self) -> Option<u32> {
        u32_at(self.value, 0).filter(|tag| *tag != 0 && self.value.len() >= INIT_FIXED)
    }

    #[must_use]
    pub fn is_reflected(&self) -> bool {
        self.flags & REFLECTED != 0
    }
}

fn chunk_at(bytes: &[u8], at: usize) -> Option<Chunk<'_>> {
    let (kind, flags) = (*bytes.get(at)?, *bytes.get(at + 1)?);
    let length = usize::from(u16_at(bytes, at + 2)?);
    let value = bytes.get(at + TLV..at + length)?;
    Some(Chunk { kind, flags, at, value })
}

/// Where the value of an INIT ACK's State Cookie lies: (start of the parameter, start and end of the value).
#[must_use]
pub fn state_cookie(init_ack: &Chunk<'_>) -> Option<(usize, usize, usize)> {
    let mut at = INIT_FIXED;
    loop {
        let kind = u16_at(init_ack.value, at)?;
        let length = usize::from(u16_at(init_ack.value, at + 2)?);
        init_ack.value.get(at + TLV..at + length)?;
        if kind == STATE_COOKIE {
            let start = init_ack.at + TLV + at;
            return Some((start, start + TLV, start + length));
        }
        at += length.next_multiple_of(4);
    }
}

/// Adds `by` to the 16-bit length that stands two bytes behind `at`.
pub fn lengthen(packet: &mut [u8], at: usize, by: i16) {
    if let Some(field) = packet.get_mut(at + 2..at + 4) {
        let length = u16_at(field, 0).unwrap_or(0).wrapping_add_signed(by);
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// A packet of one chunk.
#[must_use]
pub fn build(source: u16, destination: u16, tag: u32, kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(HEADER + TLV + value.len() + 3);
    packet.extend_from_slice(&source.to_be_bytes());
    packet.extend_from_slice(&destination.to_be_bytes());
    packet.extend_from_slice(&tag.to_be_bytes());
    packet.extend_from_slice(&[0; 4]);
    packet.extend_from_slice(&[kind, flags]);
    packet.extend_from_slice(&((TLV + value.len()) as u16).to_be_bytes());
    packet.extend_from_slice(value);
    packet.resize(packet.len().next_multiple_of(4), 0);
    mend(&mut packet);
    packet
}

/// Writes the right checksum.
pub fn mend(packet: &mut [u8]) {
    let right = checksum(packet).to_le_bytes();
    if let Some(field) = packet.get_mut(8..HEADER) {
        field.copy_from_slice(&right);
    }
}

/// CRC32c over the packet, its own field counted as zero.
fn checksum(packet: &[u8]) -> u32 {
    let head = crc32c::crc32c(packet.get(..8).unwrap_or_default());
    let zero = crc32c::crc32c_append(head, &[0; 4]);
    crc32c::crc32c_append(zero, packet.get(HEADER..).unwrap_or_default())
}

#[must_use]
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}
