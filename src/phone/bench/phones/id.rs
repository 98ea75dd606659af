//! What tells calls and registrations apart: 24 hexadecimal digits, in Call-ID, tags and branches (RFC 3261 §8.1.1, §19.3).
//!
//! Owns: the digits. They name the place where the call is kept, so nothing is searched for; a serial number makes the next call
//! in that place another one.

/// Digits of an id.
pub const LENGTH: usize = 24;
/// Of them: of the run, of the process.
const PREFIX: usize = 10;
const PLACE: usize = 6;

/// Makes and reads the ids of one phone process.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    prefix: [u8; PREFIX],
}

/// An id as text.
pub type Id = [u8; LENGTH];

impl Ids {
    /// `seed` differs between runs, `process` within one.
    #[must_use]
    pub fn new(seed: u32, process: u8) -> Ids {
        let mut prefix = [0; PREFIX];
        let (of_run, of_process) = prefix.split_at_mut(8);
        digits(of_run, seed);
        digits(of_process, u32::from(process));
        Ids { prefix }
    }

    /// `place`: less than 2^24.
    #[must_use]
    pub fn id(&self, place: u32, serial: u32) -> Id {
        let mut id = [0; LENGTH];
        let (prefix, rest) = id.split_at_mut(PREFIX);
        prefix.copy_from_slice(&self.prefix);
        let (of_place, of_serial) = rest.split_at_mut(PLACE);
        digits(of_place, place);
        digits(of_serial, serial);
        id
    }

    /// Place and serial number of an id of this process; none of any other text.
    #[must_use]
    pub fn read(&self, text: &[u8]) -> Option<(u32, u32)> {
        let rest = text.strip_prefix(&self.prefix)?;
        if rest.len() != LENGTH - PREFIX {
            return None;
        }
        let (place, serial) = rest.split_at_checked(PLACE)?;
        Some((number(place)?, number(serial)?))
    }
}

fn digits(room: &mut [u8], mut number: u32) {
    for digit in room.iter_mut().rev() {
        *digit = b"0123456789abcdef".get((number & 15) as usize).copied().unwrap_or(b'0');
        number >>= 4;
    }
}

fn number(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0, |number: u32, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u32::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_by_its_own_process_only() {
        let (ids, others) = (Ids::new(0xdead_beef, 3), Ids::new(0xdead_beef, 4));
        let id = ids.id(0x00ab_cdef, 0x1234_5678);
        assert_eq!(&id, b"deadbeef03abcdef12345678");
        assert_eq!(ids.read(&id), Some((0x00ab_cdef, 0x1234_5678)));
        assert_eq!(others.read(&id), None);
        for wrong in [&b""[..], b"deadbeef03abcdef1234567", b"deadbeef03abcdef123456789", b"deadbeef03abcdeg12345678"] {
            assert_eq!(ids.read(wrong), None);
        }
    }
}
