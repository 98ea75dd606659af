//! A new request: validated, routed, admitted, given its targets, then forwarded statefully (RFC 3261 §16.3 to §16.6).

use std::borrow::Cow;

use tracing::{info, warn};

use super::corridor::{Arrived, Corridor};
use super::input::way_back;
use crate::config::What;
use crate::location::address_of_record;
use crate::log;
use crate::message::BranchId;
use crate::message::{Message, Method, Uri, reason_phrase};
use crate::proxy::forward::{self, Leg};
use crate::proxy::route::{self, Course, Routing, Whose};
use crate::proxy::target::{self, NoHop};
use crate::proxy::validate::{self, Refusal};
use crate::shared::Counter;
use crate::shared::slot::Key;
use crate::shared::table::AtHand;
use crate::timer::Tick;
use crate::transport::Flow;

/// What is to be done with a request that passed.
pub(super) enum Verdict {
    /// To `Corridor::targets`.
    Forward,
    Register,
    Refuse(Refusal),
}

impl Corridor {
    pub(super) fn new_request(&mut self, m: &Message<'_>, arrived: Arrived<'_>, now: Tick) {
        let key = self.server_key(m);
        // First of all: a request that comes again meets its transaction, whatever has changed since (§17.2.3).
        if self.is_repeated(key, m, arrived, now) {
            return;
        }
        if self.draining && m.method() == Method::Invite && m.to_tag.is_empty() {
            self.count(Counter::RefusedDraining);
            self.refuse(m, arrived.from, 503, "Shutting Down", b"Retry-After: 5\r\n");
            return;
        }
        let (verdict, course) = self.decide(m, arrived.from, now);
        match verdict {
            Verdict::Forward => self.forward(key, m, arrived, course, now),
            Verdict::Register => self.register(key, m, arrived, now),
            Verdict::Refuse(refusal) => {
                if refusal.code >= 300 {
                    info!(call_id = %log::Text(m.of(m.call_id)), from = %arrived.from.peer, code = refusal.code, "{}", refusal.reason);
                }
                self.refuse(m, arrived.from, refusal.code, refusal.reason, &refusal.extra);
            }
        }
    }

    /// Everything that can be said about a request without its transaction, and its course. Leaves its targets in `self.targets`.
    fn decide(&mut self, m: &Message<'_>, from: Flow, now: Tick) -> (Verdict, Course) {
        let uri = Uri::parse(m.uri());
        let mut course = Course { loop_hash: validate::loop_hash(m, &self.key), cut: 0, strict: None };
        if let Err(refusal) = validate::validate(m, uri.as_ref(), &self.identity, course.loop_hash) {
            return (Verdict::Refuse(refusal), course);
        }
        let Some(uri) = uri else { return (Verdict::Refuse(Refusal::new(400, "Bad Request-URI")), course) };
        let routing = route::preprocess(m, &uri, &self.identity, &self.key);
        (course.cut, course.strict) = (routing.cut, routing.strict);
        let verdict = match route::whose(m, &routing, &self.identity) {
            Whose::Unreadable => Verdict::Refuse(Refusal::new(400, "Bad Route")),
            Whose::Ourselves if m.method() == Method::Register => self.may_register(m, from),
            Whose::Ourselves => Verdict::Refuse(answer_for_ourselves(m)),
            Whose::Location(_) if m.method() == Method::Register => self.may_register(m, from),
            Whose::Location(aor) => self.locate(m, &aor, from, now),
            Whose::Route(next) => self.relay(m, &routing, &next, from),
            Whose::Elsewhere(next) => self.relay(m, &routing, &next, from),
        };
        (verdict, course)
    }

    fn may_register(&self, m: &Message<'_>, from: Flow) -> Verdict {
        if !self.live.may(usize::from(from.listener), What::Register, from.peer.ip()) {
            self.count(Counter::RefusedRegister);
            return Verdict::Refuse(Refusal::new(403, "Registration Not Allowed From Here"));
        }
        match address_of_record(m) {
            Some(aor) if self.identity.is_ours(&aor) && aor.has_user => Verdict::Register,
            _ => Verdict::Refuse(Refusal::new(404, "Not Found")), // F04
        }
    }

    /// A request that goes where its Route or its Request-URI says. Without a Route of ours, or at the beginning of a dialog, that
    /// is relaying, and not for everybody. Nor is the way through a `[[next_hop]]`, which may cost money: our Route lets the other
    /// side's Contact be reached, which is an address.
    fn relay(&mut self, m: &Message<'_>, routing: &Routing<'_>, next: &Uri<'_>, from: Flow) -> Verdict {
        let within = routing.by_our_route && !m.to_tag.is_empty();
        let passes = within && target::next_hop(next, &self.live).is_none();
        if !passes && !self.live.may(usize::from(from.listener), What::Relay, from.peer.ip()) {
            self.count(Counter::RefusedRelay);
            return Verdict::Refuse(Refusal::new(403, "Relaying Not Allowed From Here"));
        }
        self.targets.clear();
        match target::hops(next, &self.live, &self.identity, from.listener) {
            Ok(hops) => {
                self.targets.add(routing.uri, &hops);
                Verdict::Forward
            }
            Err(NoHop::UnknownDomain) => Verdict::Refuse(Refusal::new(404, "No Next Hop For This Domain")),
            Err(NoHop::NoListener) => Verdict::Refuse(Refusal::new(500, "No Listener For This Transport")),
            Err(NoHop::Sips) => Verdict::Refuse(Refusal::new(416, "Unsupported URI Scheme")),
        }
    }

    /// The same request again: its transaction answers. False: it is a new one.
    fn is_repeated(&mut self, key: Key, m: &Message<'_>, arrived: Arrived<'_>, now: Tick) -> bool {
        let Some(mut entry) = self.entered(self.table.lock(key)) else { return false };
        let Some(head) = entry.find(key) else { return false };
        self.count(Counter::Repeated);
        self.prepared.clear();
        entry.visit(head, now, &self.lengths, AtHand::Request, &mut self.prepared, |context| context.repeated());
        drop(entry);
        self.act(Some((m, arrived)), None);
        true
    }

    fn forward(&mut self, key: Key, m: &Message<'_>, arrived: Arrived<'_>, course: Course, now: Tick) {
        let Some(mut entry) = self.entered(self.table.lock(key)) else { return };
        self.prepared.clear();
        if entry.find(key).is_some() {
            // Another worker was quicker with the same request.
            drop(entry);
            self.is_repeated(key, m, arrived, now);
            return;
        }
        let from = way_back(m, arrived.from);
        let head = entry.create(key, from, &[m.bytes]);
        let complete = head.is_some_and(|head| {
            self.targets.each().all(|(uri, flows)| {
                flows.split_first().is_some_and(|(first, others)| entry.add_branch(head, *first, uri, others))
            })
        });
        let Some(head) = head.filter(|_| complete) else {
            if let Some(head) = head {
                entry.abandon(head);
            }
            drop(entry);
            self.count(Counter::TableFull);
            warn!(call_id = %log::Text(m.of(m.call_id)), "transaction table full: 503");
            self.refuse(m, arrived.from, 503, "Transaction Table Full", b"Retry-After: 5\r\n");
            return;
        };
        let method = m.method();
        if method == Method::Invite {
            self.count(Counter::Invites);
        }
        entry.visit(head, now, &self.lengths, AtHand::Request, &mut self.prepared, |context| context.start(method));
        drop(entry);
        self.act(Some((m, arrived)), Some(course));
    }

    /// An ACK to a 2xx: goes on without a transaction (RFC 3261 §17.1).
    pub(super) fn forward_statelessly(&mut self, m: &Message<'_>, arrived: Arrived<'_>, now: Tick) {
        let (verdict, course) = self.decide(m, arrived.from, now);
        match verdict {
            Verdict::Forward => {}
            Verdict::Refuse(refusal) => {
                return self.refuse(m, arrived.from, refusal.code, refusal.reason, &refusal.extra);
            }
            Verdict::Register => return,
        }
        let Corridor { targets, prepared, lines, outgoing, identity, key, live, .. } = self;
        prepared.clear();
        let Some((uri, flows)) = targets.each().next() else { return };
        let Some(to) = flows.first().copied() else { return };
        prepared.scratch.extend_from_slice(uri);
        let ourselves = forward::Ourselves { identity, key, record_route: live.record_route };
        let leg =
            Leg { from: arrived.from, to, id: BranchId { slot: 0, generation: 0 }, uri: &prepared.scratch, course };
        let begin = outgoing.begin();
        forward::request(m, &ourselves, &leg, lines, &mut outgoing.bytes);
        outgoing.finish(begin, to, arrived.body(m), None);
    }
}

/// Requests to ourselves: we can be asked whether we are there, and nothing else.
fn answer_for_ourselves(m: &Message<'_>) -> Refusal {
    const ALLOW: &[u8] = b"Allow: OPTIONS, REGISTER, ACK, CANCEL\r\n";
    const OPTIONS: &[u8] = b"Allow: OPTIONS, REGISTER, ACK, CANCEL\r\nAccept: */*\r\n";
    match m.method() {
        Method::Options => Refusal { code: 200, reason: reason_phrase(200), extra: Cow::Borrowed(OPTIONS) },
        Method::Invite | Method::Bye | Method::Other => Refusal::new(404, "Not Found"),
        _ => Refusal { code: 405, reason: reason_phrase(405), extra: Cow::Borrowed(ALLOW) },
    }
}
