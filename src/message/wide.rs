//! Sixteen bytes side by side: which of them are of a kind, as a mask whose bit 0 is the first byte.
//!
//! Owns: the kinds that a scan looks for, compared in the vector registers that every x86-64 has (SSE2), byte by byte elsewhere.
//! Never reads past the bytes it is given.

/// Bytes looked at side by side.
pub const WIDTH: usize = 16;

/// Those below 14, among which CR, LF and NUL are.
#[inline]
#[must_use]
pub fn controls(chunk: &[u8; WIDTH]) -> u32 {
    kinds::controls(chunk)
}

#[inline]
#[must_use]
pub fn colons(chunk: &[u8; WIDTH]) -> u32 {
    kinds::colons(chunk)
}

/// `>`.
#[inline]
#[must_use]
pub fn closing(chunk: &[u8; WIDTH]) -> u32 {
    kinds::closing(chunk)
}

/// What ends a host: white space, `:`, `;`, `,`, `"`, `<`; and what else is below `"`, and `=`.
#[inline]
#[must_use]
pub fn host_ends(chunk: &[u8; WIDTH]) -> u32 {
    kinds::host_ends(chunk)
}

/// What a Request-URI must not have: white space, `<`, `>`; and what else is below.
#[inline]
#[must_use]
pub fn uri_stops(chunk: &[u8; WIDTH]) -> u32 {
    kinds::uri_stops(chunk)
}

/// What ends the name or the unquoted value of a parameter: white space, `;`, `,`, `=`, `"`, `<`; and what else is below `"`.
#[inline]
#[must_use]
pub fn parameter_ends(chunk: &[u8; WIDTH]) -> u32 {
    kinds::parameter_ends(chunk)
}

/// What is of interest before an address: `"`, `<`, `>`, `;`, `,`; and `=`.
#[inline]
#[must_use]
pub fn address_stops(chunk: &[u8; WIDTH]) -> u32 {
    kinds::address_stops(chunk)
}

#[cfg(target_arch = "x86_64")]
mod kinds {
    use safe_arch::{
        cmp_eq_mask_i8_m128i, load_unaligned_m128i, m128i, min_u8_m128i, move_mask_i8_m128i, set_splat_i8_m128i,
        sub_i8_m128i,
    };

    #[inline]
    fn each(byte: u8) -> m128i {
        set_splat_i8_m128i(byte.cast_signed())
    }

    #[inline]
    fn equal(chunk: m128i, byte: u8) -> m128i {
        cmp_eq_mask_i8_m128i(chunk, each(byte))
    }

    #[inline]
    fn up_to(chunk: m128i, last: u8) -> m128i {
        cmp_eq_mask_i8_m128i(min_u8_m128i(chunk, each(last)), chunk)
    }

    #[inline]
    fn from_to(chunk: m128i, first: u8, last: u8) -> m128i {
        up_to(sub_i8_m128i(chunk, each(first)), last - first)
    }

    #[inline]
    fn mask(found: m128i) -> u32 {
        move_mask_i8_m128i(found).cast_unsigned()
    }

    #[inline]
    pub fn controls(chunk: &[u8; 16]) -> u32 {
        mask(up_to(load_unaligned_m128i(chunk), 13))
    }

    #[inline]
    pub fn colons(chunk: &[u8; 16]) -> u32 {
        mask(equal(load_unaligned_m128i(chunk), b':'))
    }

    #[inline]
    pub fn closing(chunk: &[u8; 16]) -> u32 {
        mask(equal(load_unaligned_m128i(chunk), b'>'))
    }

    #[inline]
    pub fn host_ends(chunk: &[u8; 16]) -> u32 {
        let chunk = load_unaligned_m128i(chunk);
        mask(up_to(chunk, b'"') | from_to(chunk, b':', b'=') | equal(chunk, b','))
    }

    #[inline]
    pub fn uri_stops(chunk: &[u8; 16]) -> u32 {
        let chunk = load_unaligned_m128i(chunk);
        mask(up_to(chunk, b' ') | equal(chunk, b'<') | equal(chunk, b'>'))
    }

    #[inline]
    pub fn parameter_ends(chunk: &[u8; 16]) -> u32 {
        let chunk = load_unaligned_m128i(chunk);
        mask(up_to(chunk, b'"') | from_to(chunk, b';', b'=') | equal(chunk, b','))
    }

    #[inline]
    pub fn address_stops(chunk: &[u8; 16]) -> u32 {
        let chunk = load_unaligned_m128i(chunk);
        mask(from_to(chunk, b';', b'>') | equal(chunk, b'"') | equal(chunk, b','))
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod kinds {
    #[inline]
    fn mask(chunk: &[u8; 16], wanted: impl Fn(u8) -> bool) -> u32 {
        chunk.iter().rev().fold(0, |mask, byte| mask << 1 | u32::from(wanted(*byte)))
    }

    pub fn controls(chunk: &[u8; 16]) -> u32 {
        mask(chunk, |byte| byte <= 13)
    }

    pub fn colons(chunk: &[u8; 16]) -> u32 {
        mask(chunk, |byte| byte == b':')
    }

    pub fn closing(chunk: &[u8; 16]) -> u32 {
        mask(chunk, |byte| byte == b'>')
    }

    pub fn host_ends(chunk: &[u8; 16]) -> u32 {
        mask(chunk, |byte| matches!(byte, 0..=b'"' | b':'..=b'=' | b','))
    }

    pub fn uri_stops(chunk: &[u8; 16]) -> u32 {
        mask(chunk, |byte| matches!(byte, 0..=b' ' | b'<' | b'>'))
    }

    pub fn parameter_ends(chunk: &[u8; 16]) -> u32 {
        mask(chunk, |byte| matches!(byte, 0..=b'"' | b';'..=b'=' | b','))
    }

    pub fn address_stops(chunk: &[u8; 16]) -> u32 {
        mask(chunk, |byte| matches!(byte, b';'..=b'>' | b'"' | b','))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_of_its_kinds_at_every_place() {
        for byte in 0..=255u8 {
            for place in 0..WIDTH {
                let mut chunk = [b'x'; WIDTH];
                chunk[place] = byte;
                let bit = |is: bool| u32::from(is) << place;
                assert_eq!(controls(&chunk), bit(byte < 14));
                assert_eq!(colons(&chunk), bit(byte == b':'));
                assert_eq!(closing(&chunk), bit(byte == b'>'));
                assert_eq!(host_ends(&chunk), bit(matches!(byte, 0..=b'"' | b':'..=b'=' | b',')));
                assert_eq!(uri_stops(&chunk), bit(matches!(byte, 0..=b' ' | b'<' | b'>')));
                assert_eq!(parameter_ends(&chunk), bit(matches!(byte, 0..=b'"' | b';'..=b'=' | b',')));
                assert_eq!(address_stops(&chunk), bit(matches!(byte, b';'..=b'>' | b'"' | b',')));
            }
        }
    }
}
