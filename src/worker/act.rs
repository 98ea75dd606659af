//! Carrying out what was decided, after the lock is gone: acts become bytes for a flow.

use super::corridor::{Arrived, Corridor};
use super::input::tag;
use crate::message::{self, Message, Reply, ViaFix, reason_phrase, scan};
use crate::proxy::forward::{self, Leg};
use crate::proxy::route::Course;
use crate::shared::Counter;
use crate::shared::table::{Act, Branch};
use crate::transport::{Body, Outgoing};

impl Corridor {
    /// Does all that `self.prepared` asks for. `at_hand` is the message that caused it, and, of a request that was decided on just now,
    /// `course` its course.
    pub(super) fn act(&mut self, at_hand: Option<(&Message<'_>, Arrived<'_>)>, course: Option<Course>) {
        let Corridor { prepared, outgoing, lines, identity, key, live, counters, seat, .. } = self;
        let house = forward::Ourselves { identity, key, record_route: live.record_route };
        let stored = prepared.request.and_then(|range| scan(prepared.bytes(range)).ok());
        // The request is at hand when it has just come, else it was fetched from the store.
        let request = match (&stored, at_hand) {
            (Some(m), _) => Some((m, None)),
            (None, Some((m, arrived))) if m.is_request() => Some((m, Some(arrived))),
            (None, _) => None,
        };
        let response = at_hand.filter(|(m, _)| !m.is_request());
        let course = course.filter(|_| stored.is_none());
        let leg = |m: &Message<'_>, Branch { id, flow, uri }| Leg {
            from: prepared.upstream,
            to: flow,
            id,
            uri: prepared.bytes(uri),
            course: course.unwrap_or_else(|| Course::of(m, identity, key)),
        };
        for act in &prepared.acts {
            match *act {
                Act::Request(branch) => {
                    let Some((m, arrived)) = request else { continue };
                    if arrived.is_none() {
                        counters.add(*seat, Counter::Retransmissions, 1);
                    }
                    let leg = leg(m, branch);
                    let begin = outgoing.begin();
                    forward::request(m, &house, &leg, lines, &mut outgoing.bytes);
                    let body = body(m, arrived, outgoing);
                    outgoing.finish(begin, leg.to, body, Some(leg.id));
                }
                Act::Ack(branch) => {
                    let (Some((m, _)), Some((response, _))) = (request, response) else { continue };
                    let leg = leg(m, branch);
                    let begin = outgoing.begin();
                    forward::ack(m, &house, &leg, response.of(response.to), lines, &mut outgoing.bytes);
                    outgoing.finish(begin, leg.to, Body::Empty, None);
                }
                Act::Cancel(branch) => {
                    let Some((m, _)) = request else { continue };
                    let leg = leg(m, branch);
                    let begin = outgoing.begin();
                    forward::cancel(m, &house, &leg, lines, &mut outgoing.bytes);
                    outgoing.finish(begin, leg.to, Body::Empty, None);
                }
                Act::Reply(code) | Act::ReplyAgain(code) => {
                    let Some((m, _)) = request else { continue };
                    let to_tag = tag(prepared.key);
                    let fix_via = ViaFix::needed(&m.via, m.bytes, prepared.upstream.peer.into());
                    let reply = Reply { code, reason: reason_phrase(code), to_tag: Some(&to_tag), fix_via, extra: &[] };
                    let begin = outgoing.begin();
                    message::reply(m, &reply, &mut outgoing.bytes);
                    outgoing.finish(begin, prepared.upstream, Body::Empty, None);
                    counters.add(*seat, Counter::Answered, u64::from(code >= 200));
                    counters.add(*seat, Counter::TimedOut, u64::from(*act == Act::Reply(408)));
                }
                Act::Relay => {
                    let Some((m, arrived)) = response else { continue };
                    let begin = outgoing.begin();
                    message::forward_response(m, &mut outgoing.bytes);
                    outgoing.finish(begin, prepared.upstream, arrived.body(m), None);
                    counters.add(*seat, Counter::Answered, u64::from(m.code() >= 200));
                }
                // What could not be kept for want of room is not sent again.
                Act::Kept(text) if prepared.bytes(text).is_empty() => {}
                Act::Kept(text) => {
                    let begin = outgoing.begin();
                    let kept = prepared.bytes(text);
                    outgoing.bytes.extend_from_slice(kept);
                    outgoing.finish(begin, prepared.upstream, Body::Empty, None);
                    counters.add(*seat, Counter::Answered, u64::from(!is_provisional(kept)));
                }
            }
        }
    }
}

/// The body where it lies, or, of a stored message, behind its head.
fn body(m: &Message<'_>, arrived: Option<Arrived<'_>>, outgoing: &mut Outgoing) -> Body {
    match arrived {
        Some(arrived) => arrived.body(m),
        None => {
            outgoing.bytes.extend_from_slice(m.body());
            Body::Empty
        }
    }
}

/// A response's first digit stands behind `SIP/2.0 ` (RFC 3261 §7.2).
fn is_provisional(response: &[u8]) -> bool {
    response.get(8) == Some(&b'1')
}
