//! The targets of a request for a user of ours (RFC 3261 §16.5): all bindings, in parallel.
//!
//! A contact that names a user of ours again (call forwarding) is looked up here and now: sent to ourselves it would come back as a
//! loop, or not at all.

use std::ops::Range;

use tracing::info;

use super::corridor::{Corridor, Targets};
use super::request::Verdict;
use crate::location::Found;
use crate::log;
use crate::message::uri::{equals, put_request_uri, same_record};
use crate::message::{Message, Scheme, Uri};
use crate::proxy::route::{Whose, of_uri};
use crate::proxy::target::{self, NoHop};
use crate::proxy::{MAX_BRANCHES, Refusal};
use crate::timer::Tick;
use crate::transport::Flow;

/// Addresses-of-record that one request may ask for, so that a row or ring of forwardings has an end.
const MAX_RECORDS: usize = MAX_BRANCHES;

impl Corridor {
    /// An address-of-record of ours.
    pub(super) fn locate(&mut self, m: &Message<'_>, aor: &Uri<'_>, from: Flow, now: Tick) -> Verdict {
        self.targets.clear();
        match self.look_up(aor, from, now) {
            (Found::Unknown, _) => Verdict::Refuse(Refusal::new(404, "Not Found")), // B23
            (Found::NoBinding, _) => Verdict::Refuse(Refusal::new(480, "Temporarily Unavailable")),
            (Found::Targets(_), why) if self.targets.ends.is_empty() => {
                info!(call_id = %log::Text(m.of(m.call_id)), "no contact of the called user can be reached: {why}");
                Verdict::Refuse(Refusal::new(480, "Temporarily Unavailable"))
            }
            (Found::Targets(_), _) => Verdict::Forward,
        }
    }

    /// What is known of the address-of-record itself; and why a contact could not be used, for the log.
    fn look_up(&mut self, aor: &Uri<'_>, from: Flow, now: Tick) -> (Found, &'static str) {
        let Corridor { location, targets, live, identity, .. } = self;
        let mut why = "no phone is registered where it leads";
        let mut each = |contact: &[u8], targets: &mut Targets| {
            let Some(uri) = Uri::parse(contact) else { return };
            match of_uri(uri, identity) {
                Whose::Ourselves => why = "it names us and no user of ours",
                // What asks for sips may not end at a phone without it.
                Whose::Location(_) if uri.scheme == Scheme::Sip => {
                    if !targets.add_record(&uri) {
                        why = "it leads through too many users of ours";
                    }
                }
                _ => match target::hops(&uri, live, identity, from.listener) {
                    Ok(hops) => targets.add_once(&uri, &hops),
                    Err(no_hop) => why = in_words(no_hop),
                },
            }
        };
        targets.add_record(aor);
        let found = location.targets(aor, now, &mut |contact, _q| each(contact, targets));
        // The first is done; each may bring further ones.
        let mut nth = 1;
        while let Some(range) = targets.nth_record(nth) {
            let mut record = std::mem::take(&mut targets.record);
            record.clear();
            record.extend_from_slice(targets.records.get(range).unwrap_or_default());
            if let Some(aor) = Uri::parse(&record) {
                location.targets(&aor, now, &mut |contact, _q| each(contact, targets));
            }
            targets.record = record;
            nth += 1;
        }
        (found, why)
    }
}

fn in_words(no_hop: NoHop) -> &'static str {
    match no_hop {
        NoHop::UnknownDomain => "no next hop for its domain",
        NoHop::NoListener => "no listener for its transport and family",
        NoHop::Sips => "sips needs TLS",
    }
}

impl Targets {
    pub fn clear(&mut self) {
        self.uris.clear();
        self.ends.clear();
        self.flows.clear();
        self.records.clear();
        self.record_ends.clear();
    }

    pub fn add(&mut self, uri: &[u8], flows: &[Flow]) {
        put_request_uri(uri, &mut self.uris);
        self.flows.extend_from_slice(flows);
        self.ends.push((self.uris.len(), self.flows.len()));
    }

    /// The contact of a user, unless there are enough, or another user has the same one (B22).
    fn add_once(&mut self, uri: &Uri<'_>, flows: &[Flow]) {
        let is_new = || self.each().filter_map(|(other, _)| Uri::parse(other)).all(|other| !equals(&other, uri));
        // Those of one user differ already.
        if self.ends.len() < MAX_BRANCHES && (self.record_ends.len() < 2 || is_new()) {
            self.add(uri.text, flows);
        }
    }

    /// An address-of-record to look up, each once. False: there are too many.
    fn add_record(&mut self, uri: &Uri<'_>) -> bool {
        let is_new = (0..).map_while(|nth| self.nth_record(nth)).all(|range| {
            Uri::parse(self.records.get(range).unwrap_or_default()).is_none_or(|other| !same_record(&other, uri))
        });
        let has_room = self.record_ends.len() < MAX_RECORDS;
        if is_new && has_room {
            self.records.extend_from_slice(uri.text);
            self.record_ends.push(self.records.len());
        }
        !is_new || has_room
    }

    fn nth_record(&self, nth: usize) -> Option<Range<usize>> {
        let end = *self.record_ends.get(nth)?;
        Some(nth.checked_sub(1).and_then(|before| self.record_ends.get(before)).map_or(0, |start| *start)..end)
    }

    /// Each URI with its addresses, the first of which is tried first.
    pub fn each(&self) -> impl Iterator<Item = (&[u8], &[Flow])> {
        let mut begin = (0, 0);
        self.ends.iter().map(move |end| {
            let uri = self.uris.get(begin.0..end.0).unwrap_or_default();
            let flows = self.flows.get(begin.1..end.1).unwrap_or_default();
            begin = *end;
            (uri, flows)
        })
    }
}
