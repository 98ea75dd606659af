//! What a REGISTER asks for: RFC 3261 §10.2, §10.3 items 2, 5, 6 and the reading part of 7.
//!
//! Owns: reading and refusing, before any lock is taken. Pure: knows no binding, changes nothing.

use std::ops::Range;

use crate::config::{Limits, Registrar};
use crate::message::reader::{Reader, is_token};
use crate::message::uri::equals;
use crate::message::{Contact, Message, Span, Uri};

/// Bytes of a Contact value, URI and parameters; longer ones are refused.
pub const LONGEST_CONTACT: usize = 1024;
/// Parameters and headers of a Contact's URI; one with more is refused. Comparing two URIs walks one list for each entry of the other
/// (RFC 3261 §19.1.4), and within a REGISTER each may meet each.
pub const MOST_PARAMETERS: usize = 16;
/// Bytes of a Call-ID in a REGISTER; longer ones are refused.
pub const LONGEST_CALL_ID: usize = 1024;

/// What the request is about; the contacts of a `Change` are listed beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// No Contact (F05).
    Query,
    /// `*` with Expires 0 (F06).
    Clear,
    Change,
}

/// One contact to bind, or to remove when `seconds` is 0.
pub struct Wanted {
    /// In the message.
    pub uri: Span,
    /// `;name=value...` without `expires`, in the scratch bytes.
    pub params: Range<usize>,
    pub q: u16,
    /// Granted, not asked.
    pub seconds: u32,
    /// A later contact of the same request has an equal URI: that one counts.
    pub superseded: bool,
    /// The binding that this one takes the place of.
    pub replaces: Option<u32>,
}

impl Wanted {
    /// The URI, which was found good.
    pub fn uri<'a>(&self, m: &Message<'a>) -> Uri<'a> {
        Uri::parse(m.of(self.uri)).unwrap_or_default()
    }
}

/// Why a REGISTER is refused; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400 and its reason phrase.
    Bad(&'static str),
    /// 403: more contacts than one address-of-record may have (F20). A retry will not help, so neither 500 nor 503.
    TooMany,
    /// 404: no address-of-record of a domain of ours (F04).
    NoSuchUser,
    /// 420: every option tag, because there is none that a REGISTER needs and we know (F02).
    Extension,
    /// 423 (F09).
    TooBrief,
    /// 500: same Call-ID, CSeq not higher (F13).
    OutOfOrder,
    /// 503: shared memory is full.
    Full,
    /// 500: a list in shared memory was torn. Never seen.
    Torn,
}

/// The To URI: what is being registered. `None` when it cannot be an address-of-record: not sip or sips, or without a user. Whether
/// its domain is ours is the caller's question.
#[must_use]
pub fn address_of_record<'a>(m: &Message<'a>) -> Option<Uri<'a>> {
    let address = Reader::new(m.bytes, m.to).address(|_, _, _| {})?;
    Uri::parse(m.of(address.uri)).filter(|uri| uri.is_sip() && !uri.user.is_empty())
}

/// Reads whom and what the request is about; its contacts into `wanted`, their parameters into `bytes`.
pub fn read<'a>(
    m: &Message<'a>,
    registrar: &Registrar,
    limits: &Limits,
    bytes: &mut Vec<u8>,
    wanted: &mut Vec<Wanted>,
) -> Result<(Uri<'a>, Ask), Refusal> {
    if m.header("Require").any(|tags| !tags.is_empty()) {
        return Err(Refusal::Extension);
    }
    let address_of_record = address_of_record(m).ok_or(Refusal::NoSuchUser)?;
    if m.call_id.len() > LONGEST_CALL_ID {
        return Err(Refusal::Bad("Call-ID Too Long"));
    }
    let count = usize::from(m.contact_count);
    if count == 0 {
        return Ok((address_of_record, Ask::Query));
    }
    // Twice the limit lets a phone replace all its contacts in one request.
    if count > limits.contacts.saturating_mul(2).max(1) {
        return Err(Refusal::TooMany);
    }
    // What cannot be read is passed over by `contacts`, but was counted.
    if m.contacts().count() != count {
        return Err(Refusal::Bad("Bad Contact"));
    }
    let header = m.expires.map(|value| Reader::new(m.bytes, value).number_in(value));
    if m.contacts().any(|contact| contact.star) {
        return match (count, header) {
            (1, Some(Some(0))) => Ok((address_of_record, Ask::Clear)),
            (1, _) => Err(Refusal::Bad("Contact * Needs Expires 0")),
            _ => Err(Refusal::Bad("Contact * With Others")),
        };
    }
    // F08: malformed counts as 3600.
    let header = header.map(|seconds| seconds.unwrap_or(3600));
    for contact in m.contacts() {
        let params = bytes.len();
        take(m, &contact, bytes)?;
        wanted.push(Wanted {
            uri: contact.uri,
            params: params..bytes.len(),
            q: contact.q.unwrap_or(1000),
            seconds: grant(contact.expires.or(header), registrar)?,
            superseded: false,
            replaces: None,
        });
    }
    supersede(m, wanted);
    Ok((address_of_record, Ask::Change))
}

/// F08, F09: the contact's parameter, else the header, else the default; never more than the largest.
fn grant(asked: Option<u32>, registrar: &Registrar) -> Result<u32, Refusal> {
    if asked.is_some_and(|asked| 0 < asked && asked < registrar.min_expires_s && asked < 3600) {
        return Err(Refusal::TooBrief);
    }
    Ok(asked.unwrap_or(registrar.default_expires_s).min(registrar.max_expires_s))
}

/// Checks a contact and appends the parameters that its binding keeps (F18): all but `expires`, which is listed anew each time.
fn take(m: &Message<'_>, contact: &Contact, bytes: &mut Vec<u8>) -> Result<(), Refusal> {
    const BAD: Refusal = Refusal::Bad("Bad Contact");
    let uri = m.of(contact.uri);
    if uri.len() + contact.params.len() > LONGEST_CONTACT {
        return Err(Refusal::Bad("Contact Too Long"));
    }
    // It will stand in angle brackets, and in a start line.
    let clean = uri.iter().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"'));
    let uri = Uri::parse(uri).filter(|_| clean).ok_or(BAD)?;
    if uri.parameters() > MOST_PARAMETERS {
        return Err(Refusal::Bad("Contact With Too Many Parameters"));
    }

    let mut good = true;
    let mut each = |name: &[u8], value: Span| {
        let value = m.of(value);
        good &= !name.is_empty() && name.iter().copied().all(is_token);
        // A quoted string is whole, or the contact could not have been read.
        good &= value.first() == Some(&b'"') || !value.iter().any(|byte| matches!(byte, b'<' | b'>' | b'"'));
        if !name.eq_ignore_ascii_case(b"expires") {
            bytes.push(b';');
            bytes.extend_from_slice(name);
            if !value.is_empty() {
                bytes.push(b'=');
                bytes.extend(value.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }));
            }
        }
    };
    Reader::new(m.bytes, contact.params).parameters(|_, name, value| each(m.of(name), value));
    if good { Ok(()) } else { Err(BAD) }
}

/// Of contacts with equal URIs the last one counts.
fn supersede(m: &Message<'_>, wanted: &mut [Wanted]) {
    for nth in 1..wanted.len() {
        let (before, rest) = wanted.split_at_mut(nth);
        let Some(uri) = rest.first().map(|this| this.uri(m)) else { return };
        for earlier in before.iter_mut().filter(|earlier| !earlier.superseded) {
            earlier.superseded = equals(&earlier.uri(m), &uri);
        }
    }
}
