//! SIP URIs: RFC 3261 §19.1.
//!
//! Owns: taking a URI apart, comparing two, the text that names an address-of-record. Keeps no copy; any bytes may come.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The scheme; anything but sip and sips is for others to understand (B03).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    Sip,
    Sips,
    #[default]
    Other,
}

/// A URI taken apart; slices of the text it was read from. Of a scheme other than sip and sips only `scheme` and `text` are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uri<'a> {
    pub text: &'a [u8],
    pub scheme: Scheme,
    /// Is there a user part (RFC 3261 §19.1.1), even an empty one?
    pub has_user: bool,
    /// As written, escapes included; without the password.
    pub user: &'a [u8],
    pub password: Option<&'a [u8]>,
    /// Without the brackets of an IPv6 address.
    pub host: &'a [u8],
    /// With them.
    pub host_text: &'a [u8],
    pub port: Option<u16>,
    /// Between host and headers, without the first semicolon.
    pub params: &'a [u8],
    /// Behind the question mark.
    pub headers: &'a [u8],
}

impl<'a> Uri<'a> {
    /// Takes a URI apart. None: no scheme, no host, a port that is none.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Option<Uri<'a>> {
        let (scheme, rest) = cut_at(text, b':');
        let rest = rest?;
        if scheme.is_empty() || !scheme.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')) {
            return None;
        }
        let scheme = if scheme.eq_ignore_ascii_case(b"sip") {
            Scheme::Sip
        } else if scheme.eq_ignore_ascii_case(b"sips") {
            Scheme::Sips
        } else {
            return Some(Uri { text, ..Uri::default() });
        };
        let mut uri = Uri { text, scheme, ..Uri::default() };
        // The user part may have `;`, `?` and `/` (RFC 3261 §25.1, user-unreserved), the rest never an unescaped `@`.
        let rest = match cut_at(rest, b'@') {
            (user, Some(rest)) => {
                let (user, password) = cut_at(user, b':');
                (uri.has_user, uri.user, uri.password) = (true, user, password);
                rest
            }
            (rest, None) => rest,
        };
        let (rest, headers) = cut_at(rest, b'?');
        let (host_port, params) = cut_at(rest, b';');
        (uri.headers, uri.params) = (headers.unwrap_or_default(), params.unwrap_or_default());
        let port = if let [b'[', rest @ ..] = host_port {
            let (host, after) = cut_at(rest, b']');
            let after = after?;
            (uri.host, uri.host_text) = (host, host_port.get(..host.len() + 2)?);
            match after {
                [] => None,
                [b':', port @ ..] => Some(port),
                _ => return None,
            }
        } else {
            let (host, port) = cut_at(host_port, b':');
            (uri.host, uri.host_text) = (host, host);
            port
        };
        if let Some(port) = port {
            uri.port = Some(read_port(port)?);
        }
        let good = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'%') || *b >= 0x80;
        (!uri.host.is_empty() && uri.host.iter().all(good)).then_some(uri)
    }

    /// A URI parameter's value, empty when it has none; none when the parameter is absent. Names in any case.
    #[must_use]
    pub fn param(&self, name: &[u8]) -> Option<&'a [u8]> {
        pairs(self.params, b';').find(|(found, _)| same_text(found, name)).map(|(_, value)| value)
    }

    #[must_use]
    pub fn transport(&self) -> Option<&'a [u8]> {
        self.param(b"transport")
    }

    #[must_use]
    pub fn maddr(&self) -> Option<&'a [u8]> {
        self.param(b"maddr")
    }

    #[must_use]
    pub fn lr(&self) -> bool {
        self.param(b"lr").is_some()
    }

    /// The host as an address; none when it is a name.
    #[must_use]
    pub fn host_ip(&self) -> Option<IpAddr> {
        ip_of(self.host)
    }

    #[must_use]
    pub fn is_sip(&self) -> bool {
        self.scheme != Scheme::Other
    }
}

/// Are the two URIs equal (RFC 3261 §19.1.4, F11)? Of another scheme than sip and sips: the same bytes.
#[must_use]
pub fn equals(a: &Uri<'_>, z: &Uri<'_>) -> bool {
    if a.scheme != z.scheme {
        return false;
    }
    if a.scheme == Scheme::Other {
        return a.text == z.text;
    }
    a.has_user == z.has_user
        && unescaped(a.user).eq(unescaped(z.user))
        && a.password.is_some() == z.password.is_some()
        && unescaped(a.password.unwrap_or_default()).eq(unescaped(z.password.unwrap_or_default()))
        && same_host(a, z)
        && a.port == z.port
        && same_params(a, z)
        && same_params(z, a)
        && same_headers(a.headers, z.headers)
        && same_headers(z.headers, a.headers)
}

fn same_host(a: &Uri<'_>, z: &Uri<'_>) -> bool {
    match (a.host_ip(), z.host_ip()) {
        (Some(a), Some(z)) => a == z,
        _ => a.host.eq_ignore_ascii_case(z.host),
    }
}

/// Has each parameter of `a` that counts an equal one in `z`?
fn same_params(a: &Uri<'_>, z: &Uri<'_>) -> bool {
    const COUNT_WHEN_ABSENT: [&[u8]; 5] = [b"transport", b"user", b"ttl", b"method", b"maddr"];
    pairs(a.params, b';').all(|(name, value)| match z.param(name) {
        Some(other) => same_text(value, other),
        None => !COUNT_WHEN_ABSENT.iter().any(|counts| same_text(name, counts)),
    })
}

/// Has each header of `a` an equal one in `z`? Never left out, in any order.
fn same_headers(a: &[u8], z: &[u8]) -> bool {
    pairs(a, b'&').all(|(name, value)| {
        pairs(z, b'&').any(|(other, text)| same_text(name, other) && unescaped(value).eq(unescaped(text)))
    })
}

/// Equal but for the case of letters and for escapes.
fn same_text(a: &[u8], z: &[u8]) -> bool {
    a.eq_ignore_ascii_case(z)
        || unescaped(a).map(|b| b.to_ascii_lowercase()).eq(unescaped(z).map(|b| b.to_ascii_lowercase()))
}

/// The key text of an address-of-record (F04): unescaped user, `@`, host in lower case; no port, no parameters. Appended to `out`.
pub fn canonical(uri: &Uri<'_>, out: &mut Vec<u8>) {
    if uri.scheme == Scheme::Other {
        out.extend_from_slice(uri.text);
        return;
    }
    out.extend(unescaped(uri.user));
    out.push(b'@');
    match uri.host_ip() {
        Some(IpAddr::V6(ip)) => write_ip(IpAddr::V6(ip), out),
        _ => out.extend(uri.host.iter().map(u8::to_ascii_lowercase)),
    }
}

/// Writes a URI as a Request-URI may be (B27): without headers and without the method parameter.
pub fn put_request_uri(text: &[u8], out: &mut Vec<u8>) {
    let Some(uri) = Uri::parse(text).filter(|uri| uri.is_sip() && (!uri.headers.is_empty() || !uri.params.is_empty()))
    else {
        out.extend_from_slice(text.strip_suffix(b"?").unwrap_or(text));
        return;
    };
    let tail = uri.params.len() + usize::from(!uri.params.is_empty());
    let headers = uri.headers.len() + usize::from(!uri.headers.is_empty());
    out.extend_from_slice(text.get(..text.len().saturating_sub(tail + headers)).unwrap_or_default());
    for param in uri.params.split(|b| *b == b';').filter(|param| !same_text(cut_at(param, b'=').0, b"method")) {
        out.push(b';');
        out.extend_from_slice(param);
    }
}

/// Has the URI text this parameter? Quick, for Route values.
#[must_use]
pub fn has_parameter(text: &[u8], name: &[u8]) -> bool {
    let after_user = match memchr::memchr(b'@', text) {
        Some(at) => text.get(at + 1..).unwrap_or_default(),
        None => text,
    };
    let (before_headers, _) = cut_at(after_user, b'?');
    let (_, params) = cut_at(before_headers, b';');
    params.is_some_and(|params| pairs(params, b';').any(|(found, _)| same_text(found, name)))
}

/// An IP address in text, an IPv6 one with or without brackets.
#[must_use]
pub fn ip_of(text: &[u8]) -> Option<IpAddr> {
    if let [b'[', inner @ .., b']'] = text {
        return std::str::from_utf8(inner).ok()?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let text = std::str::from_utf8(text).ok()?;
    if text.contains(':') {
        text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    } else {
        text.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
    }
}

/// Writes an IP address, IPv6 without brackets.
pub fn write_ip(ip: IpAddr, out: &mut Vec<u8>) {
    use std::io::Write;
    match ip {
        IpAddr::V4(v4) => {
            for (nth, octet) in v4.octets().into_iter().enumerate() {
                if nth > 0 {
                    out.push(b'.');
                }
                super::edit::put_number(u32::from(octet), out);
            }
        }
        // Writing to a Vec cannot fail.
        IpAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
}

/// Text with its escapes (`%41`) replaced (RFC 3261 §19.1.2); what is no escape stays.
pub fn unescaped(text: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut rest = text;
    std::iter::from_fn(move || {
        if let [b'%', high, low, tail @ ..] = rest
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            rest = tail;
            return Some(high << 4 | low);
        }
        let (first, tail) = rest.split_first()?;
        rest = tail;
        Some(*first)
    })
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn read_port(text: &[u8]) -> Option<u16> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u16, |port, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then_some(())?;
        port.checked_mul(10)?.checked_add(u16::from(digit))
    })
}

/// Text before the first `stop` and, when there is one, text behind it.
fn cut_at(text: &[u8], stop: u8) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(stop, text) {
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..)),
        None => (text, None),
    }
}

/// `name=value` pairs separated by `between`; empty ones are passed over.
fn pairs(text: &[u8], between: u8) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(move |b| *b == between).filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = cut_at(pair, b'=');
        (name, value.unwrap_or_default())
    })
}
