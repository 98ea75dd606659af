//! Request forwarding: RFC 3261 §16.6, as far as it is bytes.
//!
//! Owns: what our Via, Record-Route and Max-Forwards say. The same request, flow and branch give the same bytes each time, so a
//! retransmission, a CANCEL or an ACK needs nothing stored but the request as it was received.

use super::identity::Identity;
use super::route::{self, Course};
use crate::message::branch::{self, BranchId};
use crate::message::edit::RouteEdit;
use crate::message::{self, Message, Method, RequestEdit, ViaFix};
use crate::transport::Flow;

/// What composing needs to know of us.
#[derive(Clone, Copy)]
pub struct Ourselves<'h> {
    pub identity: &'h Identity,
    pub key: &'h branch::Key,
    pub record_route: bool,
}

/// Where one copy of a request comes from and goes to.
#[derive(Clone, Copy, Debug)]
pub struct Leg<'l> {
    pub from: Flow,
    pub to: Flow,
    pub id: BranchId,
    /// The Request-URI to send.
    pub uri: &'l [u8],
    /// Of the request.
    pub course: Course,
}

/// Appends the head of the copy that goes to `leg.to`. `lines` is scratch.
pub fn request(m: &Message<'_>, ourselves: &Ourselves<'_>, leg: &Leg<'_>, lines: &mut Vec<u8>, out: &mut Vec<u8>) {
    lines.clear();
    via(m, ourselves, leg, lines);
    let via_end = lines.len();
    // Requests inside a dialog have their route already.
    if ourselves.record_route && forms_dialog(m.method()) && m.to_tag.is_empty() {
        ourselves.identity.record_route(leg.from.listener, leg.to.listener, &route::mark(m, ourselves.key), lines);
    }
    let (via, record_route) = lines.split_at(via_end);
    let edit = RequestEdit {
        // A strict router wants its own URI there (§16.6 item 6): the edit makes it.
        uri: Some(leg.uri),
        via,
        fix_via: ViaFix::needed(&m.via, m.bytes, leg.from.peer.into()),
        record_route,
        max_forwards: m.max_forwards.map_or(70, |(value, _)| value.saturating_sub(1)),
        cut_routes: leg.course.cut,
        strict_route: leg.course.strict,
    };
    message::forward_request(m, &edit, out);
}

/// Appends the ACK for the failure `response_to` (its To value) of that copy (§17.1.1.3).
pub fn ack(
    m: &Message<'_>,
    ourselves: &Ourselves<'_>,
    leg: &Leg<'_>,
    response_to: &[u8],
    lines: &mut Vec<u8>,
    out: &mut Vec<u8>,
) {
    lines.clear();
    via(m, ourselves, leg, lines);
    message::ack(m, leg.uri, lines, route_edit(leg), response_to, out);
}

/// Appends the CANCEL of that copy (§9.1).
pub fn cancel(m: &Message<'_>, ourselves: &Ourselves<'_>, leg: &Leg<'_>, lines: &mut Vec<u8>, out: &mut Vec<u8>) {
    lines.clear();
    via(m, ourselves, leg, lines);
    message::cancel(m, leg.uri, lines, route_edit(leg), out);
}

fn via(m: &Message<'_>, ourselves: &Ourselves<'_>, leg: &Leg<'_>, lines: &mut Vec<u8>) {
    lines.extend_from_slice(ourselves.identity.via(leg.to.listener));
    branch::write(lines, ourselves.key, leg.id, leg.course.loop_hash, m.of(m.via.branch));
    lines.extend_from_slice(b"\r\n");
}

fn route_edit(leg: &Leg<'_>) -> RouteEdit {
    RouteEdit { cut: leg.course.cut, strict: leg.course.strict }
}

/// Methods that make a dialog whose later requests should pass through us (RFC 3261 §16.6 item 4, RFC 6665, RFC 3515).
fn forms_dialog(method: Method) -> bool {
    matches!(method, Method::Invite | Method::Subscribe | Method::Refer | Method::Notify)
}
