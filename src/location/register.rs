//! REGISTER: RFC 3261 §10.3 items 6 to 8.
//!
//! Owns: the decision and its application, both under the one lock of the address-of-record's bucket (F14, F15): first everything is
//! looked at, then all is changed or nothing. Reading the request is done before (`ask`).

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use super::ask::{self, Ask, Refusal};
use super::{Location, Scratch, parts, with_scratch};
use crate::config::{Limits, Registrar};
use crate::message::Message;
use crate::message::uri::equals;
use crate::shared::bindings::{BindingBucket, Key, New};
use crate::timer::Tick;

/// Seconds after which a phone may try again when the table is full.
const RETRY_AFTER_S: u32 = 30;

impl Location {
    /// Does what the REGISTER `m` asks for, which came from somebody who may, for a domain of ours. Returns the response's code and
    /// reason phrase, and appends its header lines to `extra`: Contact and Date (F16), or Unsupported, Min-Expires, Retry-After.
    /// `wall`: seconds since 1970. Any code but 200: nothing was changed; 503: the table is full, count it.
    pub fn register(
        &self,
        m: &Message<'_>,
        now: Tick,
        wall: u64,
        registrar: &Registrar,
        limits: &Limits,
        extra: &mut Vec<u8>,
    ) -> (u16, &'static str) {
        match with_scratch(|scratch| self.decide(m, now, registrar, limits, scratch, extra)) {
            Ok(()) => {
                // The last second that an HTTP date can say.
                let wall = UNIX_EPOCH + Duration::from_secs(wall.min(253_402_300_799));
                line(extra, format_args!("Date: {}", httpdate::HttpDate::from(wall)));
                (200, "OK")
            }
            Err(refusal) => refuse(refusal, m, registrar, extra),
        }
    }

    fn decide(
        &self,
        m: &Message<'_>,
        now: Tick,
        registrar: &Registrar,
        limits: &Limits,
        scratch: &mut Scratch,
        extra: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let (address_of_record, ask) = ask::read(m, registrar, limits, &mut scratch.bytes, &mut scratch.wanted)?;
        let key = self.key(&address_of_record, &mut scratch.bytes);

        let mut bucket = self.bindings.enter(key);
        if let Some(record) = bucket.find(key) {
            if ask != Ask::Query {
                bucket.expire_of(record, now);
            }
            scratch.know(&bucket, record, now, m.of(m.call_id));
        }
        match ask {
            Ask::Query => {}
            Ask::Clear => clear(&mut bucket, key, m, scratch)?,
            Ask::Change => change(&mut bucket, key, m, now, limits, scratch)?,
        }
        list(&bucket, key, now, scratch, extra);
        Ok(())
    }
}

/// F07: all bindings go, unless one was made by a later request of the same Call-ID.
fn clear(bucket: &mut BindingBucket, key: Key, m: &Message<'_>, scratch: &Scratch) -> Result<(), Refusal> {
    if scratch.known.iter().any(|known| known.same_call && m.cseq.number <= known.cseq) {
        return Err(Refusal::OutOfOrder);
    }
    if scratch.known.is_empty() {
        return Ok(());
    }
    let record = bucket.open(key).ok_or(Refusal::Torn)?;
    for known in &scratch.known {
        bucket.remove(record, known.number);
    }
    bucket.close(record);
    Ok(())
}

/// F09 to F15, F18.
fn change(
    bucket: &mut BindingBucket,
    key: Key,
    m: &Message<'_>,
    now: Tick,
    limits: &Limits,
    scratch: &mut Scratch,
) -> Result<(), Refusal> {
    let Scratch { bytes, known, wanted } = scratch;
    wanted.retain(|wanted| !wanted.superseded);
    for wanted in wanted.iter_mut() {
        let uri = wanted.uri(m);
        let equal = |old: &&mut super::Known| !old.goes && old.uri(bytes).is_some_and(|old| equals(&old, &uri));
        if let Some(old) = known.iter_mut().find(equal) {
            // F12: another Call-ID is another boot of the phone, whose CSeq says nothing.
            if old.same_call && m.cseq.number <= old.cseq {
                return Err(Refusal::OutOfOrder);
            }
            old.goes = true;
            wanted.replaces = Some(old.number);
        }
    }
    let new = |wanted: &ask::Wanted| New {
        uri: m.of(wanted.uri),
        params: bytes.get(wanted.params.clone()).unwrap_or_default(),
        call_id: m.of(m.call_id),
        cseq: m.cseq.number,
        q: wanted.q,
        expires: now + u64::from(wanted.seconds) * 1000,
    };

    let going = known.iter().filter(|known| known.goes);
    let (gone, freed) = going.fold((0, 0), |(n, blocks), known| (n + 1, blocks + known.blocks));
    let coming = wanted.iter().filter(|wanted| wanted.seconds > 0);
    let (come, needed) = coming.fold((0, 0), |(n, blocks), wanted| (n + 1, blocks + new(wanted).blocks()));
    let after = known.len() - gone + come;
    // After the limit was lowered, what is there may still be refreshed.
    if after > limits.contacts && after > known.len() {
        return Err(Refusal::TooMany);
    }
    let record = bucket.find(key);
    if come > bucket.room(record) + gone || needed > bucket.text.available() + freed {
        return Err(Refusal::Full);
    }
    if gone + come == 0 {
        return Ok(());
    }

    let record = bucket.open(key).ok_or(Refusal::Full)?;
    for wanted in wanted.iter() {
        match wanted.replaces {
            Some(old) if wanted.seconds == 0 => bucket.remove(record, old),
            // All old text first: the new may need its blocks.
            Some(old) => bucket.forget_text(old),
            None => {}
        }
    }
    let whole = wanted
        .iter()
        .filter(|wanted| wanted.seconds > 0)
        .all(|wanted| bucket.put(record, wanted.replaces, &new(wanted)));
    bucket.close(record);
    if whole { Ok(()) } else { Err(Refusal::Torn) }
}

/// F16: every live binding with the seconds it has left.
fn list(bucket: &BindingBucket, key: Key, now: Tick, scratch: &mut Scratch, extra: &mut Vec<u8>) {
    let Some(record) = bucket.find(key) else { return };
    for (_, binding) in bucket.of(record).filter(|(_, binding)| binding.expires > now) {
        scratch.bytes.clear();
        bucket.text.read(binding.text, &mut scratch.bytes);
        let (uri_end, params_end) = parts(binding);
        let part = |range| scratch.bytes.get(range).unwrap_or_default();
        extra.extend_from_slice(b"Contact: <");
        extra.extend_from_slice(part(0..uri_end));
        extra.extend_from_slice(b">");
        extra.extend_from_slice(part(uri_end..params_end));
        line(extra, format_args!(";expires={}", binding.expires.since(now).div_ceil(1000)));
    }
}

#[cold]
fn refuse(refusal: Refusal, m: &Message<'_>, registrar: &Registrar, extra: &mut Vec<u8>) -> (u16, &'static str) {
    match refusal {
        Refusal::Bad(reason) => (400, reason),
        Refusal::TooMany => (403, "Too Many Contacts"),
        Refusal::NoSuchUser => (404, "Not Found"),
        Refusal::Extension => {
            for tags in m.header("Require").filter(|tags| !tags.is_empty()) {
                extra.extend_from_slice(b"Unsupported: ");
                // A folded line stays one header, as it came.
                extra.extend_from_slice(m.of(tags));
                extra.extend_from_slice(b"\r\n");
            }
            (420, "Bad Extension")
        }
        Refusal::TooBrief => {
            line(extra, format_args!("Min-Expires: {}", registrar.min_expires_s));
            (423, "Interval Too Brief")
        }
        Refusal::OutOfOrder => (500, "REGISTER Out of Order"),
        Refusal::Full => {
            line(extra, format_args!("Retry-After: {RETRY_AFTER_S}"));
            (503, "Location Table Full")
        }
        Refusal::Torn => (500, "Server Internal Error"),
    }
}

fn line(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    let _ = out.write_fmt(text);
    out.extend_from_slice(b"\r\n");
}
