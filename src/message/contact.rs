//! Contact: RFC 3261 §20.10.
//!
//! Owns: reading Contact values with what the registrar asks of them. Never judges them.

use super::headers::Values;
use super::reader::Reader;
use super::span::Span;

/// One Contact value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// Empty for `*`.
    pub uri: Span,
    /// The header's parameters, from the first semicolon on; empty when there is none.
    pub params: Span,
    /// `*` alone.
    pub star: bool,
    /// 0..=1000; none when absent or not a q value.
    pub q: Option<u16>,
    /// Seconds; a malformed value counts as 3600, one above 2^32-1 as 2^32-1 (F08). None when absent.
    pub expires: Option<u32>,
}

impl Contact {
    /// Reads one value; none when it is not an address.
    pub(super) fn read(bytes: &[u8], mut reader: Reader<'_>) -> Option<Contact> {
        reader.skip_space();
        let mut star = reader;
        if star.eat(b'*') {
            star.skip_space();
            return star.is_at_end().then(|| Contact { star: true, ..Contact::default() });
        }
        let (mut q, mut expires) = (None, None);
        let address = reader.address(|name, _, value| match name.len() {
            1 if name.eq_ignore_ascii_case(b"q") => q = read_q(value.of(bytes)),
            7 if name.eq_ignore_ascii_case(b"expires") => expires = Some(value),
            _ => {}
        })?;
        let expires = expires.map(|value| reader.number_in(value).unwrap_or(3600));
        Some(Contact { uri: address.uri, params: address.params, star: false, q, expires })
    }
}

/// `0`, `0.7`, `1.000` in thousandths (RFC 3261 §25.1, qvalue).
fn read_q(text: &[u8]) -> Option<u16> {
    let (whole, digits) = match text {
        [whole] => (whole, &[][..]),
        [whole, b'.', digits @ ..] if digits.len() <= 3 => (whole, digits),
        _ => return None,
    };
    let mut value = match whole {
        b'0' => 0,
        b'1' => 1,
        _ => return None,
    };
    for place in 0..3 {
        let digit = digits.get(place).map_or(0, |byte| byte.wrapping_sub(b'0'));
        if digit > 9 {
            return None;
        }
        value = value * 10 + u16::from(digit);
    }
    (value <= 1000).then_some(value)
}

/// All Contact values of a message, in order. One that cannot be read is `None`.
#[derive(Clone, Debug)]
pub struct Contacts<'a> {
    bytes: &'a [u8],
    values: Values<'a>,
}

impl<'a> Contacts<'a> {
    #[must_use]
    pub(super) fn new(bytes: &'a [u8], values: Values<'a>) -> Contacts<'a> {
        Contacts { bytes, values }
    }
}

impl Iterator for Contacts<'_> {
    type Item = Contact;

    fn next(&mut self) -> Option<Contact> {
        loop {
            let reader = self.values.next()?;
            if let Some(contact) = Contact::read(self.bytes, reader) {
                return Some(contact);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_values_are_thousandths() {
        for (text, q) in
            [("1", Some(1000)), ("0", Some(0)), ("0.7", Some(700)), ("0.25", Some(250)), ("1.000", Some(1000))]
        {
            assert_eq!(read_q(text.as_bytes()), q, "{text}");
        }
        for text in ["", "2", "1.1", "0.1234", "0.x", "-1", ".5"] {
            assert_eq!(read_q(text.as_bytes()), None, "{text}");
        }
    }
}
