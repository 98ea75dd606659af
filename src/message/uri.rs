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
        let colon = text.iter().position(|b| *b == b':')?;
        let (scheme, rest) = (text.get(..colon)?, text.get(colon + 1..)?);
        let scheme = if scheme.eq_ignore_ascii_case(b"sip") {
            Scheme::Sip
        } else if scheme.eq_ignore_ascii_case(b"sips") {
            Scheme::Sips
        } else {
            let good = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
            return (colon > 0 && scheme.iter().all(good)).then(|| Uri { text, ..Uri::default() });
        };
        let mut uri = Uri { text, scheme, ..Uri::default() };
        let parts = Parts::of(rest);
        if let Some(user) = parts.user {
            let (user, password) = cut_at(user, b':');
            (uri.has_user, uri.user, uri.password) = (true, user, password);
        }
        (uri.headers, uri.params) = (parts.headers.unwrap_or_default(), parts.params.unwrap_or_default());
        let host_port = parts.host_port;
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

    /// How many parameters and headers it has.
    #[must_use]
    pub fn parameters(&self) -> usize {
        pairs(self.params, b';').count() + pairs(self.headers, b'&').count()
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
    let escaped = |text: &[u8]| text.contains(&b'%');
    a.eq_ignore_ascii_case(z)
        || (escaped(a) || escaped(z))
            && unescaped(a).map(|b| b.to_ascii_lowercase()).eq(unescaped(z).map(|b| b.to_ascii_lowercase()))
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

/// Do both name the same address-of-record, as `canonical` writes it?
#[must_use]
pub fn same_record(a: &Uri<'_>, z: &Uri<'_>) -> bool {
    a.is_sip() && z.is_sip() && unescaped(a.user).eq(unescaped(z.user)) && same_host(a, z)
}

/// Writes a URI as a Request-URI may be (B27): without headers and without the method parameter.
pub fn put_request_uri(text: &[u8], out: &mut Vec<u8>) {
    if memchr::memchr2(b';', b'?', text).is_none() {
        out.extend_from_slice(text);
        return;
    }
    let Some(uri) = Uri::parse(text).filter(Uri::is_sip) else {
        out.extend_from_slice(text);
        return;
    };
    let host_at = memchr::memchr(b'@', text).map_or(0, |at| at + 1);
    let behind_host = text.get(host_at..).and_then(|rest| memchr::memchr2(b';', b'?', rest));
    out.extend_from_slice(text.get(..behind_host.map_or(text.len(), |length| host_at + length)).unwrap_or_default());
    for param in uri
        .params
        .split(|b| *b == b';')
        .filter(|param| !param.is_empty() && !same_text(cut_at(param, b'=').0, b"method"))
    {
        out.push(b';');
        out.extend_from_slice(param);
    }
}

/// Has the URI text this parameter? Quick, for Route values.
#[must_use]
pub fn has_parameter(text: &[u8], name: &[u8]) -> bool {
    let params = Parts::of(text).params;
    params.is_some_and(|params| pairs(params, b';').any(|(found, _)| same_text(found, name)))
}

/// An IP address in text, an IPv6 one with or without brackets.
#[must_use]
pub fn ip_of(text: &[u8]) -> Option<IpAddr> {
    if let [b'[', inner @ .., b']'] = text {
        return std::str::from_utf8(inner).ok()?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    if let Some(v4) = ipv4_of(text) {
        return Some(IpAddr::V4(v4));
    }
    // A name has no colon.
    let v6 = text.contains(&b':').then(|| std::str::from_utf8(text).ok())??;
    v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

/// As the standard library reads it (no octet with a leading zero), at a tenth of its instructions: hosts are looked at often.
fn ipv4_of(text: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut rest = text;
    for (nth, octet) in octets.iter_mut().enumerate() {
        if nth > 0 {
            rest = rest.strip_prefix(b".")?;
        }
        let digits = rest.iter().take(4).take_while(|b| b.is_ascii_digit()).count();
        let (text, tail) = rest.split_at_checked(digits)?;
        *octet = match text {
            [] => return None,
            [b'0', _, ..] => return None,
            text => text.iter().try_fold(0u8, |value, b| value.checked_mul(10)?.checked_add(b - b'0'))?,
        };
        rest = tail;
    }
    rest.is_empty().then(|| Ipv4Addr::from(octets))
}

/// Writes an IP address, IPv6 without brackets.
pub fn write_ip(ip: IpAddr, out: &mut Vec<u8>) {
    use std::io::Write;
    match ip {
        IpAddr::V4(v4) => {
            let mut text = [b'.'; 15];
            let mut length = 0;
            let mut put = |byte| {
                if let Some(place) = text.get_mut(length) {
                    *place = byte;
                    length += 1;
                }
            };
            for (nth, octet) in v4.octets().into_iter().enumerate() {
                if nth > 0 {
                    put(b'.');
                }
                if octet >= 100 {
                    put(b'0' + octet / 100);
                }
                if octet >= 10 {
                    put(b'0' + octet / 10 % 10);
                }
                put(b'0' + octet % 10);
            }
            out.extend_from_slice(text.get(..length).unwrap_or_default());
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

/// The parts of what follows the scheme.
struct Parts<'a> {
    /// With the password.
    user: Option<&'a [u8]>,
    host_port: &'a [u8],
    params: Option<&'a [u8]>,
    headers: Option<&'a [u8]>,
}

impl<'a> Parts<'a> {
    /// One walk: `:`, `;`, `?` and `@` are neighbours in ASCII, and all other bytes are passed over with one comparison.
    fn of(text: &'a [u8]) -> Parts<'a> {
        let (mut user, mut host_at) = (None, 0);
        let (mut params_at, mut headers_at) = (None, None);
        for (at, byte) in text.iter().enumerate().filter(|(_, byte)| (b':'..=b'@').contains(*byte)) {
            match byte {
                // The user part may have `;`, `?` and `/` (RFC 3261 §25.1, user-unreserved), the rest never an unescaped `@`.
                b'@' if user.is_none() => {
                    (user, host_at) = (text.get(..at), at + 1);
                    (params_at, headers_at) = (None, None);
                }
                b'?' if headers_at.is_none() => headers_at = Some(at),
                b';' if params_at.is_none() && headers_at.is_none() => params_at = Some(at),
                _ => {}
            }
        }
        let end = headers_at.unwrap_or(text.len());
        Parts {
            user,
            host_port: text.get(host_at..params_at.unwrap_or(end)).unwrap_or_default(),
            params: params_at.and_then(|at| text.get(at + 1..end)),
            headers: headers_at.and_then(|at| text.get(at + 1..)),
        }
    }
}

/// Text before the first `stop` and, when there is one, text behind it. For texts of a few bytes: a longer one is `memchr`'s.
fn cut_at(text: &[u8], stop: u8) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|b| *b == stop) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri<'_> {
        Uri::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn a_uri_is_taken_apart() {
        let u = uri("sips:john.doe:secret@Example.TEST:5061;transport=SCTP;lr;x=%20?Subject=a&b=c");
        assert_eq!((u.scheme, u.user, u.password), (Scheme::Sips, &b"john.doe"[..], Some(&b"secret"[..])));
        assert_eq!((u.host, u.port, u.transport()), (&b"Example.TEST"[..], Some(5061), Some(&b"SCTP"[..]))); // A03
        assert!(u.lr() && u.maddr().is_none());
        assert_eq!(u.headers, b"Subject=a&b=c");
        let u = uri("sip:user;par=u%40example.test@[2001:db8::1];maddr=192.0.2.1");
        assert_eq!((u.user, u.host_text, u.port), (&b"user;par=u%40example.test"[..], &b"[2001:db8::1]"[..], None));
        assert_eq!((u.host_ip(), u.maddr()), (Some("2001:db8::1".parse().unwrap()), Some(&b"192.0.2.1"[..])));
        let u = uri("sip:+1/2?3;p=4@h");
        assert_eq!((u.user, u.host, u.params, u.headers), (&b"+1/2?3;p=4"[..], &b"h"[..], &b""[..], &b""[..]));
        assert_eq!(uri("tel:+1-201-555;ext=1").scheme, Scheme::Other); // B03
        assert!(!uri("sip:h;lr").has_user);
    }

    #[test]
    fn what_is_no_uri_is_refused() {
        for text in [
            "",
            "sip",
            "sip:",
            "sip:@",
            "sip:a@",
            ":h",
            "sip:h:",
            "sip:h:99999",
            "sip:h:5x",
            "sip:[::1",
            "sip:[::1]x",
            "s p:h",
            "sip:a b",
        ] {
            assert_eq!(Uri::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn equal_uris_are_equal_both_ways() {
        for (a, z) in [
            ("sip:%61lice@atlanta.test;transport=TCP", "sip:alice@AtLanTa.test;Transport=tcp"),
            ("sip:carol@chicago.test", "sip:carol@chicago.test;newparam=5"),
            ("sip:carol@chicago.test;newparam=5", "sip:carol@chicago.test;security=on"),
            ("sip:z@h;transport=udp;user=phone", "sip:z@h;user=phone;transport=udp"),
            (
                "sip:alice@atlanta.test?subject=project%20x&priority=urgent",
                "sip:alice@atlanta.test?priority=urgent&subject=project%20x",
            ),
            ("sip:a@[2001:db8::1]", "sip:a@[2001:DB8:0::1]"),
            ("tel:+1", "tel:+1"),
        ] {
            assert!(equals(&uri(a), &uri(z)) && equals(&uri(z), &uri(a)), "{a} {z}"); // F11
        }
    }

    #[test]
    fn different_uris_differ_both_ways() {
        for (a, z) in [
            ("SIP:ALICE@AtLanTa.test;Transport=udp", "sip:alice@AtLanTa.test;Transport=UDP"),
            ("sip:bob@biloxi.test", "sip:bob@biloxi.test:5060"),
            ("sip:bob@biloxi.test", "sip:bob@biloxi.test;transport=udp"),
            ("sip:bob@biloxi.test", "sip:bob@biloxi.test;user=ip"),
            ("sip:bob@biloxi.test", "sip:bob@biloxi.test;maddr=192.0.2.1"),
            ("sip:carol@chicago.test;security=off", "sip:carol@chicago.test;security=on"),
            ("sip:carol@chicago.test", "sip:carol@chicago.test?Subject=next%20meeting"),
            ("sip:bob@phone21.test", "sip:bob@192.0.2.4"),
            ("sip:bob@h", "sips:bob@h"),
            ("sip:bob@h", "sip:bob:x@h"),
            ("sip:h", "sip:@h"),
        ] {
            assert!(!equals(&uri(a), &uri(z)) && !equals(&uri(z), &uri(a)), "{a} {z}"); // F11
        }
    }

    #[test]
    fn an_address_of_record_has_one_name() {
        for (text, key) in [
            ("sip:%41lmon@Example.TEST:5060;transport=sctp?x=y", "Almon@example.test"),
            ("sips:almon:pw@example.test", "almon@example.test"),
            ("sip:example.test", "@example.test"),
            ("sip:a@[2001:DB8:0::1]:5070", "a@2001:db8::1"),
        ] {
            let mut out = Vec::new();
            canonical(&uri(text), &mut out);
            assert_eq!(out, key.as_bytes()); // F04
        }
        let same = |a, z| same_record(&uri(a), &uri(z));
        assert!(same("sip:%41lmon@Example.TEST:5060", "sips:Almon:pw@example.test;transport=sctp"));
        assert!(same("sip:a@[2001:DB8:0::1]:5070", "sip:a@[2001:db8::1]"));
        assert!(!same("sip:almon@example.test", "sip:Almon@example.test"));
        assert!(!same("sip:a@example.test", "sip:a@sub.example.test") && !same("tel:+1", "tel:+1"));
    }

    #[test]
    fn an_address_is_read_as_the_standard_library_reads_it() {
        let texts = [
            "0.0.0.0",
            "127.0.0.1",
            "255.255.255.255",
            "256.1.1.1",
            "1.2.3",
            "1.2.3.",
            "1.2.3.4.",
            "1.2.3.4.5",
            ".1.2.3",
            "1..2.3",
            "01.2.3.4",
            "1.2.3.00",
            "1.2.3.0",
            "1234.1.1.1",
            "1.2.3.4444",
            "a.b.c.d",
            "1.2.3.4x",
            "",
            ":",
            "::1",
            "2001:db8::1",
            "2001:db8::g",
            "::ffff:192.0.2.1",
            "example.test",
            "4.test",
            "1 .2.3.4",
            "+1.2.3.4",
        ];
        for text in texts {
            assert_eq!(ip_of(text.as_bytes()), text.parse().ok(), "{text}");
        }
        assert_eq!(ip_of(b"[::1]"), "::1".parse().ok());
        assert_eq!((ip_of(b"[1.2.3.4]"), ip_of(b"[::1"), ip_of(b"1.2.3.\xff")), (None, None, None));
    }

    #[test]
    fn a_request_uri_has_no_headers_and_no_method() {
        for (text, written) in [
            ("sip:z@h;transport=sctp;method=INVITE;lr?Subject=x", "sip:z@h;transport=sctp;lr"),
            ("sip:z@h;METHOD=INVITE", "sip:z@h"),
            ("sip:z;method=x@h?", "sip:z;method=x@h"),
            ("sip:z?y@h", "sip:z?y@h"),
            ("tel:+1?x", "tel:+1?x"),
        ] {
            let mut out = Vec::new();
            put_request_uri(text.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), written); // B27
        }
    }
}
